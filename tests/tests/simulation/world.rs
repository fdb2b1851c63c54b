//! One seed, from the first kick until everything is at rest.

use std::time::Duration;

use aioq::prelude::*;
use aioq::store::JobRecord;
use aioq::testing::TestClock;
use aioq::worker::WorkerOptions;
use aioq::{Backend, ErrorKind};
use aioq_tests::faults::{Broken, Fact, Faults, Journal};
use tokio::time::sleep;

use crate::bodies::Stage;
use crate::check::check;
use crate::clients::{Asked, Producer};
use crate::workers::Live;

/// The only queue.
const QUEUE: &str = "default";
/// The most workers at once.
const MOST_WORKERS: usize = 3;
/// Largest distance of a worker's clock from the others, in milliseconds.
const CLOCKS_APART: u64 = 4_000;
/// Limit of the time until everything is at rest, in steps of a second.
const PATIENCE: usize = 900;

/// Result of a seed.
pub(crate) struct Outcome {
    pub(crate) wrong: Vec<String>,
    pub(crate) journal: Journal,
}

struct World {
    faults: Faults,
    backend: Backend,
    stage: Stage,
    workers: Vec<Live>,
    random: fastrand::Rng,
    /// Largest distance between the clocks of the workers, in milliseconds.
    clocks_apart: u64,
    wrong: Vec<String>,
}

/// Runs a seed on a runtime of its own whose clock is paused: time passes only when nothing else
/// can.
pub(crate) fn simulate(seed: u64, broken: Option<Broken>) -> Outcome {
    // Backoffs have jitter.
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run(seed, broken))
}

async fn run(seed: u64, broken: Option<Broken>) -> Outcome {
    let faults = match broken {
        Some(broken) => Faults::broken(seed, broken),
        None => Faults::new(seed),
    };
    let stage = Stage::new(faults.journal());
    let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(31) + 7);
    let backend = Backend::from(Memory::new());
    let client = Client::connect(backend.clone()).await.unwrap();
    let asked = Asked::default();
    let mut producers = Vec::new();
    for number in 0..random.usize(1..=3) {
        let producer = Producer::new(number, &faults, &backend, &asked, random.fork()).await;
        producers.push(tokio::spawn(producer.work(random.usize(4..16))));
    }
    let clocks_apart = if random.bool() { 1 } else { random.u64(1..CLOCKS_APART) };
    let mut world =
        World { faults, backend, stage, workers: Vec::new(), random, clocks_apart, wrong: Vec::new() };
    while producers.iter().any(|producer| !producer.is_finished()) {
        world.disturb().await;
    }
    for producer in producers {
        producer.await.unwrap();
    }
    world.come_to_rest(&client, &asked).await;
    let mut records = Vec::new();
    for id in asked.jobs().keys() {
        records.push((id.clone(), client.jobs().get(id).await.ok()));
    }
    world.wrong.extend(check(&asked.jobs(), &records, &world.stage.runs(), world.faults.journal()));
    Outcome { wrong: world.wrong, journal: world.faults.journal().clone() }
}

impl World {
    /// A worker comes, goes, crashes or freezes, or none does.
    async fn disturb(&mut self) {
        sleep(Duration::from_millis(self.random.u64(..3_000))).await;
        self.bury().await;
        let number = self.random.usize(..MOST_WORKERS);
        let wrong = match self.random.u32(..5) {
            0 if number < self.workers.len() => self.workers.swap_remove(number).crash().await,
            1 if number < self.workers.len() => self.workers.swap_remove(number).stop().await,
            2 if number < self.workers.len() => {
                // Longer than a lease, and not so long that its last sign of life is old: what
                // waits for the next sign is woken in an order that no seed decides.
                self.workers[number].link().freeze(Duration::from_millis(self.random.u64(500..8_000)));
                None
            }
            _ if self.workers.len() <= number => {
                self.start_worker().await;
                None
            }
            _ => None,
        };
        self.wrong.extend(wrong);
    }

    /// Looks whether a worker has ended by itself.
    async fn bury(&mut self) {
        while let Some(ended) = self.workers.iter().position(Live::has_ended) {
            let wrong = self.workers.swap_remove(ended).crash().await;
            self.wrong.extend(wrong);
        }
    }

    async fn start_worker(&mut self) {
        let options = WorkerOptions::new()
            .grace(Duration::from_millis(self.random.u64(..3_000)))
            .concurrency(self.random.usize(1..8));
        let (clock, span) = (TestClock::new(), Duration::from_millis(self.random.u64(..self.clocks_apart)));
        if self.random.bool() {
            clock.set_ahead(span)
        } else {
            clock.set_behind(span)
        }
        let worker = Live::start(&self.faults, &self.backend, &self.stage, options, &clock).await;
        self.workers.push(worker);
    }

    /// Waits without faults until nothing is left to do.
    async fn come_to_rest(&mut self, client: &Client, asked: &Asked) {
        self.faults.end();
        let mut left = Vec::new();
        for _ in 0..PATIENCE {
            self.bury().await;
            if self.workers.is_empty() {
                self.start_worker().await;
            }
            sleep(Duration::from_secs(1)).await;
            left = unfinished(client, asked).await;
            if left.is_empty() {
                break;
            }
        }
        self.wrong.extend(left.into_iter().map(|left| format!("does not come to rest: {left}")));
        while let Some(worker) = self.workers.pop() {
            let wrong = worker.stop().await;
            self.wrong.extend(wrong);
        }
        // Late requests have arrived by now.
        let depth = client.queues().depths(&[QUEUE.to_owned()]).await.unwrap().remove(0);
        if depth.ready + depth.held + depth.scheduled + depth.retrying > 0 {
            self.wrong.push(format!("something is left in the broker: {depth:?}"));
        }
        self.faults.journal().note(0, Fact::Note("all is at rest".to_owned()));
    }
}

/// Messages in the broker and jobs that have not ended.
async fn unfinished(client: &Client, asked: &Asked) -> Vec<String> {
    let mut left = Vec::new();
    let depth = client.queues().depths(&[QUEUE.to_owned()]).await.unwrap().remove(0);
    if depth.ready + depth.held + depth.scheduled + depth.retrying > 0 {
        left.push(format!("{depth:?}"));
    }
    for id in asked.jobs().keys() {
        match client.jobs().get(id).await {
            Ok(JobRecord { status, .. }) if status.is_terminal() => {}
            Ok(record) => left.push(format!("{id} is {}", record.status)),
            // The check at the end decides if it may be missing.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => left.push(format!("{id}: {error}")),
        }
    }
    left
}
