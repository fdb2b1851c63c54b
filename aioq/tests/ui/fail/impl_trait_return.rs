#![allow(unused)]

use aioq::task;

#[task]
async fn numbers() -> impl Iterator<Item = u8> {
    0..3
}

fn main() {}
