#![allow(unused)]

use aioq::task;

#[task(labels(priority = 3, team = "a", team = "b"))]
async fn send() {}

#[task(labels(team = first))]
async fn send_too() {}

#[task(labels(team = [1]))]
async fn send_three() {}

fn main() {}
