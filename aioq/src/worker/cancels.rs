//! Which jobs this worker must not start, as clients tell it: the worker's side of [`control`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::time::Instant;

use super::Shared;
use crate::cancel::{self, Marked, REMEMBERED, ROUNDS, Round};
use crate::error::Result;
use crate::message::{JobId, Message};
use crate::store::{KvChange, KvStore};

/// How long to wait before a watch is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// The jobs that were called off, by id.
#[derive(Default)]
pub(super) struct Cancels {
    notes: Mutex<Notes>,
    /// Whether there are any: nearly always not, and then no delivery has to look.
    any: AtomicBool,
}

#[derive(Default)]
struct Notes {
    by_id: HashMap<JobId, Vec<Note>>,
    /// The ids of each round, by its key, and until when they count.
    rounds: HashMap<String, (Instant, Vec<JobId>)>,
}

struct Note {
    /// The key of its round.
    round: String,
    marked: Marked,
    until: Instant,
}

impl Cancels {
    /// Whether a message is of a job that was called off.
    pub(super) fn cover(&self, message: &Message) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let notes = self.lock();
        let mut notes = notes.by_id.get(&message.id).into_iter().flatten();
        notes.any(|note| note.until > Instant::now() && note.marked.covers(message))
    }

    /// Takes note of a round, in place of what its key said before.
    fn note(&self, key: &str, jobs: &[Marked]) {
        let until = Instant::now() + REMEMBERED;
        let mut notes = self.lock();
        notes.forget(key);
        for marked in jobs {
            let note = Note { round: key.to_owned(), marked: marked.clone(), until };
            notes.by_id.entry(marked.id.clone()).or_default().push(note);
        }
        notes.rounds.insert(key.to_owned(), (until, jobs.iter().map(|marked| marked.id.clone()).collect()));
        self.any.store(true, Ordering::Release);
    }

    fn forget(&self, key: &str) {
        let mut notes = self.lock();
        notes.forget(key);
        self.any.store(!notes.rounds.is_empty(), Ordering::Release);
    }

    /// Forgets the rounds whose time has passed.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut notes = self.lock();
        let over = notes.rounds.iter().filter(|(_, (until, _))| *until <= now);
        let over: Vec<String> = over.map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| notes.forget(key));
        self.any.store(!notes.rounds.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        // Nothing panics while it is locked.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    fn forget(&mut self, key: &str) {
        let Some((_, ids)) = self.rounds.remove(key) else { return };
        for id in ids {
            if let Some(notes) = self.by_id.get_mut(&id) {
                notes.retain(|note| note.round != key);
                if notes.is_empty() {
                    self.by_id.remove(&id);
                }
            }
        }
    }
}

/// The rounds from now on.
pub(super) async fn watch(kv: &dyn KvStore) -> Result<BoxStream<'static, KvChange>> {
    kv.watch(ROUNDS).await
}

/// Takes note of the rounds that are there, and answers them.
pub(super) async fn read(shared: &Shared) -> Result<()> {
    for entry in shared.scope.client.backend().kv().scan(ROUNDS).await? {
        heed(shared, &entry.key, cancel::read(&entry.value)).await;
    }
    Ok(())
}

/// The rounds from when they can be watched again. Those that have ended must not be asked again.
async fn watch_again(kv: &dyn KvStore) -> BoxStream<'static, KvChange> {
    loop {
        tokio::time::sleep(PAUSE).await;
        match watch(kv).await {
            Ok(rounds) => return rounds,
            Err(error) => tracing::debug!(%error, "cannot watch which jobs are called off"),
        }
    }
}

/// Heeds rounds until it is dropped.
pub(super) async fn follow(shared: Arc<Shared>, mut rounds: BoxStream<'static, KvChange>) {
    let kv = Arc::clone(shared.scope.client.backend().kv());
    loop {
        match rounds.next().await {
            Some(change) => follow_one(&shared, &change.into_key()).await,
            // Who asks meanwhile gets no answer, and so no certainty.
            None => {
                rounds = watch_again(&*kv).await;
                if let Err(error) = read(&shared).await {
                    tracing::debug!(%error, "cannot ask which jobs were called off");
                }
            }
        }
    }
}

/// Heeds a round that was told of, as it is stored: what is told can be forged by whoever may publish there.
async fn follow_one(shared: &Shared, key: &str) {
    match shared.scope.client.backend().kv().get(key).await {
        Ok(Some(entry)) => heed(shared, key, cancel::read(&entry.value)).await,
        Ok(None) => shared.cancels.forget(key),
        // Who asks gets no answer, and so no certainty.
        Err(error) => tracing::debug!(%error, "cannot ask which jobs were called off"),
    }
}

/// Leaves the jobs of a round alone from now on, and says which had been started before.
async fn heed(shared: &Shared, key: &str, round: Option<Round>) {
    let Some(round) = round.filter(|round| round.queues.iter().any(|queue| shared.queues.contains(queue)))
    else {
        return;
    };
    // Noted first: a delivery that looked before is among those held, one that comes after sees the note.
    shared.cancels.note(key, &round.jobs);
    let started = shared.leases.apply_cancel(&round.jobs, round.abort);
    let worker_id = &shared.scope.worker_id;
    if let Err(error) = cancel::answer(&shared.scope.client, key, worker_id, started).await {
        tracing::warn!(%error, "a call to leave jobs alone could not be answered");
    }
}
