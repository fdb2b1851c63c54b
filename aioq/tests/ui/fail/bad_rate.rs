#![allow(unused)]

use aioq::task;

#[task(rate = "100/week")]
async fn send() {}

fn main() {}
