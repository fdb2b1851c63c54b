//! Removal of superseded records.
//!
//! The status is part of a record's subject, so a write with a new status leaves the previous
//! record in the stream. The writer removes it. If a worker dies between the two, the next worker
//! that gets the job has it removed in the background: [`BackgroundRemovals`].
//!
//! A superseded record does little harm. The newest record of a job is the valid one, lists skip
//! the others, counts include them until they are removed, and they expire.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::link::{Deadline, Outgoing};
use crate::session::Session;
use crate::sync::lock;

/// Number of removals that may wait. Beyond it a record stays until it expires.
const MAX_PENDING: usize = 8_192;

/// Number of removals that run at a time.
const CONCURRENT_REMOVALS: usize = 128;

/// Time limit of one removal, and of a flush.
const PATIENCE: Duration = Duration::from_secs(2);

/// Removes the superseded record with this sequence.
pub(super) async fn remove(session: &Session, sequence: u64) {
    request(session, "STREAM.MSG.DELETE", &json!({ "seq": sequence, "no_erase": true })).await;
}

/// Removes the records below a sequence that match `filter`.
async fn remove_below(session: &Session, sequence: u64, filter: &str) {
    request(session, "STREAM.PURGE", &json!({ "filter": filter, "seq": sequence })).await;
}

/// Sends a removal. A refusal means that the record is gone already; a failure leaves it until it
/// expires.
async fn request(session: &Session, endpoint: &str, request: &Value) {
    let (subject, body) = (format!("$JS.API.{endpoint}.{}", session.names.records), request.to_string());
    let outgoing = |_| Outgoing::new(subject.as_str(), body.clone());
    if let Err(error) = session.link.ask(Deadline::within(PATIENCE), outgoing).await {
        tracing::debug!(%error, "could not remove a superseded record; it stays until it expires");
    }
}

/// Removals in the background. Dropping it aborts them.
///
/// [`CONCURRENT_REMOVALS`] of them run at a time, each for [`PATIENCE`] at most.
pub(super) struct BackgroundRemovals {
    tasks: Mutex<JoinSet<()>>,
    /// Number of removals that have not ended.
    pending: watch::Sender<usize>,
    permits: Arc<Semaphore>,
}

impl BackgroundRemovals {
    pub(super) fn new() -> Self {
        let permits = Arc::new(Semaphore::new(CONCURRENT_REMOVALS));
        Self { tasks: Mutex::default(), pending: watch::Sender::new(0), permits }
    }

    /// Starts to remove the records below a sequence that match `filter`.
    pub(super) fn remove_below(&self, session: Arc<Session>, sequence: u64, filter: String) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= MAX_PENDING {
            tracing::debug!("too many superseded records to remove; one stays until it expires");
            return;
        }
        let (pending, permits) = (Pending::new(&self.pending), Arc::clone(&self.permits));
        tasks.spawn(async move {
            let _permit = permits.acquire().await;
            remove_below(&session, sequence, &filter).await;
            drop(pending);
        });
    }

    /// Waits until no removal is pending, at most [`PATIENCE`].
    pub(super) async fn flush(&self) {
        let _ = timeout(PATIENCE, self.pending.subscribe().wait_for(|pending| *pending == 0)).await;
    }
}

/// A removal that counts as pending until this is dropped.
struct Pending(watch::Sender<usize>);

impl Pending {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
