#![allow(unused)]

use aioq::task;

trait Mail: Send + Sync {}

#[task]
async fn send(#[inject] mailer: &dyn Mail, #[inject] name: &str, #[inject] other: &'static u8) {}

fn main() {}
