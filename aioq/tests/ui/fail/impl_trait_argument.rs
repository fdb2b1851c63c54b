#![allow(unused)]

use aioq::task;

#[task]
async fn sum(numbers: impl Iterator<Item = u8>) {}

fn main() {}
