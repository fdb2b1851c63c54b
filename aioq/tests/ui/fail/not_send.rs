#![allow(unused)]

use aioq::task;

use std::rc::Rc;

#[task]
async fn count() -> usize {
    let shared = Rc::new(1);
    std::future::ready(()).await;
    *shared
}

fn main() {}
