//! The heartbeat of a worker. Clients see by it that the worker lives, and send it cancel requests.
//!
//! The order of its start matters to the cancel protocol, see [`cancel`](crate::cancel): the worker
//! watches for requests, registers, reads the requests from before, and only then fetches.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Shared;
use super::cancels;
use super::run::{AbortOnDrop, run_beside, spawn_beside};
use crate::client::Client;
use crate::codec::Codec;
use crate::error::Result;
use crate::process;
use crate::store::Expect;
use crate::sync::Lock;
use crate::time::Timestamp;
use crate::workers::{HEARTBEAT, HEARTBEAT_TTL, Registered, WORKERS, WorkerInfo};

/// Interval between heartbeats.
const EVERY: Duration = Duration::from_secs(10);
/// Pause after a heartbeat that failed.
const AGAIN: Duration = Duration::from_millis(500);
/// Time for which a worker that died stays listed.
const KEEP: Duration = Duration::from_secs(5 * 60);
/// A worker whose last heartbeat is older starts no job: clients may soon take it for dead. Less
/// than [`HEARTBEAT_TTL`], and counted from before the sign was sent, so that the worker is always
/// the first to know.
const STALE: Duration = Duration::from_secs(20);

/// The heartbeat of a worker. Its runs share one.
#[derive(Default)]
pub(super) struct Heartbeat {
    /// Held while the worker registers or deregisters.
    change: tokio::sync::Mutex<()>,
    parts: Lock<Parts>,
    /// The latest confirmed heartbeat.
    seen: watch::Sender<Option<Seen>>,
    /// Notified when a job waits for a heartbeat.
    wanted: Notify,
}

/// The moment before a sign of life was sent, by two clocks. One is that of the process, which
/// stands still while the machine sleeps. The other is that of the machine, which may be set at any
/// time: if it is set ahead, the sign looks old, and another is given at once.
#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    on_the_wall: Timestamp,
    /// Since then no heartbeat has grown old.
    unbroken_since: Instant,
}

impl Seen {
    fn now(client: &Client) -> Self {
        let at = Instant::now();
        Self { at, on_the_wall: client.now(), unbroken_since: at }
    }

    fn is_fresh(&self, client: &Client) -> bool {
        self.at.elapsed() < STALE && client.now().since(self.on_the_wall) < STALE
    }
}

#[derive(Default)]
struct Parts {
    /// Runs that need the registration.
    users: usize,
    tasks: Vec<AbortOnDrop>,
}

/// Keeps the worker registered until it is dropped.
pub(super) struct Registration(Arc<Shared>);

impl Heartbeat {
    /// Registers the worker, unless another of its runs has.
    pub(super) async fn enter(shared: &Arc<Shared>) -> Result<Registration> {
        let _change = shared.heartbeat.change.lock().await;
        let first = {
            let mut parts = shared.heartbeat.parts.lock();
            parts.users += 1;
            parts.users == 1
        };
        let present = Registration(Arc::clone(shared));
        if first {
            let tasks = run_beside(shared, come_up(Arc::clone(shared))).await?;
            shared.heartbeat.parts.lock().tasks = tasks;
        }
        Ok(present)
    }

    /// Resolves as long as the worker is known to live, at once; otherwise when it is again. Since
    /// when it has been known without a break: of a job that was fetched before that, this worker
    /// may have been asked in vain.
    pub(super) async fn confirmed(&self, client: &Client) -> Instant {
        if let Some(seen) = self.fresh(client) {
            return seen.unbroken_since;
        }
        let mut signs = self.seen.subscribe();
        self.wanted.notify_one();
        let fresh = |seen: &Option<Seen>| seen.as_ref().is_some_and(|seen| seen.is_fresh(client));
        match signs.wait_for(fresh).await {
            Ok(seen) => seen.map_or_else(Instant::now, |seen| seen.unbroken_since),
            // The sender would be gone, which is right here.
            Err(_) => Instant::now(),
        }
    }

