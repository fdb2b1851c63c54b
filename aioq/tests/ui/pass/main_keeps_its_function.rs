//! The function keeps its name.

use aioq::App;

#[aioq::main]
fn app() -> App {
    std::process::exit(0)
}

#[allow(dead_code)]
fn elsewhere() -> App {
    app()
}
