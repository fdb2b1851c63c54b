#![allow(unused)]

use aioq::task;

struct Mailer;

#[task]
async fn send(#[inject] mailer: &mut Mailer) {}

fn main() {}
