#![allow(unused)]

use aioq::task;

#[task(retry(jitter))]
async fn endless() {}

#[task(retry(max = 5, backoff = "5m..1s"))]
async fn falling() {}

#[task(retry(max = 5, backoff = "linaer 1s..5m", when = "is_transient"))]
async fn misspelled() {}

#[task(retry(max = 5, when = is_transient))]
async fn infallible() {}

#[task(retry(policy = later, backoff = "1s"))]
async fn twice() {}

fn main() {}
