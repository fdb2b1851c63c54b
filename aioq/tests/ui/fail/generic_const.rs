#![allow(unused)]

use aioq::task;

#[task]
async fn generic<const N: usize>(x: [u8; N]) {}

fn main() {}
