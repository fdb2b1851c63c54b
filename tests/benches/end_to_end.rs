//! The program `bench` for `cargo bench`: everything, in memory and on a server of its own.
//!
//! What comes after `--` is its command line: `cargo bench -p aioq-tests -- bench drain --memory`.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // Cargo adds `--bench`, for harnesses that know it.
    let args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    match Command::new(env!("CARGO_BIN_EXE_bench")).args(args).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
