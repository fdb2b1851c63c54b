//! The backend inside the process: [`Memory`].

mod boxes;
mod broker;
mod clock;
mod desk;
mod jobs;
mod kv;
mod listener;
mod page;
mod places;
mod ranked;
mod receipt;
mod records;
mod seats;
mod series;
mod stamp;
mod state;
mod table;
mod timers;
mod watch;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::broker::MemoryBroker;
use self::jobs::MemoryJobs;
use self::kv::MemoryKv;
use crate::backend::{Backend, BackendKind, OpenBackend, Settings};
use crate::error::{Error, ErrorKind, Result};

/// How many records of ended jobs are kept unless [`Memory::max_records`] says otherwise: more than workers leave, as
/// [`Retention`](crate::store::Retention) has it.
const DEFAULT_MAX_RECORDS: usize = 150_000;

/// A backend in this process's memory: every feature, no server, gone when the last handle is dropped.
///
/// A cheap handle: clones share one content, which outlives `shutdown`. It keeps time by tokio's clock, so a
/// test that pauses that clock decides when delays, leases and TTLs pass.
///
/// - Priorities are strict by value, first in, first out within one. A message keeps its place in line through
///   delay, release and retry. Queues of one listener take turns.
/// - A lease that ran out lasts until another listener looks: a late ack is good as long as nobody took the
///   message back.
/// - A watcher that falls far behind loses the oldest changes.
/// - The name of a queue is kept once it was used.
///
/// ```
/// use aioq::{Backend, Envelope, Memory};
/// use aioq::broker::{Demand, Expect, Subscription};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let memory = Memory::new();
/// let backend = Backend::from(memory.clone());
/// let broker = backend.broker();
/// broker.startup().await?;
///
/// broker.kick(Envelope::new("1".into(), "mail", "hello"), Expect::Absent).await?;
///
/// let mut listener = broker.listen(Subscription::new(["mail"])).await?;
/// let deliveries = listener.next(Demand { now: 1, prefetch: 0 }).await?;
/// assert_eq!(deliveries[0].body, "hello");
/// deliveries[0].receipt.ack().await?;
/// memory.wait_idle().await;
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Memory {
    broker: MemoryBroker,
    jobs: MemoryJobs,
    kv: MemoryKv,
}

impl Memory {
    /// An empty backend.
    #[must_use]
    pub fn new() -> Self {
        Self {
            broker: MemoryBroker::default(),
            jobs: MemoryJobs::new(DEFAULT_MAX_RECORDS),
            kv: MemoryKv::default(),
        }
    }

    /// Keeps the records of at most this many ended jobs; the one that ended first goes first. 150,000 unless set.
    /// Holds for all clones of this handle. Of more than a thousand it is one of the first that goes, and one or two
    /// in a hundred more may be kept.
    #[must_use]
    pub fn max_records(self, records: usize) -> Self {
        self.jobs.keep_at_most(records);
        self
    }

    /// Waits until no message is ready and none is held, in any queue. Messages whose time has not come are
    /// not waited for.
    ///
    /// Cancel safe.
    pub async fn wait_idle(&self) {
        self.broker.wait_idle().await;
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl From<Memory> for Backend {
    fn from(memory: Memory) -> Self {
        Self::new(memory.broker, memory.jobs, memory.kv)
    }
}

impl OpenBackend for Memory {
    /// There is nothing to connect to: everything but the URL `memory` and a prefix is refused.
    fn configure(&mut self, settings: &Settings) -> Result<()> {
        let url = settings.url.as_deref().unwrap_or("memory");
        let elsewhere = !matches!(url, "memory" | "memory:" | "memory://");
        let secured = settings.creds.is_some() || settings.nkey.is_some() || settings.tls_ca.is_some();
        match elsewhere || secured {
            true => Err(Error::new(
                ErrorKind::Config,
                "this program runs in memory: it takes no server URL, credentials or certificates",
            )),
            false => Ok(()),
        }
    }

    fn open(&self) -> Backend {
        self.clone().into()
    }

    fn scheme(&self) -> Option<&'static str> {
        Some("memory")
    }
}

inventory::submit! { BackendKind::new("memory", || Box::new(Memory::new())) }

/// What can be used between `startup` and `shutdown`, behind a lock that is never held across an await.
struct Guarded<T>(Mutex<Started<T>>);

struct Started<T> {
    started: bool,
    content: T,
}

impl<T> Guarded<T> {
    fn new(content: T) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Started { started: false, content })))
    }

    fn lock(&self) -> MutexGuard<'_, Started<T>> {
        // Nothing in the sections that the lock guards runs foreign code, so a poisoned lock is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn startup(&self) {
        self.lock().started = true;
    }

    /// Runs `section` on the content.
    ///
    /// # Errors
    /// [`ErrorKind::NotStarted`] before `startup` and after `shutdown`.
    fn with<R>(&self, section: impl FnOnce(&mut T) -> R) -> Result<R> {
        self.lock().started().map(section)
    }
}

impl<T> Started<T> {
    /// The content.
    ///
    /// # Errors
    /// [`ErrorKind::NotStarted`] before `startup` and after `shutdown`.
    fn started(&mut self) -> Result<&mut T> {
        match self.started {
            true => Ok(&mut self.content),
            false => Err(not_started()),
        }
    }
}

fn not_started() -> Error {
    Error::new(ErrorKind::NotStarted, "the memory backend is not started")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_server_are_refused() {
        let url = |url: &str| Settings { url: Some(url.to_owned()), ..Settings::default() };
        let prefix = Settings { prefix: Some("team".to_owned()), ..Settings::default() };
        let creds = Settings { creds: Some("key.creds".to_owned()), ..Settings::default() };
        let configure = |settings: &Settings| Memory::new().configure(settings).map_err(|e| e.kind());
        assert_eq!(configure(&url("memory")), Ok(()));
        assert_eq!(configure(&prefix), Ok(()));
        assert_eq!(configure(&url("nats://localhost")), Err(ErrorKind::Config));
        assert_eq!(configure(&creds), Err(ErrorKind::Config));
    }

    #[test]
    fn a_backend_that_is_not_linked_is_named_with_what_links_it() {
        let app = || crate::app::App::new(Memory::new());
        let url = |url: &str| Settings { url: Some(url.to_owned()), ..Settings::default() };
        let refused = app().configure(&url("nats://localhost")).map(drop).map_err(|error| error.to_string());
        assert!(refused.as_ref().is_err_and(|why| why.contains("use aioq_nats as _;")), "{refused:?}");
        let refused = app().configure(&url("redis://localhost")).map(drop).map_err(|error| error.to_string());
        assert!(refused.as_ref().is_err_and(|why| why.contains("`redis` URLs")), "{refused:?}");
    }

    #[test]
    fn the_scheme_memory_is_known() {
        let name = BackendKind::find("memory").map(|kind| kind.open().broker().info().name);
        assert_eq!(name, Some("memory"));
    }
}
