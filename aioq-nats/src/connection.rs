//! What the broker and the stores share: one connection, opened by the first that starts up and closed by the
//! last that shuts down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aioq::broker::{lease_runtime, on_lease_runtime};
use aioq::{Error, ErrorKind, Result};
use tokio::sync::{Mutex, Notify, OnceCell};
use tokio::time::Instant;

use crate::error::{broken, not_started};
use crate::jobs::superseded::Leftovers;
use crate::link::{Deadline, Link, lock};
use crate::options::Options;
use crate::setup::ack_wait::AckWaits;
use crate::setup::queues::KnownQueues;
use crate::setup::restore::Mender;
use crate::setup::streams;
use crate::wire::subject::Names;

/// Kept free for headers and the subject below the server's limit for a message.
const ENVELOPE_BYTES: usize = 64 * 1024;

/// The way from settings to a session, shared by the three parts of a backend.
pub(crate) struct Connection {
    options: Options,
    /// How many parts are started; held while one starts or shuts down, so that they do not do it at once.
    started: Mutex<usize>,
    session: RwLock<Option<Arc<Session>>>,
}

impl Connection {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, started: Mutex::new(0), session: RwLock::new(None) }
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_session(&self, session: Option<Arc<Session>>) {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = session;
    }
}

/// One of the three parts: it is started and shut down for itself.
pub(crate) struct Part {
    connection: Arc<Connection>,
    started: AtomicBool,
    /// Tells those who watch that this part is shut down.
    end: Arc<Notify>,
}

impl Part {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        let end = Arc::new(Notify::new());
        Self { connection: Arc::clone(connection), started: AtomicBool::new(false), end }
    }

    pub(crate) async fn startup(&self) -> Result<()> {
        let mut started = self.connection.started.lock().await;
        if self.started.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.connection.session().is_none() {
            let session = Session::open(&self.connection.options).await?;
            self.connection.set_session(Some(session));
        }
        *started += 1;
        self.started.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) async fn shutdown(&self) -> Result<()> {
        let mut started = self.connection.started.lock().await;
        if !self.started.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.end.notify_waiters();
        *started -= 1;
        match self.connection.session() {
            Some(session) if *started == 0 => {
                self.connection.set_session(None);
                session.close().await
            }
            Some(session) => session.link.round_trip(session.deadline()).await,
            None => Ok(()),
        }
    }

    /// The session, between `startup` and `shutdown`.
    pub(crate) fn session(&self) -> Result<Arc<Session>> {
        match self.started.load(Ordering::Acquire) {
            true => self.connection.session().ok_or_else(not_started),
            false => Err(not_started()),
        }
    }

    /// Resolves when this part is shut down next.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        Arc::clone(&self.end).notified_owned()
    }

    /// Where the servers are, without passwords.
    pub(crate) fn address(&self) -> String {
        self.connection.options.address()
    }

    /// The largest body, in bytes: what was configured, or less if the server takes less.
    pub(crate) fn max_body_bytes(&self) -> usize {
        match self.connection.session() {
            Some(session) => session.max_body_bytes(),
            None => self.connection.options.max_body_bytes,
        }
    }
}

/// A connection that is open, and the names that it works with.
pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) names: Names,
    pub(crate) link: Link,
    pub(crate) ack_waits: AckWaits,
    pub(crate) queues: KnownQueues,
    pub(crate) absence: Absence,
    /// Removes records that were written over.
    pub(crate) leftovers: Leftovers,
    /// The connection that leases are extended over, opened by the first listener.
    lease: OnceCell<Arc<Link>>,
    /// Told by the connections when a stream does not answer.
    missing: Arc<Notify>,
    mender: Mender,
}

/// When the server was away for the last time, as far as it was noticed.
#[derive(Default)]
pub(crate) struct Absence(std::sync::Mutex<Option<Ends>>);

