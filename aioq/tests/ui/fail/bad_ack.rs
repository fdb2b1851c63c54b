#![allow(unused)]

use aioq::task;

#[task(ack = "on_recieve")]
async fn send() {}

fn main() {}
