//! The worker: fetches deliveries, runs their jobs, settles them.

mod attempt;
mod blocked;
mod cancels;
mod fetch;
mod heartbeat;
mod leases;
mod options;
mod overdue;
mod pauses;
mod prefetch;
mod rate;
mod retention;
mod run;
mod runner;
mod schedules;
mod storage;
mod suspects;
mod tally;
mod unfit;
mod watchdog;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use self::cancels::Cancels;
use self::heartbeat::Heartbeat;
use self::leases::Leases;
pub use self::options::WorkerOptions;
use self::prefetch::PrefetchBuffer;
use self::retention::Ended;
pub use self::run::Summary;
use self::storage::Storage;
use self::suspects::Suspects;
use self::tally::Tally;
use self::unfit::Unfit;
use crate::client::{Client, in_handler};
use crate::client::{Handlers, Lifecycle};
use crate::context::{RunScope, States};
use crate::error::Result;
use crate::message::Name;
use crate::middleware::Middleware;
use crate::registry::Registry;
use crate::run::{BlockingPool, Slots};
use crate::store::JobStore;
use crate::sync::CachePadded;

/// Runs jobs. Made by [`App::worker`](crate::App::worker), run with [`run`](Self::run).
///
/// A worker lives in any tokio program; several may live in one process.
pub struct Worker {
    shared: Arc<Shared>,
    on_startup: Handlers,
    on_shutdown: Handlers,
}

/// The parts of a worker that its tasks share.
struct Shared {
    scope: Arc<RunScope>,
    registry: Registry,
    layers: Vec<Arc<dyn Middleware>>,
    options: WorkerOptions,
    queues: Vec<String>,
    leases: Arc<Leases>,
    cancels: Cancels,
    heartbeat: Heartbeat,
    ended: Ended,
    storage: Storage,
    suspects: Suspects,
    unfit: Unfit,
    /// Written all the time, so on a cache line apart from what is only read.
    prefetched: CachePadded<PrefetchBuffer>,
    /// Counts for the log line of each minute.
    tally: Tally,
    /// Deliveries processed (those returned unopened not counted).
    jobs: AtomicU64,
    /// Runs whose job another worker took over.
    taken_over: AtomicU64,
    /// Jobs that were given back while their bodies go on.
    cut_off: AtomicUsize,
    /// Jobs whose end could not be saved.
    unsettled: AtomicU64,
}

impl Shared {
    fn client(&self) -> &Client {
        &self.scope.client
    }

    /// The store of job records, if the backend has one.
    fn jobs(&self) -> Option<&Arc<dyn JobStore>> {
        self.client().backend().jobs()
    }

    fn count_taken_over(&self) {
        self.taken_over.fetch_add(1, Ordering::Relaxed);
    }

    fn count_cut_off(&self) {
        self.cut_off.fetch_add(1, Ordering::Relaxed);
    }

    fn count_unsettled(&self) {
        self.unsettled.fetch_add(1, Ordering::Relaxed);
    }
}

impl Worker {
    /// A worker of these parts.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): no tasks, or options that make no sense.
    pub(crate) fn new(
        client: Client,
        registry: Registry,
        states: States,
        layers: Vec<Arc<dyn Middleware>>,
        options: WorkerOptions,
    ) -> Result<Self> {
        options.check()?;
        let queues = options.queues_for(&registry);
        registry.check()?;
        let worker_id: Name = uuid::Uuid::now_v7().simple().to_string().into();
        // Also for those that are on their way when a crowd is noticed.
        let room = options.concurrency.saturating_mul(2).saturating_add(options.max_prefetch);
        let pool = BlockingPool::new(
            options.blocking_threads,
            registry.blocking_queues(),
            options.concurrency,
            room,
        );
        let pool = Arc::new(pool);
        let slots = Arc::new(Slots::new(options.concurrency));
        let scope = Arc::new(RunScope { client, states, worker_id, pool, slots, kept: Arc::default() });
        let tally = Tally::new(&registry);
        let shared = Shared {
            scope,
            registry,
            layers,
            options,
            queues,
            leases: Arc::default(),
            cancels: Cancels::default(),
            heartbeat: Heartbeat::default(),
            ended: Ended::default(),
            storage: Storage::default(),
            suspects: Suspects::default(),
            unfit: Unfit::default(),
            prefetched: CachePadded::default(),
            tally,
            jobs: AtomicU64::new(0),
            taken_over: AtomicU64::new(0),
            cut_off: AtomicUsize::new(0),
            unsettled: AtomicU64::new(0),
        };
        let (on_startup, on_shutdown) = Default::default();
        Ok(Self { shared: Arc::new(shared), on_startup, on_shutdown })
    }

    /// Refuses tasks of its queues that lack a state.
    pub(crate) fn check_states(&self) -> Result<()> {
        self.shared.registry.check_states(&self.shared.scope.states, &self.shared.queues)
    }

    /// Sets the handlers for the start and the end of a run.
    pub(crate) fn set_handlers(&mut self, on_startup: Handlers, on_shutdown: Handlers) {
        (self.on_startup, self.on_shutdown) = (on_startup, on_shutdown);
    }

    /// Id of the worker: random, new for each worker.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.scope.worker_id
    }

    /// The client that its tasks kick with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.scope.client
    }

    /// The queues that it consumes.
    #[must_use]
    pub fn queues(&self) -> &[String] {
        &self.shared.queues
    }

    /// The tasks that it knows.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Runs jobs until `shutdown` resolves or its client is [shut down](Client::shutdown), or in
    /// burst mode until nothing is ready and nothing runs.
    ///
    /// Then it stops fetching, gives back at once what has not started, lets running jobs finish
    /// within the grace period, and cancels and gives back the rest without spending an attempt.
    /// Its client stays connected until then. A body that waits for a job can go on only if another
    /// worker runs that job.
    ///
    /// Dropping the future instead stops it the hard way: running bodies are dropped, and what the
    /// worker held comes back after `ack_wait`.
    ///
    /// # Errors
    /// The errors of the backend when the worker starts to listen, or
    /// [`Config`](crate::ErrorKind::Config) from a startup handler. The worker waits out later
    /// outages.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Summary> {
        let scope = &self.shared.scope;
        let _hold = scope.client.hold(self.shared.options.grace);
        let lifecycle = Lifecycle::new(scope.client.clone(), scope.states.clone());
        in_handler(self.on_startup.start(&lifecycle)).await?;
        let shutdown = async {
            tokio::select! {
                () = shutdown => {}
                () = scope.client.closing() => {}
            }
        };
        let ended = run::run(&self.shared, shutdown).await;
        in_handler(self.on_shutdown.end(&lifecycle)).await;
        ended
    }

    /// Runs what is ready now, and what that kicks in turn, until nothing is left that could be
    /// delivered: for tests and for running jobs in place. The worker can be used again; startup
    /// and shutdown handlers are not run.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn drain(&self) -> Result<Summary> {
        run::drain(&self.shared).await
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id())
            .field("queues", &self.queues())
            .finish_non_exhaustive()
    }
}
