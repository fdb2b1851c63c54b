#![allow(unused)]

use aioq::task;

#[task]
async fn greet(name: &'static str) {}

fn main() {}
