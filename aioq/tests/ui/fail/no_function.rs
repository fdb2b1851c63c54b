#![allow(unused)]

use aioq::task;

#[task]
struct NotAFunction;

#[task]
async fn without_body();

fn main() {}
