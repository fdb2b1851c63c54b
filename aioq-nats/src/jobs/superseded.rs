//! Records that were written over: [`remove`], and [`Leftovers`] for those of workers that are gone.
//!
//! A record under another status has another subject, so the stream keeps the one before. Each writer removes the record
//! that it has written over. A worker that dies in between leaves it; whoever gets the job next has it removed by
//! `Leftovers`. The newest record of a job counts, so a record that is left over harms nobody: lists pass over it, counts
//! include it until it is removed, and it expires by itself.

use std::sync::Weak;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connection::Session;
use crate::link::{Deadline, Outgoing, lock};

/// How many may wait. Beyond that they stay until they expire: the server does not keep up, or forbids it.
const WAITING: usize = 8_192;

/// How many are asked for at a time.
const AT_ONCE: usize = 128;

/// How long one answer, or a flush, is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A record that was written over.
pub(crate) enum Leftover {
    /// The record of that sequence.
    At(u64),
    /// Records below that sequence whose subjects match a filter, if there are any.
    Below(u64, String),
}

enum Item {
    Leftover(Leftover),
    /// Tells that everything before it is done with.
    Flush(oneshot::Sender<()>),
}

/// Removes what workers that are gone have left, in a task of its own that ends with the session.
pub(crate) struct Leftovers {
    items: Sender<Item>,
    remover: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Leftovers {
    pub(crate) fn new(session: Weak<Session>) -> Self {
        let (items, received) = channel(WAITING);
        let remover = tokio::spawn(remove_all(session, received));
        Self { items, remover: std::sync::Mutex::new(Some(remover)) }
    }

    /// Has it removed soon.
    pub(crate) fn remove(&self, leftover: Leftover) {
        if self.items.try_send(Item::Leftover(leftover)).is_err() {
            tracing::debug!("a record that was written over stays until it expires");
        }
    }

    /// Waits until what was left over before is removed, or for a moment.
    pub(crate) async fn flush(&self) {
        let (done, told) = oneshot::channel();
        let flushed = async {
            if self.items.send(Item::Flush(done)).await.is_ok() {
                // An error says that the remover has ended.
                let _ = told.await;
            }
        };
        let _ = timeout(PATIENCE, flushed).await;
    }

    /// Removes what is left, and ends.
    pub(crate) async fn close(&self) {
        self.flush().await;
        let remover = lock(&self.remover).take();
        if let Some(remover) = remover {
            remover.abort();
            // An error here says that it was aborted.
            let _ = remover.await;
        }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if let Some(remover) = lock(&self.remover).take() {
            remover.abort();
        }
    }
}

async fn remove_all(session: Weak<Session>, mut received: Receiver<Item>) {
    let mut items = Vec::with_capacity(AT_ONCE);
    while received.recv_many(&mut items, AT_ONCE).await > 0 {
        let Some(session) = session.upgrade() else { return };
        let (mut leftovers, mut flushes) = (Vec::new(), Vec::new());
        for item in items.drain(..) {
            match item {
                Item::Leftover(leftover) => leftovers.push(leftover),
                Item::Flush(done) => flushes.push(done),
            }
        }
        join_all(leftovers.into_iter().map(|leftover| remove(&session, leftover))).await;
        for done in flushes {
            // Nobody may wait any more.
            let _ = done.send(());
        }
    }
}

/// Removes what was written over, as well as can be: a failure harms nobody. A refusal says that the record is gone: the
/// stream keeps one for each subject.
pub(crate) async fn remove(session: &Session, leftover: Leftover) {
    let stream = &session.names.records;
    let (subject, body) = match leftover {
        Leftover::At(sequence) => {
            (format!("$JS.API.STREAM.MSG.DELETE.{stream}"), json!({ "seq": sequence, "no_erase": true }))
        }
        Leftover::Below(sequence, filter) => {
            (format!("$JS.API.STREAM.PURGE.{stream}"), json!({ "filter": filter, "seq": sequence }))
        }
    };
    let body = body.to_string();
    let outgoing = |_| Outgoing::new(subject.as_str(), body.clone());
    if let Err(error) = session.link.ask(Deadline::within(PATIENCE), outgoing).await {
        tracing::debug!(%error, "a record that was written over stays until it expires");
    }
}
