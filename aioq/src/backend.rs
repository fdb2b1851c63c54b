//! What connects a program to a backend: the three seams together, and the settings to reach them.

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

/// A broker and its stores: what a [`Client`](crate::Client) and a worker stand on. Cheap to clone.
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

    /// The same, with jobs remembered elsewhere.
    #[must_use]
    pub fn with_jobs(mut self, jobs: impl JobStore) -> Self {
        self.jobs = Some(Arc::new(jobs));
        self
    }

    /// The same, with jobs not remembered at all: no results, no records, and a job whose worker crashes at
    /// the wrong moment may run again although it had ended.
    #[must_use]
    pub fn without_jobs(mut self) -> Self {
        self.jobs = None;
        self
    }

    /// The same, for clients and workers on a machine that has this clock.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn clock(mut self, clock: &TestClock) -> Self {
        self.clock = clock.into();
        self
    }

    /// The time now, by the clock of this process.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The part that moves messages.
    #[must_use]
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// The part that remembers jobs.
    #[must_use]
    pub fn jobs(&self) -> Option<&Arc<dyn JobStore>> {
        self.jobs.as_ref()
    }

    /// The part that remembers shared state.
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

    /// Ends all parts; the first error, after all have been tried.
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

/// A backend that is described but not yet opened, so that a program can print its help, or take settings
/// from the command line, without a server.
pub trait OpenBackend: Send + Sync + 'static {
    /// Takes over what the user set outside the code; what is not set stays.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a setting that this backend cannot honour.
    fn configure(&mut self, settings: &Settings) -> Result<()>;

    /// The backend; nothing connects before [`Broker::startup`].
    fn open(&self) -> Backend;

    /// The scheme of the URLs that it takes, if it takes URLs.
    fn scheme(&self) -> Option<&'static str>;

    /// A new place for the command `bench`, with a program to be held against. Without one, the command measures
    /// in a queue of its own, beside nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a backend that cannot be opened as it is described.
    #[cfg(feature = "bench")]
    fn bench_site(&self) -> Result<Option<Box<dyn BenchSite>>> {
        Ok(None)
    }
}

impl OpenBackend for Backend {
    fn configure(&mut self, settings: &Settings) -> Result<()> {
        match settings.is_empty() {
            true => Ok(()),
            false => {
                Err(Error::new(ErrorKind::Config, "this program's backend takes no connection settings"))
            }
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
    /// The servers: one URL, or several with commas between.
    pub url: Option<String>,
    /// Keeps the names of one program apart from those of others.
    pub prefix: Option<String>,
    /// A credentials file.
    pub creds: Option<String>,
    /// An nkey seed file.
    pub nkey: Option<String>,
    /// A file of root certificates.
    pub tls_ca: Option<String>,
    /// The first failure to connect counts, instead of the last one before the deadline: for a program that is asked
    /// whether its server is there.
    pub at_once: bool,
}

impl Settings {
    /// Whether nothing is set that says where to connect.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { at_once: self.at_once, ..Self::default() }
    }
}

/// A kind of backend that the generated binary can be pointed at by the scheme of a URL. A backend's crate
/// registers it with `inventory::submit!`.
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

    /// A backend of the kind registered for `scheme`, with its default settings.
    #[must_use]
    pub fn find(scheme: &str) -> Option<Box<dyn OpenBackend>> {
        let mut kinds = inventory::iter::<Self>.into_iter();
        kinds.find(|kind| kind.scheme == scheme).map(|kind| (kind.describe)())
    }
}

inventory::collect!(BackendKind);
