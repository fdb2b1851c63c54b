#![allow(unused)]

use aioq::task;

#[task]
async fn bounded(x: u8)
where
    u8: Copy,
{
}

fn main() {}
