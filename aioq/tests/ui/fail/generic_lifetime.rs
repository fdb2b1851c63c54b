#![allow(unused)]

use aioq::task;

#[task]
async fn generic<'a>(x: &'a str) {}

fn main() {}