    /// The latest heartbeat, if it is young enough.
    fn fresh(&self, client: &Client) -> Option<Seen> {
        self.seen.borrow().filter(|seen| seen.is_fresh(client))
    }
}

impl Registration {
    /// Deregisters the worker, unless another of its runs goes on.
    pub(super) async fn leave(self) {
        let shared = Arc::clone(&self.0);
        let _change = shared.heartbeat.change.lock().await;
        // Ends the heartbeats.
        drop(self);
        if shared.heartbeat.parts.lock().users > 0 {
            return;
        }
        let kv = shared.scope.client.backend().kv();
        for key in [sign(&shared), key(&shared)] {
            if let Err(error) = kv.delete(&key, Expect::Any).await {
                tracing::debug!(%error, "the worker could not be deregistered, its entry expires by itself");
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut parts = self.0.heartbeat.parts.lock();
        parts.users -= 1;
        if parts.users == 0 {
            parts.tasks.clear();
            // A worker that registers again was unknown meanwhile.
            self.0.heartbeat.seen.send_replace(None);
        }
    }
}

async fn come_up(shared: Arc<Shared>) -> Result<Vec<AbortOnDrop>> {
    let requests = cancels::watch(&**shared.scope.client.backend().kv()).await?;
    let registered_at = shared.scope.client.now();
    give_sign(&shared, registered_at).await?;
    Ok(vec![
        spawn_beside(&shared, cancels::follow(Arc::clone(&shared), requests)),
        spawn_beside(&shared, beat(Arc::clone(&shared), registered_at)),
    ])
}

async fn beat(shared: Arc<Shared>, registered_at: Timestamp) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shared.heartbeat.wanted.notified() => {}
        }
        shared.cancels.sweep();
        let mut troubled = false;
        while let Err(error) = give_sign(&shared, registered_at).await {
            if !std::mem::replace(&mut troubled, true) {
                tracing::warn!(%error, "heartbeat failed, trying again");
            }
            // Soon: no job starts once the last heartbeat is old.
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Sends a heartbeat. It counts once the store has confirmed it.
async fn give_sign(shared: &Arc<Shared>, registered_at: Timestamp) -> Result<()> {
    let client = &shared.scope.client;
    let mut seen = Seen::now(client);
    let kv = client.backend().kv();
    let (info, sign) = (key(shared), sign(shared));
    // In this order: a worker that is listed without a heartbeat would count as dead.
    kv.put(&sign, Bytes::new(), Expect::Any, Some(HEARTBEAT_TTL)).await?;
    kv.put(&info, describe(shared, registered_at), Expect::Any, Some(KEEP)).await?;
    match shared.heartbeat.fresh(client) {
        Some(before) => seen.unbroken_since = before.unbroken_since,
        // Clients may not have waited for this worker's answers meanwhile.
        None => {
            cancels::handle_stored(shared).await?;
            seen.unbroken_since = Instant::now();
        }
    }
    shared.heartbeat.seen.send_replace(Some(seen));
    Ok(())
}

fn key(shared: &Shared) -> String {
    format!("{WORKERS}{}", shared.scope.worker_id)
}

/// Key of the heartbeat.
fn sign(shared: &Shared) -> String {
    format!("{}{HEARTBEAT}", key(shared))
}

fn describe(shared: &Shared, registered_at: Timestamp) -> Bytes {
    let (blocking_threads, blocking_busy) = shared.scope.pool.size_and_busy();
    let info = WorkerInfo {
        worker_id: shared.scope.worker_id.to_string(),
        queues: shared.queues.clone(),
        registered_at,
        last_heartbeat: shared.scope.client.now(),
        host: process::host(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        concurrency: shared.options.concurrency,
        busy: shared.leases.count(),
        blocking_threads,
        blocking_busy,
        rss_bytes: process::rss_bytes(),
        alive: true,
    };
    let registered = Registered { info, gives_signs: true };
    // A plain struct of text and numbers can always be encoded.
    Codec::MessagePack.encode(&registered).map(|payload| payload.as_bytes().clone()).unwrap_or_default()
}
