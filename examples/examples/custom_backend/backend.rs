//! The three seams together, under one name.

use std::path::PathBuf;

use aioq::backend::{OpenBackend, Settings};
use aioq::{Backend, Error, ErrorKind, Result};

use crate::broker::RedbBroker;
use crate::file::File;
use crate::jobs::RedbJobs;
use crate::kv::RedbKv;

/// Keeps everything in one file, for one process at a time.
pub struct Redb {
    path: PathBuf,
}

impl Redb {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl From<Redb> for Backend {
    fn from(redb: Redb) -> Self {
        redb.open()
    }
}

impl OpenBackend for Redb {
    fn configure(&mut self, settings: &Settings) -> Result<()> {
        if let Some(url) = &settings.url {
            let wrong = || Error::new(ErrorKind::Config, format!("`{url}` is no `redb:PATH`"));
            self.path = url.strip_prefix("redb:").ok_or_else(wrong)?.into();
        }
        Ok(())
    }

    fn open(&self) -> Backend {
        let file = File::new(&self.path);
        let address = format!("redb:{}", self.path.display());
        Backend::new(RedbBroker::new(file.clone(), address), RedbJobs::new(file.clone()), RedbKv::new(file))
    }

    fn scheme(&self) -> Option<&'static str> {
        Some("redb")
    }
}
