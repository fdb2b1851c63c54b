#![allow(unused)]

use aioq::task;

struct NoError;

#[task]
async fn open() -> Result<u8, NoError> {
    Err(NoError)
}

fn main() {}
