#![allow(unused)]

use aioq::App;

#[aioq::main]
async fn app() -> App {
    App::new()
}
