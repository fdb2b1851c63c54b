#![allow(unused)]

use aioq::task;

struct Mailer;

impl Mailer {
    #[task]
    async fn send(&self, to: &str) {}
}

fn main() {}
