#![allow(unused)]

use aioq::task;

#[task]
async fn push(items: &mut Vec<u8>, name: &mut str) {}

fn main() {}
