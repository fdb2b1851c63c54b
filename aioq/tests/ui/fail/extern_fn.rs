#![allow(unused)]

use aioq::task;

#[task]
extern "C" fn foreign() {}

fn main() {}
