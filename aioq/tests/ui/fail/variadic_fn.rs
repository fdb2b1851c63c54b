#![allow(unused)]

use aioq::task;

#[task]
unsafe extern "C" fn variadic(first: u8, _: ...) {}

fn main() {}
