#![allow(unused)]

use aioq::task;

#[task]
async fn first(text: &str) -> Option<&str> {
    text.get(..1)
}

fn main() {}
