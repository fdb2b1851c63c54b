//! The workers of a world: they come, go, crash and freeze, until everything comes to rest.

use std::time::Duration;

use aioq::prelude::*;
use aioq::store::JobRecord;
use aioq::testing::TestClock;
use aioq::worker::WorkerOptions;
use aioq::{Backend, ErrorKind, JobId};
use aioq_tests::faults::{Broken, Fact, Faults, Journal};
use tokio::time::sleep;

use crate::bodies::Stage;
use crate::workers::Live;

/// The only queue.
const QUEUE: &str = "default";
/// The most workers at once.
const MOST_WORKERS: usize = 3;
/// The most jobs at once of a worker.
pub(crate) const MOST_SLOTS: usize = 7;
/// Limit of the time until everything is at rest, in steps of a second.
const PATIENCE: usize = 1_200;

/// Longer than a late request is on its way.
const LATE: Duration = Duration::from_secs(4);

/// Result of a seed.
pub(crate) struct Outcome {
    pub(crate) wrong: Vec<String>,
    pub(crate) journal: Journal,
}

/// Runs a seed on a runtime of its own whose clock is paused: time passes only when nothing else
/// can.
pub(crate) fn in_virtual_time(seed: u64, world: impl Future<Output = Outcome>) -> Outcome {
    // Backoffs have jitter.
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(world)
}

/// A world without its clients.
pub(crate) struct Crew {
    pub(crate) faults: Faults,
    pub(crate) backend: Backend,
    pub(crate) stage: Stage,
    pub(crate) random: fastrand::Rng,
    /// Over a link that nothing happens to.
    pub(crate) client: Client,
    /// Largest distance of a clock from the right one, in milliseconds.
    pub(crate) clocks_apart: u64,
    /// True if the workers fire schedules.
    pub(crate) has_schedules: bool,
    workers: Vec<Live>,
    wrong: Vec<String>,
}

impl Crew {
    /// `draw_clocks` draws the largest distance of a clock from the right one, in milliseconds.
    pub(crate) async fn new(
        seed: u64,
        broken: Option<Broken>,
        mut random: fastrand::Rng,
        draw_clocks: impl FnOnce(&mut fastrand::Rng) -> u64,
    ) -> Self {
        let faults = broken.map_or_else(|| Faults::new(seed), |broken| Faults::broken(seed, broken));
        let backend = Backend::from(Memory::new());
        let client = Client::connect(backend.clone()).await.unwrap();
        let (stage, clocks_apart) = (Stage::new(faults.journal()), draw_clocks(&mut random));
        let (workers, wrong) = Default::default();
        Self { faults, backend, stage, random, client, clocks_apart, has_schedules: false, workers, wrong }
    }

    /// The clock of one process.
    pub(crate) fn clock(&mut self) -> TestClock {
        let (clock, span) = (TestClock::new(), Duration::from_millis(self.random.u64(..self.clocks_apart)));
        if self.random.bool() {
            clock.set_ahead(span)
        } else {
            clock.set_behind(span)
        }
        clock
    }

    /// A worker comes, goes, crashes or freezes, or none does.
    pub(crate) async fn disturb(&mut self) {
        self.bury().await;
        let number = self.random.usize(..MOST_WORKERS);
        let wrong = match self.random.u32(..5) {
            0 if number < self.workers.len() => self.workers.swap_remove(number).crash().await,
            1 if number < self.workers.len() => self.workers.swap_remove(number).stop().await,
            2 if number < self.workers.len() => {
                // Longer than a lease, and not so long that its last sign of life is old: what
                // waits for the next sign is woken in an order that no seed decides.
                let span = Duration::from_millis(self.random.u64(500..8_000));
                let link = self.workers[number].link();
                match self.random.u32(..8) {
                    write @ 0..4 => link.freeze_at_write(write, span),
                    _ => link.freeze(span),
                }
                None
            }
            _ if self.workers.len() <= number => {
                let slots = self.random.usize(1..=MOST_SLOTS);
                self.start_worker(slots).await;
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

    pub(crate) async fn start_worker(&mut self, slots: usize) {
        let grace = Duration::from_millis(self.random.u64(..3_000));
        let options = WorkerOptions::new().grace(grace).concurrency(slots).schedules(self.has_schedules);
        let clock = self.clock();
        self.workers.push(Live::start(&self.faults, &self.backend, &self.stage, options, &clock).await);
    }

    /// Waits without faults until the broker is empty and these jobs have ended. A job may be
    /// missing.
    pub(crate) async fn come_to_rest(&mut self, jobs: &[JobId]) {
        self.faults.end();
        sleep(LATE).await;
        let mut left = Vec::new();
        for _ in 0..PATIENCE {
            self.bury().await;
            if self.workers.is_empty() {
                self.start_worker(MOST_SLOTS).await;
            }
            sleep(Duration::from_secs(1)).await;
            left = self.unfinished(jobs).await;
            if left.is_empty() {
                break;
            }
        }
        self.wrong.extend(left.into_iter().map(|left| format!("does not come to rest: {left}")));
        while let Some(worker) = self.workers.pop() {
            let wrong = worker.stop().await;
            self.wrong.extend(wrong);
        }
        self.wrong
            .extend(self.messages().await.map(|left| format!("something is left in the broker: {left}")));
        self.faults.journal().note(0, Fact::Note("all is at rest".to_owned()));
    }

    /// The messages in the broker, if any.
    async fn messages(&self) -> Option<String> {
        let depth = self.client.queues().depths(&[QUEUE.to_owned()]).await.unwrap().remove(0);
        (depth.ready + depth.held + depth.scheduled + depth.retrying > 0).then(|| format!("{depth:?}"))
    }

    /// Messages in the broker and jobs that have not ended.
    async fn unfinished(&self, jobs: &[JobId]) -> Vec<String> {
        let mut left: Vec<String> = self.messages().await.into_iter().collect();
        for id in jobs {
            match self.client.jobs().get(id).await {
                Ok(JobRecord { status, .. }) if status.is_terminal() => {}
                Ok(record) => left.push(format!("{id} is {}", record.status)),
                // The check at the end decides if it may be missing.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => left.push(format!("{id}: {error}")),
            }
        }
        left
    }

    /// What happened, and what is wrong with it.
    pub(crate) fn outcome(self, wrong: Vec<String>) -> Outcome {
        Outcome { wrong: [self.wrong, wrong].concat(), journal: self.faults.journal().clone() }
    }
}
