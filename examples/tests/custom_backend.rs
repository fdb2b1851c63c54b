//! The example backend on redb keeps every promise of the three seams.

#![allow(unreachable_pub, reason = "a program has no outside")]

#[path = "../examples/custom_backend/backend.rs"]
mod backend;
#[path = "../examples/custom_backend/broker.rs"]
mod broker;
#[path = "../examples/custom_backend/file.rs"]
mod file;
#[path = "../examples/custom_backend/jobs.rs"]
mod jobs;
#[path = "../examples/custom_backend/kv.rs"]
mod kv;
#[path = "../examples/custom_backend/listener.rs"]
mod listener;

use aioq::Backend;
use tempfile::TempDir;

async fn fresh() -> (Backend, TempDir) {
    let directory = TempDir::new().expect("a temporary directory");
    (Backend::from(backend::Redb::new(directory.path().join("jobs.redb"))), directory)
}

mod conformance {
    aioq::conformance_suite!(super::fresh);
}
