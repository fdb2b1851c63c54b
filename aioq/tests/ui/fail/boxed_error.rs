use std::error::Error;

use aioq::task;

#[task]
async fn open(number: u8) -> Result<u8, Box<dyn Error>> {
    Ok(number)
}

#[task]
fn read(number: u8) -> Result<u8, Box<dyn Error>> {
    Ok(number)
}

fn main() {}
