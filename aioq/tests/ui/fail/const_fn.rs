#![allow(unused)]

use aioq::task;

#[task]
const fn constant() {}

fn main() {}
