//! How a worker works.

use std::time::Duration;

use crate::broker::MAX_ACK_WAIT;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{DEFAULT_QUEUE, check_queue_name};
use crate::registry::Registry;
use crate::time::MAX_SPAN;

/// How a worker works; each value has a default that suits most.
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
        }
    }
}

impl WorkerOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Async jobs that run at once, not counting those that [wait for other
    /// jobs](crate::guide::jobs#wait-inside-a-body). Default: 100.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = jobs;
        self
    }

    /// Blocking jobs that run at once, beside the async ones, not counting those that [wait for other
    /// jobs](crate::guide::jobs#wait-inside-a-body). Default: the number of cores and 4 more, at most 32.
    ///
    /// Give CPU-bound and other blocking tasks a queue of their own: from one whose tasks all are blocking, a worker
    /// takes as many jobs as it has threads for, and others get the rest. From a queue that has both kinds it takes what
    /// comes; while more blocking jobs wait for a thread than there are async slots, nothing is taken from that queue.
    /// Other queues go on meanwhile.
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        self.blocking_threads = threads;
        self
    }

    /// The most jobs to hold ready beyond those that run. The worker holds about as many as end with it in 50 ms,
    /// and no more than this. Default: 512.
    pub fn max_prefetch(mut self, jobs: usize) -> Self {
        self.max_prefetch = jobs;
        self
    }

    /// The queues to consume. Default: `default`, and every queue that a registered task names. Only tasks of these
    /// queues need their states.
    pub fn queues<Q: Into<String>>(mut self, queues: impl IntoIterator<Item = Q>) -> Self {
        self.queues = Some(queues.into_iter().map(Into::into).collect());
        self
    }

    /// How long a job stays with a worker that gives no sign of life. One value per queue: without this, the
    /// worker adopts what the queue has, or 30 s. Leases are extended at a third of it. From 500 ms to a day
    /// ([`MAX_ACK_WAIT`]): that long nobody else gets the jobs of a worker that died.
    pub fn ack_wait(mut self, ack_wait: Duration) -> Self {
        self.ack_wait = Some(ack_wait);
        self
    }

    /// How long running jobs may take to finish when the worker is told to stop. Default: 30 s. Then they are told to
    /// stop, and given back; a blocking body that does not heed it within half a second is given back all the same, and
    /// goes on until the process ends.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace.min(MAX_SPAN);
        self
    }

    /// A job is failed as poison once so many of its starts, with no other suspect beside it, have ended in the death
    /// of the process. Default: 5.
    ///
    /// A job whose body was started twice (with 1: once) and left no end is a suspect from its next start on. The
    /// suspects of a process run one at a time, other jobs go on beside them. So a job that kills its process does it at
    /// most twice as often as this says, however many jobs run beside it, and none of those is failed for it. Jobs that
    /// take hours and are cut off by each deploy count, too: raise this, or let them end within the grace period.
    ///
    /// Each death costs `ack_wait` and the start of a new process, and the innocent suspects of a process take as long
    /// as all of them one after the other. One that runs for over 5 minutes lets the others go on beside it; its start,
    /// and theirs meanwhile, does not count. After each further start without an end it may take twice as long.
    pub fn max_crashes(mut self, starts: u32) -> Self {
        self.max_crashes = starts;
        self
    }

    /// How long a job that this worker does not know how to run is left to workers of a newer release: one of an
    /// unknown task, or with arguments that do not fit it. Counted from its kick, or from the time that it was due; then
    /// it is failed. Zero fails it at once. Default: 10 min; in memory, where no newer release comes, zero.
    ///
    /// A task with `ack = "on_receive"` is left alone like any other, and failed when it is over.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Ends once nothing is ready in the queues and nothing runs here. Default: no.
    pub fn burst(mut self, burst: bool) -> Self {
        self.burst = burst;
        self
    }

    /// Lets the errors of jobs whose arguments do not fit quote what was found. They are logged, and stay on the
    /// record, so everybody who may look at jobs sees such values. Default: no, the errors tell names and types.
    pub fn quote_arguments(mut self, quote: bool) -> Self {
        self.quote_arguments = quote;
        self
    }

    /// How long to leave jobs to workers of a newer release.
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
        let mut queues = self.queues.clone().unwrap_or_else(|| {
            let named = registry.iter().map(|task| task.queue().to_owned());
            std::iter::once(DEFAULT_QUEUE.to_owned()).chain(named).collect()
        });
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}

/// How long a rolling deploy may take.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// The shortest lease: a third of it must still be longer than a hiccup.
pub(super) const MIN_ACK_WAIT: Duration = Duration::from_millis(500);
