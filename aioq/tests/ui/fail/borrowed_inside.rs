#![allow(unused)]

use aioq::task;

use std::borrow::Cow;
use std::path::Path;

#[task]
async fn greet(name: Option<&str>, paths: &[&Path], both: (&str, u8), cow: Cow<'_, str>) {}

fn main() {}
