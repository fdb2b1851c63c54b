//! The settings of a worker.

use std::time::Duration;

use crate::broker::MAX_ACK_WAIT;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{DEFAULT_QUEUE, check_queue_name};
use crate::registry::Registry;
use crate::time::MAX_SPAN;

/// Settings of a worker. Each has a default that suits most programs.
#[derive(Clone, Debug)]
#[must_use]
pub struct WorkerOptions {
    pub(crate) concurrency: usize,
    pub(crate) blocking_threads: usize,
    pub(crate) max_prefetch: usize,
    pub(crate) queues: Option<Vec<String>>,
    pub(crate) ack_wait: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) max_crashes: u32,
    pub(crate) patience: Option<Duration>,
    pub(crate) burst: bool,
    pub(crate) quote_arguments: bool,
    pub(crate) schedules: bool,
    pub(crate) takes_jobs: bool,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        // Python's rule for its thread pools.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            concurrency: 100,
            blocking_threads: (cores + 4).min(32),
            max_prefetch: 512,
            queues: None,
            ack_wait: None,
            grace: Duration::from_secs(30),
            max_crashes: 5,
            patience: None,
            burst: false,
            quote_arguments: false,
            schedules: true,
            takes_jobs: true,
        }
    }
}

impl WorkerOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Async jobs that run at once. A body that [waits for another
    /// job](crate::guide::jobs#wait-inside-a-body) is not counted. Default: 100.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = jobs;
        self
    }

    /// Blocking jobs that run at once, beside the async ones. A body that [waits for another
    /// job](crate::guide::jobs#wait-inside-a-body) is not counted. Default: the number of cores and
    /// 4 more, at most 32.
    ///
    /// Give blocking tasks their own queue. From a queue with only blocking tasks the worker
    /// fetches as many jobs as it has free threads. From a mixed queue it cannot choose: when more
    /// blocking jobs than [`concurrency`](Self::concurrency) wait for a thread, it stops fetching
    /// from that queue until some are done.
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        self.blocking_threads = threads;
        self
    }

    /// Upper limit of jobs fetched ahead. The worker adapts: about 50 ms of work at its current
    /// rate. Default: 512.
    pub fn max_prefetch(mut self, jobs: usize) -> Self {
        self.max_prefetch = jobs;
        self
    }

    /// Queues to consume. Default: `default`, and every queue that a registered task names. Only
    /// tasks of these queues need their states.
    pub fn queues<Q: Into<String>>(mut self, queues: impl IntoIterator<Item = Q>) -> Self {
        self.queues = Some(queues.into_iter().map(Into::into).collect());
        self
    }

    /// Time after which the jobs of a worker that died come again, from 500 ms to a day
    /// ([`MAX_ACK_WAIT`]). The worker extends its leases at a third of it.
    ///
    /// A queue has one value. Without this setting the worker adopts the value of the queue, or
    /// 30 s.
    pub fn ack_wait(mut self, ack_wait: Duration) -> Self {
        self.ack_wait = Some(ack_wait);
        self
    }

    /// Time that running jobs get to finish when the worker is told to stop. Default: 30 s.
    ///
    /// After it the bodies are told to stop, and their jobs are given back. A blocking body that is
    /// not done half a second later goes on until the process ends; its job is given back all the
    /// same.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace.min(MAX_SPAN);
        self
    }

    /// Deaths of the process after which a job is failed as poison. Only deaths count that happened
    /// while the job ran with no other suspect beside it. Default: 5.
    ///
    /// A job is a suspect after two starts of its body (with a value of 1: after one) that left no
    /// end. The suspects of a process run one at a time; other jobs go on beside them. So a job
    /// that kills its process does so at most twice as often as this value, however many jobs run
    /// beside it, and none of those is failed for it. A job that takes hours and is cut off by each
    /// deploy counts too: raise this value, or let the job end within the grace period.
    ///
    /// Each death costs `ack_wait` and the start of a new process. The innocent suspects of a
    /// process take as long as all of them one after another. A suspect that runs for over 5
    /// minutes lets the others go on beside it; its start, and theirs meanwhile, do not count. The
    /// 5 minutes double with each further start without an end.
    pub fn max_crashes(mut self, starts: u32) -> Self {
        self.max_crashes = starts;
        self
    }

    /// Time for which a job of an unknown task, or with arguments that do not fit its task, is left
    /// to workers of a newer release. Default: 10 min; in memory, where no newer release comes,
    /// zero.
    ///
    /// The time counts from the kick, or from the moment at which the job was due. After it the job
    /// is failed; zero fails it at once. This holds for a task with `ack = "on_receive"` too.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Ends the worker once nothing is ready in its queues and nothing runs here. Default: false.
    pub fn burst(mut self, burst: bool) -> Self {
        self.burst = burst;
        self
    }

    /// Quotes arguments that do not fit their task in the error of the job. The error is logged and
    /// stays on the record, where every operator can read the values. Default: false, the error
    /// tells names and types.
    pub fn quote_arguments(mut self, quote: bool) -> Self {
        self.quote_arguments = quote;
        self
    }

    /// Fires [schedules](crate::guide::schedules), and writes those of its tasks. Default: true. A
    /// worker in burst mode does neither.
    pub fn schedules(mut self, fire: bool) -> Self {
        self.schedules = fire;
        self
    }

    /// Takes no jobs, and fires schedules.
    #[cfg(feature = "cli")]
    pub(crate) fn only_schedules(mut self) -> Self {
        (self.takes_jobs, self.schedules, self.burst) = (false, true, false);
        self
    }

    /// Time for which jobs are left to workers of a newer release.
    pub(super) fn patience_of(&self, client: &Client) -> Duration {
        self.patience.unwrap_or(if client.in_process() { Duration::ZERO } else { DEFAULT_PATIENCE })
    }

    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(ErrorKind::Config, what.to_owned()));
        if self.concurrency == 0 || self.blocking_threads == 0 || self.max_crashes == 0 {
            return refuse("concurrency, blocking threads and max crashes are at least 1");
        }
        if self.ack_wait.is_some_and(|ack_wait| ack_wait < MIN_ACK_WAIT) {
            return refuse("ack_wait is at least 500ms: a lease must outlive a short pause");
        }
        if self.ack_wait.is_some_and(|ack_wait| ack_wait > MAX_ACK_WAIT) {
            return refuse(
                "ack_wait is at most a day: that long nobody else gets the jobs of a worker that died",
            );
        }
        match &self.queues {
            Some(queues) if queues.is_empty() => refuse("name at least one queue"),
            Some(queues) => queues.iter().try_for_each(|queue| check_queue_name(queue)),
            None => Ok(()),
        }
    }

    pub(super) fn queues_for(&self, registry: &Registry) -> Vec<String> {
        if !self.takes_jobs {
            return Vec::new();
        }
        let mut queues = self.queues.clone().unwrap_or_else(|| {
            let named = registry.iter().map(|task| task.queue().to_owned());
            std::iter::once(DEFAULT_QUEUE.to_owned()).chain(named).collect()
        });
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}

/// Time that a rolling deploy may take.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// The shortest lease. A third of it must be longer than a short pause of the process.
pub(super) const MIN_ACK_WAIT: Duration = Duration::from_millis(500);
