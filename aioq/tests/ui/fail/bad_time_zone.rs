#![allow(unused)]

use aioq::task;

#[task(cron = "0 3 * * *", tz = "Europe/Berln")]
async fn misspelled() {}

#[task(tz = "Europe/Berlin")]
async fn alone() {}

fn main() {}
