//! The backend inside the process: [`Memory`].

mod broker;
mod clock;
mod index;
mod kv;
mod ordered_ids;
mod records;
mod table;
mod timers;
mod watch;

use std::fmt;
use std::sync::{Arc, MutexGuard};

use self::broker::MemoryBroker;
use self::kv::MemoryKv;
use self::records::MemoryRecords;
use crate::backend::{Backend, BackendKind, OpenBackend, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Lock;

/// Default of [`Memory::max_records`]: more than workers keep by their default
/// [`Retention`](crate::store::Retention).
const DEFAULT_MAX_RECORDS: usize = 150_000;

/// A backend in the memory of this process: all features, no server. Its content is dropped with
/// the last handle.
///
/// Clones share one content, which outlives `shutdown`. Time is tokio's clock, so a test that
/// pauses that clock controls delays, leases and TTLs.
///
/// - Priorities are strict. Messages of one priority are first in, first out. A message keeps its
///   place in line through delay, release and retry. The queues of a listener take turns.
/// - A lease that has ended is taken back when another listener looks for messages. Until then a
///   late ack succeeds.
/// - A watcher that falls far behind loses the oldest changes.
/// - The name of a queue is listed for ever once it was used.
///
/// ```
/// use aioq::message::Envelope;
/// use aioq::{Backend, Memory};
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
    jobs: MemoryRecords,
    kv: MemoryKv,
}

impl Memory {
    /// An empty backend.
    #[must_use]
    pub fn new() -> Self {
        Self {
            broker: MemoryBroker::default(),
            jobs: MemoryRecords::new(DEFAULT_MAX_RECORDS),
            kv: MemoryKv::default(),
        }
    }

    /// Limits the records of ended jobs; 150,000 unless set. The job that ended first is removed
    /// first, also within [`Retention::min_age`](crate::store::Retention::min_age) of its end: this
    /// limit bounds the memory.
    ///
    /// Shared by all clones. Above 1,024 the limit is approximate: records are in 16 parts by job
    /// id, and each part keeps its share of the limit and removes its own oldest.
    #[must_use]
    pub fn max_records(self, records: usize) -> Self {
        self.jobs.keep_at_most(records);
        self
    }

    /// Waits until no message of any queue is ready or held. Delayed messages are not waited for.
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
    /// Takes the URL `memory` and a prefix. Refuses any other setting, because there is no server.
    fn configure(&mut self, settings: &Settings) -> Result<()> {
        let url = settings.url.as_deref().unwrap_or("memory");
        let elsewhere = !matches!(url, "memory" | "memory:" | "memory://");
        let secured = settings.creds.is_some() || settings.nkey.is_some() || settings.tls_ca.is_some();
        if elsewhere || secured {
            Err(Error::new(
                ErrorKind::Config,
                "this program runs in memory: it takes no server URL, credentials or certificates",
            ))
        } else {
            Ok(())
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

/// Content that can be used between `startup` and `shutdown`. Its lock is never held across an
/// await.
struct Guarded<T>(Lock<Started<T>>);

struct Started<T> {
    started: bool,
    content: T,
}

impl<T> Guarded<T> {
    fn new(content: T) -> Arc<Self> {
        Arc::new(Self(Lock::new(Started { started: false, content })))
    }

    fn lock(&self) -> MutexGuard<'_, Started<T>> {
        self.0.lock()
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
        if self.started { Ok(&mut self.content) } else { Err(not_started()) }
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