/// Ends of absences in a row: the first and the last one.
#[derive(Clone, Copy)]
struct Ends {
    first: Instant,
    last: Instant,
}

impl Absence {
    /// Absences that end closer to each other count as one.
    const APART: Duration = Duration::from_secs(10);

    /// How long absences in a row count: a server that comes and goes, or is only thought to, must not keep jobs
    /// from their next worker for ever.
    const LONGEST: Duration = Duration::from_secs(30);

    /// The server is back now.
    pub(crate) fn ends(&self) {
        let (mut ends, now) = (lock(&self.0), Instant::now());
        let first = ends.filter(|ends| now - ends.last < Self::APART).map_or(now, |ends| ends.first);
        *ends = Some(Ends { first, last: now });
    }

    /// Whether it was away until so long ago or less.
    pub(crate) fn ended_within(&self, span: Duration) -> bool {
        lock(&self.0).is_some_and(|ends| ends.last.elapsed() < span && ends.first.elapsed() < Self::LONGEST)
    }
}

impl Session {
    async fn open(options: &Options) -> Result<Arc<Self>> {
        let names = Names::new(&options.prefix)?;
        let deadline = Deadline::within(options.deadline);
        let missing = Arc::new(Notify::new());
        let link = Link::open(options, deadline, &missing).await?;
        if let Err(error) = streams::declare(&link, deadline, options, &names).await {
            // What matters is why the streams could not be declared.
            let _ = link.close(Deadline::within(Duration::from_millis(200))).await;
            return Err(error);
        }
        let (options, ack_waits, queues) = (options.clone(), AckWaits::default(), KnownQueues::default());
        Ok(Arc::new_cyclic(|session| Self {
            options,
            names,
            link,
            ack_waits,
            queues,
            absence: Absence::default(),
            leftovers: Leftovers::new(session.clone()),
            lease: OnceCell::new(),
            mender: Mender::new(session.clone(), Arc::clone(&missing)),
            missing,
        }))
    }

    async fn close(&self) -> Result<()> {
        self.leftovers.close().await;
        self.mender.close().await;
        let closed = self.link.close(self.deadline()).await;
        let lease = match self.lease.get() {
            Some(lease) => lease.close(self.deadline()).await,
            None => Ok(()),
        };
        closed.and(lease)
    }

    /// The deadline of a request that starts now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::within(self.options.deadline)
    }

    pub(crate) fn max_body_bytes(&self) -> usize {
        let server = self.link.client().max_payload().saturating_sub(ENVELOPE_BYTES);
        self.options.max_body_bytes.min(server)
    }

    /// Refuses what is over the limit: a record or a value may be larger than a body, but must fit.
    pub(crate) fn check_fits(&self, what: &str, bytes: usize) -> Result<()> {
        let most = self.link.client().max_payload().saturating_sub(4 * 1024);
        if bytes <= most {
            return Ok(());
        }
        let message = format!("{what} has {bytes} bytes, the server takes at most {most}");
        Err(Error::new(ErrorKind::TooLarge, message))
    }

    /// The connection for a request of the shared state: that of the leases for who asks from there, because a
    /// body may block the other one.
    pub(crate) async fn link_for_state(&self) -> Result<&Link> {
        match on_lease_runtime() {
            true => Ok(self.lease().await?),
            false => Ok(&self.link),
        }
    }

    /// The connection that leases are extended over; its tasks run on [`lease_runtime`].
    pub(crate) async fn lease(&self) -> Result<&Arc<Link>> {
        let open = async {
            let (options, deadline, missing) =
                (self.options.clone(), self.deadline(), Arc::clone(&self.missing));
            let opening =
                lease_runtime().spawn(async move { Link::open(&options, deadline, &missing).await });
            let opened = opening.await.map_err(|error| broken("the lease thread died").with_source(error))?;
            opened.map(Arc::new)
        };
        self.lease.get_or_try_init(|| open).await
    }
}
