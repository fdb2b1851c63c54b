#![allow(unused)]

use aioq::task;

#[task]
async unsafe fn danger() {}

fn main() {}
