//! The connection that the broker and the two stores share: [`Connection`].
//!
//! The first part that starts opens a [`Session`] and declares the streams. The last part that
//! shuts down closes the session.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use aioq::Result;
use tokio::sync::{Mutex, Notify};

use crate::error::not_started;
use crate::link::{Deadline, Link, address};
use crate::options::Options;
use crate::session::Session;
use crate::setup::restore::Restorer;
use crate::setup::streams;
use crate::sync::{read, write};
use crate::wire::names::Names;

/// Connection of one backend, shared by its three parts.
pub(crate) struct Connection {
    options: Options,
    /// Locked while a part starts or shuts down, so that only one does at a time.
    started: Mutex<Started>,
    session: RwLock<Option<Arc<Session>>>,
}

#[derive(Default)]
struct Started {
    /// Number of parts that are started.
    parts: usize,
    restorer: Option<Restorer>,
}

impl Connection {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, started: Mutex::default(), session: RwLock::new(None) }
    }

    fn session(&self) -> Option<Arc<Session>> {
        read(&self.session).clone()
    }

    fn set_session(&self, session: Option<Arc<Session>>) {
        *write(&self.session) = session;
    }
}

async fn open(options: &Options) -> Result<Session> {
    let names = Names::new(&options.prefix)?;
    let deadline = Deadline::within(options.deadline);
    let stream_missing = Arc::new(Notify::new());
    let link = Link::open(options, deadline, &stream_missing).await?;
    if let Err(error) = streams::declare(&link, deadline, options, &names).await {
        // The caller needs the first error; a failure to close adds nothing to it.
        let _ = link.close(Deadline::within(Duration::from_millis(200))).await;
        return Err(error);
    }
    Ok(Session::new(options, names, link, stream_missing))
}

/// Access of one part (broker, job store or key store). Each part has its own startup and shutdown.
pub(crate) struct ConnectionHandle {
    connection: Arc<Connection>,
    started: AtomicBool,
    /// Notified at shutdown.
    ended: Arc<Notify>,
}

impl ConnectionHandle {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        let connection = Arc::clone(connection);
        Self { connection, started: AtomicBool::new(false), ended: Arc::default() }
    }

    pub(crate) async fn startup(&self) -> Result<()> {
        let mut started = self.connection.started.lock().await;
        if self.started.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.connection.session().is_none() {
            let session = Arc::new(open(&self.connection.options).await?);
            started.restorer = Some(Restorer::spawn(Arc::clone(&session)));
            self.connection.set_session(Some(session));
        }
        started.parts += 1;
        self.started.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) async fn shutdown(&self) -> Result<()> {
        let mut started = self.connection.started.lock().await;
        if !self.started.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.ended.notify_waiters();
        started.parts -= 1;
        let Some(session) = self.connection.session() else { return Ok(()) };
        if started.parts > 0 {
            return session.link.round_trip(session.deadline()).await;
        }
        self.connection.set_session(None);
        if let Some(restorer) = started.restorer.take() {
            restorer.close().await;
        }
        session.close().await
    }

    /// The session, between `startup` and `shutdown`.
    pub(crate) fn session(&self) -> Result<Arc<Session>> {
        let session = self.connection.session().filter(|_| self.started.load(Ordering::Acquire));
        session.ok_or_else(not_started)
    }

    /// Resolves when this part is shut down next.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        Arc::clone(&self.ended).notified_owned()
    }

    /// URLs of the servers, without passwords.
    pub(crate) fn address(&self) -> String {
        address(&self.connection.options.url)
    }

    /// Largest body in bytes: the configured size, or less if the server accepts less.
    pub(crate) fn max_body_bytes(&self) -> usize {
        match self.connection.session() {
            Some(session) => session.max_body_bytes(),
            None => self.connection.options.max_body_bytes,
        }
    }
}
