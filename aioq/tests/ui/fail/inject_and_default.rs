#![allow(unused)]

use aioq::task;

#[task]
async fn send(#[inject] #[default] mailer: u8) {}

#[task]
async fn twice(#[inject] #[inject] mailer: u8, #[default] #[default] other: u8, #[default = 5] third: u8) {}

fn main() {}
