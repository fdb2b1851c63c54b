#![allow(unused)]

use aioq::task;

#[task("email")]
async fn bare() {}

#[task(queue("email"), retry = 5, fallible = true, alias = "old", labels)]
async fn forms() -> Result<(), String> {
    Ok(())
}

#[task(queue = "email" priority = 3)]
async fn comma() {}

fn main() {}
