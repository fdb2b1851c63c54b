//! Declares streams again that have vanished under an open session: [`Restorer`].

use std::sync::Arc;
use std::time::Duration;

use aioq::Result;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{queues, streams};
use crate::session::Session;

/// Shortest interval between two checks.
const PAUSE: Duration = Duration::from_millis(500);

/// Task that checks the streams whenever a request to one gets no answer. One task per session, so
/// that any number of failing requests cause one check.
pub(crate) struct Restorer(JoinHandle<()>);

impl Restorer {
    pub(crate) fn spawn(session: Arc<Session>) -> Self {
        Self(tokio::spawn(restore_missing(session)))
    }

    /// Ends the task and waits for its end.
    pub(crate) async fn close(mut self) {
        self.0.abort();
        // An error here means that the task was aborted.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Restorer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn restore_missing(session: Arc<Session>) {
    let mut failure_logged = false;
    loop {
        session.stream_missing.notified().await;
        let restored = restore(&session).await;
        if let Err(error) = &restored
            && !failure_logged
        {
            tracing::warn!(%error, "no answer for a stream, and it cannot be declared again; retrying");
        }
        failure_logged = restored.is_err();
        sleep(PAUSE).await;
    }
}

/// Declares the streams that are gone, and registers the queues that this process knows.
async fn restore(session: &Session) -> Result<()> {
    let Session { link, options, names, .. } = session;
    let gone = streams::declare_missing(link, session.deadline(), options, names).await?;
    for stream in &gone {
        tracing::warn!(stream, "the stream was gone and is declared again: what it held is lost");
    }
    if gone.contains(&names.kv) {
        let known = session.queues.all();
        queues::register_all(session, known.iter().map(String::as_str).collect()).await;
    }
    Ok(())
}
