//! State of one open connection: [`Session`].
//!
//! [`Connection`](crate::connection::Connection) opens and closes sessions. Everything else only
//! uses them.

pub(crate) mod ack_waits;
pub(crate) mod known_queues;
pub(crate) mod outages;

use std::sync::Arc;

use aioq::broker::{lease_runtime, on_lease_runtime};
use aioq::{Error, ErrorKind, Result};
use tokio::sync::{Notify, OnceCell};

use self::ack_waits::AckWaits;
use self::known_queues::KnownQueues;
use self::outages::Outages;
use crate::error::broken;
use crate::link::{Deadline, Link};
use crate::options::Options;
use crate::wire::names::Names;

/// Bytes of the server's message limit that are kept free for a message's headers and subject.
const ENVELOPE_BYTES: usize = 64 * 1024;

/// Bytes kept free beside a record or a value, whose headers are shorter.
const RECORD_ENVELOPE_BYTES: usize = 4 * 1024;

/// Open connection with its settings, names and caches.
pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) names: Names,
    pub(crate) link: Link,
    pub(crate) ack_waits: AckWaits,
    pub(crate) queues: KnownQueues,
    pub(crate) outages: Outages,
    /// Notified by the links when no server answers for a stream.
    pub(crate) stream_missing: Arc<Notify>,
    /// Connection for leases, opened by the first listener.
    lease: OnceCell<Arc<Link>>,
}

impl Session {
    /// `stream_missing` is the one that `link` notifies.
    pub(crate) fn new(options: &Options, names: Names, link: Link, stream_missing: Arc<Notify>) -> Self {
        Self {
            options: options.clone(),
            names,
            link,
            ack_waits: AckWaits::default(),
            queues: KnownQueues::default(),
            outages: Outages::default(),
            stream_missing,
            lease: OnceCell::new(),
        }
    }

    /// Closes both connections.
    pub(crate) async fn close(&self) -> Result<()> {
        let closed = self.link.close(self.deadline()).await;
        let lease = match self.lease.get() {
            Some(lease) => lease.close(self.deadline()).await,
            None => Ok(()),
        };
        closed.and(lease)
    }

    /// Deadline of a request that starts now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::within(self.options.deadline)
    }

    /// Largest body of a message: the configured size, or less if the server accepts less.
    pub(crate) fn max_body_bytes(&self) -> usize {
        let server = self.link.client().max_payload().saturating_sub(ENVELOPE_BYTES);
        self.options.max_body_bytes.min(server)
    }

    /// Refuses a record or value that the server would not accept. It may be larger than a
    /// message's body.
    pub(crate) fn check_fits(&self, what: &str, bytes: usize) -> Result<()> {
        let max = self.link.client().max_payload().saturating_sub(RECORD_ENVELOPE_BYTES);
        if bytes <= max {
            return Ok(());
        }
        let message = format!("{what} has {bytes} bytes, the server accepts at most {max}");
        Err(Error::new(ErrorKind::TooLarge, message))
    }

    /// Connection for requests of the shared state.
    ///
    /// On the lease runtime this is the lease connection, because a body that blocks its thread may
    /// block the other connection.
    pub(crate) async fn link_for_keys(&self) -> Result<&Link> {
        if on_lease_runtime() { Ok(self.lease().await?) } else { Ok(&self.link) }
    }

    /// Connection for extending leases. Its tasks run on [`lease_runtime`].
    pub(crate) async fn lease(&self) -> Result<&Arc<Link>> {
        self.lease.get_or_try_init(|| self.open_lease()).await
    }

    async fn open_lease(&self) -> Result<Arc<Link>> {
        let (options, deadline) = (self.options.clone(), self.deadline());
        let stream_missing = Arc::clone(&self.stream_missing);
        let opening =
            lease_runtime().spawn(async move { Link::open(&options, deadline, &stream_missing).await });
        let opened = opening.await.map_err(|error| broken("the lease thread died").with_source(error))?;
        opened.map(Arc::new)
    }
}
