#![allow(unused)]

use aioq::task;

struct Socket;

#[task]
async fn open() -> Socket {
    Socket
}

fn main() {}
