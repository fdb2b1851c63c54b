#![allow(unused)]

use aioq::task;

#[task(queue = "email", queue = "mail")]
async fn send() {}

fn main() {}
