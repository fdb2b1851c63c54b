#![allow(unused)]

use aioq::App;

#[aioq::main(threads = 4)]
fn with_option() -> App {
    App::new()
}
