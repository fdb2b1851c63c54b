#![allow(unused)]

use aioq::task;

#[task(timeout = "30", ttl = 3600)]
async fn bare() {}

#[task(timeout = "30 parsecs", ttl = "0s")]
async fn wrong() {}

fn main() {}
