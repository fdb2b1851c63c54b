#![allow(unused)]

use aioq::task;

#[task(name = "", queue = "", alias("send", ""))]
async fn empty() {}

#[task(alias("send"))]
async fn send() {}

#[task(name = 5)]
async fn number() {}

fn main() {}
