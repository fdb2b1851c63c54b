#![allow(unused)]

use aioq::task;

#[task(cron = "0 25 * * *")]
async fn value() {}

#[task(cron = "0 3 * *")]
async fn fields() {}

fn main() {}
