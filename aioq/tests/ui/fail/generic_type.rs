#![allow(unused)]

use aioq::task;

#[task]
async fn generic<T: Send>(x: T) {}

fn main() {}
