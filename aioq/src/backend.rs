//! The backend of a program: a broker and two stores, and the settings to reach them.

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "bench")]
use crate::bench::BenchSite;
use crate::broker::Broker;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{JobStore, KvStore};
#[cfg(feature = "testing")]
use crate::time::TestClock;
use crate::time::{Clock, Timestamp};

/// A broker and its stores, on which a [`Client`](crate::Client) and a worker run. Cheap to clone.
#[derive(Clone)]
pub struct Backend {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) jobs: Option<Arc<dyn JobStore>>,
    pub(crate) kv: Arc<dyn KvStore>,
    clock: Clock,
}

impl Backend {
    /// A backend of these three parts.
    pub fn new(broker: impl Broker, jobs: impl JobStore, kv: impl KvStore) -> Self {
        Self {
            broker: Arc::new(broker),
            jobs: Some(Arc::new(jobs)),
            kv: Arc::new(kv),
            clock: Clock::default(),
        }
    }

    /// Uses another store for jobs.
    #[must_use]
    pub fn with_jobs(mut self, jobs: impl JobStore) -> Self {
        self.jobs = Some(Arc::new(jobs));
        self
    }

    /// Stores no jobs: no results and no records. A job whose worker crashes at the wrong moment
    /// may run again although it had ended.
    #[must_use]
    pub fn without_jobs(mut self) -> Self {
        self.jobs = None;
        self
    }

    /// Sets the clock of the clients and workers of this backend, as if they ran on another
    /// machine.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn clock(mut self, clock: &TestClock) -> Self {
        self.clock = clock.into();
        self
    }

    /// The time by this process's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// The store of job records.
    #[must_use]
    pub fn jobs(&self) -> Option<&Arc<dyn JobStore>> {
        self.jobs.as_ref()
    }

    /// The store of shared state.
    #[must_use]
    pub fn kv(&self) -> &Arc<dyn KvStore> {
        &self.kv
    }

    /// Starts all parts.
    pub(crate) async fn startup(&self) -> Result<()> {
        self.broker.startup().await?;
        self.kv.startup().await?;
        match &self.jobs {
            Some(jobs) => jobs.startup().await,
            None => Ok(()),
        }
    }

    /// Shuts all parts down. Returns the first error, after all were tried.
    pub(crate) async fn shutdown(&self) -> Result<()> {
        let broker = self.broker.shutdown().await;
        let kv = self.kv.shutdown().await;
        let jobs = match &self.jobs {
            Some(jobs) => jobs.shutdown().await,
            None => Ok(()),
        };
        broker.and(kv).and(jobs)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("broker", &self.broker.info()).finish_non_exhaustive()
    }
}

/// A backend that is described but not opened yet, so that a program can print its help or read
/// settings from the command line without a server.
pub trait OpenBackend: Send + Sync + 'static {
    /// Applies settings from outside the code. Absent settings change nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a setting that this backend does not support.
    fn configure(&mut self, settings: &Settings) -> Result<()>;

    /// The backend. It connects in [`Broker::startup`].
    fn open(&self) -> Backend;

    /// The scheme of its URLs, if it takes URLs.
    fn scheme(&self) -> Option<&'static str>;

    /// A place for the command `bench`, with a program to compare with. Without one, the command
    /// measures in a queue of its own and compares with nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a backend that cannot be opened as described.
    #[cfg(feature = "bench")]
    fn bench_site(&self) -> Result<Option<Box<dyn BenchSite>>> {
        Ok(None)
    }
}

impl OpenBackend for Backend {
    fn configure(&mut self, settings: &Settings) -> Result<()> {
        if settings.is_empty() {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Config, "this program's backend takes no connection settings"))
        }
    }

    fn open(&self) -> Backend {
        self.clone()
    }

    fn scheme(&self) -> Option<&'static str> {
        None
    }
}

/// Connection settings from outside the code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// URL of the server, or several URLs separated by commas.
    pub url: Option<String>,
    /// Prefix that separates the names of programs on one server.
    pub prefix: Option<String>,
    /// Path of a credentials file.
    pub creds: Option<String>,
    /// Path of an nkey seed file.
    pub nkey: Option<String>,
    /// Path of a file of root certificates.
    pub tls_ca: Option<String>,
    /// Fails at the first failed connection, without retries until the deadline: for a check that
    /// the server is there.
    pub at_once: bool,
}

impl Settings {
    /// True if no setting says where to connect.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { at_once: self.at_once, ..Self::default() }
    }
}

/// A kind of backend that the generated binary selects by the scheme of a URL. The crate of a
/// backend registers it with `inventory::submit!`.
pub struct BackendKind {
    scheme: &'static str,
    describe: fn() -> Box<dyn OpenBackend>,
}

impl BackendKind {
    /// Backends whose URLs start with `scheme`.
    #[must_use]
    pub const fn new(scheme: &'static str, describe: fn() -> Box<dyn OpenBackend>) -> Self {
        Self { scheme, describe }
    }

    /// The backend that is registered for `scheme`, with default settings.
    #[must_use]
    pub fn find(scheme: &str) -> Option<Box<dyn OpenBackend>> {
        let mut kinds = inventory::iter::<Self>.into_iter();
        kinds.find(|kind| kind.scheme == scheme).map(|kind| (kind.describe)())
    }
}

inventory::collect!(BackendKind);
