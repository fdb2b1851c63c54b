//! The file that jobs write to: [`Ledger`].

use std::fs;
use std::path::{Path, PathBuf};

/// A file that the tasks `demo.append` and `demo.append_slow` write to: what ran.
pub struct Ledger(pub(super) PathBuf);

impl Ledger {
    /// Its path, for the arguments of a job.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its lines; none before the first job ran.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Number of times that it has this line.
    #[must_use]
    pub fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|other| *other == line).count()
    }
}
