#![allow(unused)]

#[aioq::main]
fn app<T>(port: u16) {}
