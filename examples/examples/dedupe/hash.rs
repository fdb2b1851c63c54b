//! The job: the SHA-256 of one file.

use std::fs::File;
use std::io::{ErrorKind, Read as _};

use aioq::{Context, TaskError, TaskResult, task};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::walk::from_bytes;

/// Content of a file.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hashed {
    pub(crate) sha256: [u8; 32],
    pub(crate) bytes: u64,
}

const BUFFER_BYTES: usize = 64 * 1024;

/// Reads a file to its end. A plain `fn`: it blocks, so it runs on the worker's blocking pool.
#[task(name = "dedupe.hash")]
pub(crate) fn hash_file(path: &[u8], #[inject] ctx: &Context) -> TaskResult<Hashed> {
    let mut file = File::open(from_bytes(path)?)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // A worker that has to go does not wait for the end of a large file; the job runs again
        // elsewhere.
        if ctx.is_cancelled() {
            return Err(TaskError::new("told to stop"));
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Hashed { sha256: hasher.finalize().into(), bytes }),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
