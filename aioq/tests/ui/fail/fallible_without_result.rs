#![allow(unused)]

use aioq::task;

#[task(fallible)]
async fn sure() -> u8 {
    1
}

fn main() {}
