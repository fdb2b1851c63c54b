//! Jobs and queues that are looked at and steered from outside, on memory and on NATS.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aioq::store::{JobRecord, Status};
use aioq::{App, Client, JobId};
use aioq_tests::{Bed, Probe, Running, record_when};

mod abort;
mod bodies;
mod cancel;
mod clean;
mod dead_letters;
mod events;
mod kicks;
mod lifecycle;
mod list;
mod queues;
mod races;
mod remove;
mod rerun;
mod retention;

/// An app with the states of all tasks.
fn app(bed: &Bed, probe: &Probe) -> App {
    bed.app().state(probe.clone()).state(Arc::new(AtomicBool::new(false)))
}

async fn worker(bed: &Bed, probe: &Probe) -> Running {
    Running::start(app(bed, probe)).await
}

/// Waits until a job has that status.
async fn until_status(client: &Client, id: &JobId, status: Status) {
    record_when(client, id, |record| record.status == status).await;
}

fn ids(jobs: &[JobRecord]) -> Vec<&str> {
    jobs.iter().map(|job| job.id.as_str()).collect()
}
