#![allow(unused)]

use aioq::task;

#[task(timout = "30s")]
async fn near() {}

#[task(zzz)]
async fn far() {}

#[task(retry(maximum = 5))]
async fn inside() {}

fn main() {}
