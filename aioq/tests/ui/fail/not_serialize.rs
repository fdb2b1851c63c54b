#![allow(unused)]

use aioq::task;

struct Socket;

#[task]
async fn send(socket: Socket) {}

fn main() {}
