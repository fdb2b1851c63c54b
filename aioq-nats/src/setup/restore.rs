//! Streams that have vanished under a session are declared again: [`Mender`].

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::connection::Session;
use crate::link::lock;
use crate::setup::{queues, streams};

/// How long after one look the next one may follow.
const PAUSE: Duration = Duration::from_millis(500);

/// Looks after the streams whenever somebody gets no answer from one, in a task of its own that ends with the session:
/// so there is one look at a time, whoever asks for it.
pub(crate) struct Mender(std::sync::Mutex<Option<JoinHandle<()>>>);

impl Mender {
    /// `missing` tells that somebody met a stream that is not there.
    pub(crate) fn new(session: Weak<Session>, missing: Arc<Notify>) -> Self {
        Self(std::sync::Mutex::new(Some(tokio::spawn(mend_all(session, missing)))))
    }

    pub(crate) async fn close(&self) {
        let mending = lock(&self.0).take();
        if let Some(mending) = mending {
            mending.abort();
            // An error here says that it was aborted.
            let _ = mending.await;
        }
    }
}

impl Drop for Mender {
    fn drop(&mut self) {
        if let Some(mending) = lock(&self.0).take() {
            mending.abort();
        }
    }
}

async fn mend_all(session: Weak<Session>, missing: Arc<Notify>) {
    let mut troubled = false;
    loop {
        missing.notified().await;
        let Some(session) = session.upgrade() else { return };
        let mended = mend(&session).await;
        if let Err(error) = &mended
            && !troubled
        {
            tracing::warn!(%error, "a stream does not answer and cannot be declared again, trying on");
        }
        troubled = mended.is_err();
        drop(session);
        sleep(PAUSE).await;
    }
}

/// Declares the streams that are gone, and writes what this process knows of their contents.
async fn mend(session: &Session) -> aioq::Result<()> {
    let Session { link, options, names, .. } = session;
    let gone = streams::declare_missing(link, session.deadline(), options, names).await?;
    for stream in &gone {
        tracing::warn!(stream, "the stream was gone and is declared again: what it held is lost");
    }
    if gone.contains(&names.kv) {
        let known = session.queues.all();
        queues::write_all(session, known.iter().map(String::as_str).collect()).await;
    }
    Ok(())
}
