#![allow(unused)]

use aioq::task;

#[task]
async fn swap((a, b): (u8, u8)) {}

#[task]
async fn unnamed(_: u8) {}

fn main() {}
