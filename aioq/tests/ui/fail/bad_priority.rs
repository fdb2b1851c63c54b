#![allow(unused)]

use aioq::task;

#[task(priority = 10)]
async fn high() {}

#[task(priority = -1)]
async fn low() {}

#[task(priority = "3")]
async fn text() {}

fn main() {}
