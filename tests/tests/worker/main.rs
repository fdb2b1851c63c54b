//! Jobs in the hands of a worker, on memory and on NATS.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::Duration;

use aioq::time::MAX_SPAN;
use aioq::worker::WorkerOptions;
use aioq::{App, Client};
use aioq_tests::{Bed, PATIENCE, Probe};

use crate::bodies::Gauge;
use crate::suspects::Crowd;
use crate::times::{Off, PutOff, Runs};

mod ack_modes;
mod blocking;
mod bodies;
mod dependencies;
mod endings;
mod flows;
mod in_place;
mod kicking;
mod leases;
mod middleware;
mod results;
mod retry;
mod schedules;
mod sharing;
mod shutdown;
mod suspects;
mod tasks;
mod times;
mod unique;
mod virtual_time;
mod waits;

/// Options of a worker on the queues that the modules share. Other queues belong to one module
/// each.
fn options() -> WorkerOptions {
    WorkerOptions::new().queues(["default", "blocking"])
}

/// A lease that a test can wait for.
const LEASE: Duration = Duration::from_secs(1);

/// The same, with a short lease.
fn short_lease() -> WorkerOptions {
    options().ack_wait(LEASE).grace(Duration::from_millis(50))
}

/// Adds the states of all tasks of these queues. A test replaces those that it looks at.
fn stateful(app: App) -> App {
    let app = app.state(Probe::default()).state(Gauge::default()).state(Crowd::default());
    app.state(Runs::default()).state(PutOff(Off::Layer, MAX_SPAN)).worker_options(options())
}

/// An app, and the probe of its bodies.
fn probed(bed: &Bed) -> (App, Probe) {
    let probe = Probe::default();
    (stateful(bed.app()).state(probe.clone()), probe)
}

/// Takes the next job and gives it back unrun, as a worker does that is told to stop.
async fn redeliver(client: &Client, queue: &str) {
    let delivery = client.dequeue(&[queue], PATIENCE).await.unwrap().expect("a job is there");
    delivery.receipt.release(Duration::ZERO).await.unwrap();
}
