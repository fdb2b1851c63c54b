#![allow(unused)]

use aioq::task;

#[task(unique(by = nope, within = "10m"))]
async fn unknown(to: &str) {}

#[task(unique(by = (to, mailer), within = "10m"))]
async fn injected(to: &str, #[inject] mailer: &u8) {}

#[task(unique(by = to))]
async fn half(to: &str) {}

fn main() {}
