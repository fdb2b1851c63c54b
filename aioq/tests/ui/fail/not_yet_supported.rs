#![allow(unused)]

use aioq::task;

#[task(unique(by = [to, cc], within = "10m"), rate = "5 per 10m")]
async fn send(to: &str, cc: &str) {}

#[task(cron = "0 3 * * *", tz = "Europe/Berlin")]
async fn nightly(#[default] days: u8, #[inject] state: &u8) {}

#[task(every = "10m")]
async fn often() {}

fn main() {}
