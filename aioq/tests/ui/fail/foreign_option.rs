use aioq::task;

#[task(max_retries = 3)]
async fn flaky() {}

#[task(retries = 3)]
async fn flakier() {}

#[task(delay = "5m")]
async fn late() {}

fn main() {}
