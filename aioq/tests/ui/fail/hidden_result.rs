#![allow(unused)]

use aioq::task;

type Outcome = Result<u8, String>;

#[task]
async fn guess() -> Outcome {
    Err("no".to_owned())
}

fn main() {}
