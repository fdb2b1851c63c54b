//! The files below a path, found on a thread of their own, and how their paths travel.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use walkdir::{DirEntry, WalkDir};

use crate::report::Failure;

/// Files and errors that the walk found.
pub(crate) enum Found {
    /// A regular file.
    File(PathBuf),
    /// A directory, or an entry of one, that could not be read.
    Unreadable(Failure),
}

/// Entries that are found before somebody takes them.
const AHEAD: usize = 4096;

/// Walks the tree below `root`, or looks at the one file that it is. The paths begin with `root` as
/// given.
pub(crate) fn walk(root: &Path) -> Result<mpsc::Receiver<Found>, String> {
    let named = |error: io::Error| format!("{}: {error}", root.display());
    let metadata = root.metadata().map_err(named)?;
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(format!("{}: neither a directory nor a regular file", root.display()));
    }
    let (sender, receiver) = mpsc::channel(AHEAD);
    let root = root.to_owned();
    tokio::task::spawn_blocking(move || {
        if metadata.is_file() {
            drop(sender.blocking_send(Found::File(root)));
        } else {
            // Sending fails when nobody wants to know any more.
            let found = WalkDir::new(root).into_iter().filter_map(look);
            found.map_while(|found| sender.blocking_send(found).ok()).for_each(drop);
        }
    });
    Ok(receiver)
}

fn look(entry: walkdir::Result<DirEntry>) -> Option<Found> {
    match entry {
        Ok(entry) if entry.file_type().is_file() => Some(Found::File(entry.into_path())),
        Ok(_) => None,
        Err(error) => {
            let path = error.path().map_or_else(PathBuf::new, Path::to_owned);
            let why = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
            Some(Found::Unreadable(Failure { path, error: why }))
        }
    }
}

/// A path as the job gets it: absolute, since a worker may have been started elsewhere, and as
/// bytes, since a file name need not be text.
#[cfg(unix)]
pub(crate) fn to_bytes(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt as _;

    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.into_os_string().into_vec()
}

#[cfg(unix)]
pub(crate) fn from_bytes(path: &[u8]) -> io::Result<&Path> {
    use std::os::unix::ffi::OsStrExt as _;

    Ok(Path::new(std::ffi::OsStr::from_bytes(path)))
}

/// Elsewhere file names have no bytes of their own: one that is not Unicode will not be found.
#[cfg(not(unix))]
pub(crate) fn to_bytes(path: &Path) -> Vec<u8> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.to_string_lossy().into_owned().into_bytes()
}

#[cfg(not(unix))]
pub(crate) fn from_bytes(path: &[u8]) -> io::Result<&Path> {
    std::str::from_utf8(path).map(Path::new).map_err(io::Error::other)
}
