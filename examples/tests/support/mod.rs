//! Runs the programs of this package.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

/// Output of a program, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs a program, apart from the environment that this test has.
pub(crate) fn run(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    run_in(Path::new("."), program, args)
}

pub(crate) fn run_in(
    directory: &Path,
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Ran {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AIOQ_")) {
        command.env_remove(name);
    }
    let Output { status, stdout, stderr } =
        command.args(args).current_dir(directory).env_remove("RUST_LOG").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// The sources of the examples.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// The program of an example. `cargo test` builds the examples beside the tests; with `--test NAME`
/// it does not, so one that is missing or old is refused.
pub(crate) fn example(name: &str) -> PathBuf {
    let demo = Path::new(env!("CARGO_BIN_EXE_demo"));
    let program = demo.with_file_name("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let built = program.metadata().and_then(|metadata| metadata.modified());
    let source = [sources().join(name), sources().join(name).with_extension("rs")];
    let written = source.iter().filter_map(|source| newest(source)).max();
    let fresh = built.is_ok_and(|built| written.is_some_and(|written| built >= written));
    assert!(fresh, "build it first: cargo build -p aioq-examples --example {name}");
    program
}

/// Time of the last write of a file, or of a file in a directory.
fn newest(path: &Path) -> Option<SystemTime> {
    match path.read_dir() {
        Ok(entries) => entries.filter_map(|entry| newest(&entry.ok()?.path())).max(),
        Err(_) => path.metadata().ok()?.modified().ok(),
    }
}
