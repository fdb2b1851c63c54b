//! The demo program and the producer program, built with fault points.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The path of the demo program with fault points, built with the profile and the target directory
/// of the running test.
///
/// # Errors
/// It does not build; the message is the compiler's.
pub fn demo_binary() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| error.to_string()));
    built.clone().map_err(Error::other)
}

fn build() -> Result<PathBuf> {
    // <target>[/<triple>]/<profile>/deps/<test>, or without deps/ for a program.
    let own = std::env::current_exe()?;
    let home = own.ancestors().skip(1).find(|directory| !directory.ends_with("deps"));
    let home = home.ok_or_else(|| Error::other("a test lies in a target directory"))?;
    let target = home.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
    let target =
        target.ok_or_else(|| Error::other(format!("{} is in no target directory", own.display())))?;
    let profile = match home.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let triple = home.parent().filter(|directory| *directory != target).and_then(Path::file_name);
    // Tests of other processes wait here until the first has built it.
    let lock = File::create(target.join("demo.lock"))?;
    lock.lock()?;
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "aioq-examples", "--profile", profile]);
    cargo.args(["--bin", "demo", "--bin", "producer", "--bin", "clockwork"]);
    cargo.args(["--features", "fault-injection"]);
    cargo.args([OsStr::new("--target-dir"), target.as_os_str()]);
    cargo.args(triple.into_iter().flat_map(|triple| [OsStr::new("--target"), triple]));
    // Variables about the package of this test: build scripts that look at them would run anew each
    // time.
    let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_BIN_", "OUT_DIR"];
    let about_test = |name: &OsStr| told.iter().any(|start| name.to_string_lossy().starts_with(start));
    std::env::vars_os().map(|(name, _)| name).filter(|name| about_test(name)).for_each(|name| {
        cargo.env_remove(name);
    });
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    if output.status.success() {
        Ok(home.join("demo"))
    } else {
        Err(Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// The worker whose tasks have schedules: it is built together with the demo program.
///
/// # Errors
/// As [`demo_binary`].
pub(super) fn clockwork_binary() -> Result<PathBuf> {
    demo_binary().map(|demo| demo.with_file_name("clockwork"))
}

/// The program that kicks what it reads, with fault points: it is built together with the demo
/// program.
///
/// # Errors
/// As [`demo_binary`].
pub fn producer_binary() -> Result<PathBuf> {
    demo_binary().map(|demo| demo.with_file_name("producer"))
}
