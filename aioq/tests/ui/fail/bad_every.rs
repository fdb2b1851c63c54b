#![allow(unused)]

use aioq::task;

#[task(every = "500ms")]
async fn tight() {}

#[task(cron = "0 3 * * *", every = "1h")]
async fn both() {}

fn main() {}
