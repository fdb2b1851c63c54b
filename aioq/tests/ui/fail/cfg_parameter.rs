#![allow(unused)]

use aioq::task;

#[task]
async fn greet(#[cfg(unix)] name: String) {}

fn main() {}
