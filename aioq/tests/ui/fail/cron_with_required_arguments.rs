#![allow(unused)]

use aioq::task;

#[task(cron = "0 3 * * *")]
async fn report(to: &str, #[default] cc: String, days: u8, #[inject] state: &u8) {}

fn main() {}
