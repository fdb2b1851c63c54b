//! The worker's side of the [cancel protocol](crate::cancel): notes requests, applies them,
//! answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::time::Instant;

use super::Shared;
use crate::cancel::{self, CancelRequest, REQUEST_TTL, REQUESTS, Target};
use crate::error::Result;
use crate::message::{JobId, Message};
use crate::store::{KvChange, KvStore};
use crate::sync::Lock;

/// Pause before a broken watch is opened again.
const WATCH_RETRY: Duration = Duration::from_millis(200);

/// The targets of all cancel requests that have not expired.
#[derive(Default)]
pub(super) struct Cancels {
    notes: Lock<Notes>,
    /// False while there are no notes, nearly always: deliveries then skip the lock.
    any: AtomicBool,
}

#[derive(Default)]
struct Notes {
    by_id: HashMap<JobId, Vec<Note>>,
    /// End of the notes of each request, and the ids of its targets, by its key.
    requests: HashMap<String, (Instant, Vec<JobId>)>,
}

struct Note {
    request_key: String,
    target: Target,
    until: Instant,
}

impl Cancels {
    /// True if a request has cancelled the run that the message is of.
    pub(super) fn contain(&self, message: &Message) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let notes = self.notes.lock();
        let mut notes = notes.by_id.get(&message.id).into_iter().flatten();
        notes.any(|note| note.until > Instant::now() && note.target.matches(message))
    }

    /// Notes the targets of a request, in place of its earlier targets.
    fn note(&self, key: &str, targets: &[Target]) {
        let until = Instant::now() + REQUEST_TTL;
        let mut notes = self.notes.lock();
        notes.forget(key);
        for target in targets {
            let note = Note { request_key: key.to_owned(), target: target.clone(), until };
            notes.by_id.entry(target.id.clone()).or_default().push(note);
        }
        let ids = targets.iter().map(|target| target.id.clone()).collect();
        notes.requests.insert(key.to_owned(), (until, ids));
        self.any.store(true, Ordering::Release);
    }

    fn forget(&self, key: &str) {
        let mut notes = self.notes.lock();
        notes.forget(key);
        self.any.store(!notes.requests.is_empty(), Ordering::Release);
    }

    /// Forgets the requests that have expired.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut notes = self.notes.lock();
        let expired = notes.requests.iter().filter(|(_, (until, _))| *until <= now);
        let expired: Vec<String> = expired.map(|(key, _)| key.clone()).collect();
        expired.iter().for_each(|key| notes.forget(key));
        self.any.store(!notes.requests.is_empty(), Ordering::Release);
    }
}

impl Notes {
    fn forget(&mut self, key: &str) {
        let Some((_, ids)) = self.requests.remove(key) else { return };
        for id in ids {
            if let Some(notes) = self.by_id.get_mut(&id) {
                notes.retain(|note| note.request_key != key);
                if notes.is_empty() {
                    self.by_id.remove(&id);
                }
            }
        }
    }
}

/// Opens a watch of the cancel requests. A worker does so before it registers.
pub(super) async fn watch(kv: &dyn KvStore) -> Result<BoxStream<'static, KvChange>> {
    kv.watch(REQUESTS).await
}

/// Handles the cancel requests that are stored. A worker does so before it fetches.
pub(super) async fn handle_stored(shared: &Shared) -> Result<()> {
    for entry in shared.scope.client.backend().kv().scan(REQUESTS).await? {
        handle_request(shared, &entry.key, CancelRequest::decode(&entry.value)).await;
    }
    Ok(())
}

/// Handles cancel requests until the future is dropped.
pub(super) async fn follow(shared: Arc<Shared>, mut changes: BoxStream<'static, KvChange>) {
    let kv = Arc::clone(shared.scope.client.backend().kv());
    loop {
        match changes.next().await {
            Some(change) => handle_change(&shared, &change.into_key()).await,
            // The watch broke. Clients get no answer meanwhile, and report the cancel as not
            // confirmed.
            None => {
                changes = watch_again(&*kv).await;
                if let Err(error) = handle_stored(&shared).await {
                    tracing::debug!(%error, "cannot read the cancel requests");
                }
            }
        }
    }
}

/// Opens the watch again, trying for as long as it takes.
async fn watch_again(kv: &dyn KvStore) -> BoxStream<'static, KvChange> {
    loop {
        // First a pause: a store that has ended, and ends each watch at once, is not asked in a
        // loop.
        tokio::time::sleep(WATCH_RETRY).await;
        match watch(kv).await {
            Ok(changes) => return changes,
            Err(error) => tracing::debug!(%error, "cannot watch the cancel requests, retrying"),
        }
    }
}

/// Handles the request at a key that has changed. The stored value counts: a change can be forged.
async fn handle_change(shared: &Shared, key: &str) {
    match shared.scope.client.backend().kv().get(key).await {
        Ok(Some(entry)) => handle_request(shared, key, CancelRequest::decode(&entry.value)).await,
        Ok(None) => shared.cancels.forget(key),
        // The client gets no answer, and reports the cancel as not confirmed.
        Err(error) => tracing::debug!(%error, "cannot read a cancel request"),
    }
}

/// Notes the targets of a request, applies it to the held jobs, and answers with the jobs that had
/// started.
async fn handle_request(shared: &Shared, key: &str, request: Option<CancelRequest>) {
    let concerns_us =
        |request: &CancelRequest| request.queues.iter().any(|queue| shared.queues.contains(queue));
    let Some(request) = request.filter(concerns_us) else { return };
    // Noted before the held jobs are searched: a delivery that read the notes earlier is among the
    // held jobs, and one that reads them later finds the note.
    shared.cancels.note(key, &request.jobs);
    let started = shared.leases.apply_cancel(&request.jobs, request.abort);
    let (kv, worker_id) = (shared.scope.client.backend().kv(), &shared.scope.worker_id);
    if let Err(error) = cancel::answer(&**kv, key, worker_id, started).await {
        tracing::warn!(%error, "could not answer a cancel request; its client reports it as not confirmed");
    }
}
