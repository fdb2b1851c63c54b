//! A function called `main` is one, too.

use aioq::App;

#[aioq::main]
pub fn main() -> App {
    std::process::exit(0)
}
