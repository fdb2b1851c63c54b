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
use crate::schedules::code_ids;
use crate::store::Expect;
use crate::sync::Lock;
use crate::time::Timestamp;
use crate::workers::{HEARTBEAT, HEARTBEAT_TTL, Registered, WORKERS, WorkerInfo};

/// Interval between heartbeats.
const INTERVAL: Duration = Duration::from_secs(10);
/// Pause after a heartbeat that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Time for which a worker that died stays listed.
const INFO_TTL: Duration = Duration::from_secs(5 * 60);
/// Age of the last heartbeat from which on the worker starts no job: clients may soon take it for
/// dead. Less than [`HEARTBEAT_TTL`], and counted from before the heartbeat was sent, so that the
/// worker always stops first.
const STALE: Duration = Duration::from_secs(20);

/// The heartbeat of a worker. Its runs share one.
#[derive(Default)]
pub(super) struct Heartbeat {
    /// Held while the worker registers or deregisters.
    change: tokio::sync::Mutex<()>,
    parts: Lock<Parts>,
    /// The latest confirmed heartbeat.
    latest: watch::Sender<Option<Beat>>,
    /// Notified when a job waits for a heartbeat.
    wanted: Notify,
}

/// A heartbeat, with the moment before it was sent, by two clocks. The clock of the process stands
/// still while the machine sleeps. The clock of the machine may be set at any time: if it is set
/// ahead, the heartbeat looks old, and the next one is sent at once.
#[derive(Clone, Copy)]
struct Beat {
    at: Instant,
    on_the_wall: Timestamp,
    /// The moment since which no heartbeat has grown stale.
    unbroken_since: Instant,
}

impl Beat {
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
        let registration = Registration(Arc::clone(shared));
        if first {
            let tasks = run_beside(shared, register(Arc::clone(shared))).await?;
            shared.heartbeat.parts.lock().tasks = tasks;
        }
        Ok(registration)
    }

    /// Resolves when the last heartbeat is fresh, which is nearly always at once. Returns the
    /// moment since which heartbeats have been fresh without a break: cancel requests from before
    /// that moment may have missed this worker.
    pub(super) async fn confirmed(&self, client: &Client) -> Instant {
        if let Some(beat) = self.fresh(client) {
            return beat.unbroken_since;
        }
        let mut beats = self.latest.subscribe();
        self.wanted.notify_one();
        let fresh = |beat: &Option<Beat>| beat.as_ref().is_some_and(|beat| beat.is_fresh(client));
        match beats.wait_for(fresh).await {
            Ok(beat) => beat.map_or_else(Instant::now, |beat| beat.unbroken_since),
            // Never happens: `self` owns the sender.
            Err(_) => Instant::now(),
        }
    }

    /// The latest heartbeat, if it is fresh.
    fn fresh(&self, client: &Client) -> Option<Beat> {
        self.latest.borrow().filter(|beat| beat.is_fresh(client))
    }
}

impl Registration {
    /// Deregisters the worker, unless another of its runs is registered.
    pub(super) async fn leave(self) {
        let shared = Arc::clone(&self.0);
        let _change = shared.heartbeat.change.lock().await;
        // Ends the heartbeats.
        drop(self);
        if shared.heartbeat.parts.lock().users > 0 {
            return;
        }
        let kv = shared.scope.client.backend().kv();
        for key in [heartbeat_key(&shared), info_key(&shared)] {
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
            // The worker is unknown until it registers again.
            self.0.heartbeat.latest.send_replace(None);
        }
    }
}

async fn register(shared: Arc<Shared>) -> Result<Vec<AbortOnDrop>> {
    let requests = cancels::watch(&**shared.scope.client.backend().kv()).await?;
    let registered_at = shared.scope.client.now();
    send_heartbeat(&shared, registered_at).await?;
    Ok(vec![
        spawn_beside(&shared, cancels::follow(Arc::clone(&shared), requests)),
        spawn_beside(&shared, send_heartbeats(Arc::clone(&shared), registered_at)),
    ])
}

async fn send_heartbeats(shared: Arc<Shared>, registered_at: Timestamp) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shared.heartbeat.wanted.notified() => {}
        }
        shared.cancels.sweep();
        let mut warned = false;
        while let Err(error) = send_heartbeat(&shared, registered_at).await {
            if !std::mem::replace(&mut warned, true) {
                tracing::warn!(%error, "heartbeat failed, trying again");
            }
            // A short pause: no job starts once the last heartbeat is stale.
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// Sends a heartbeat. It counts once the store has confirmed it.
async fn send_heartbeat(shared: &Arc<Shared>, registered_at: Timestamp) -> Result<()> {
    let client = &shared.scope.client;
    let mut beat = Beat::now(client);
    let kv = client.backend().kv();
    let (info_key, heartbeat_key) = (info_key(shared), heartbeat_key(shared));
    // In this order: a worker that is listed without a heartbeat would count as dead.
    kv.put(&heartbeat_key, Bytes::new(), Expect::Any, Some(HEARTBEAT_TTL)).await?;
    kv.put(&info_key, describe(shared, registered_at), Expect::Any, Some(INFO_TTL)).await?;
    match shared.heartbeat.fresh(client) {
        Some(before) => beat.unbroken_since = before.unbroken_since,
        // Clients may not have waited for this worker's answers meanwhile.
        None => {
            cancels::handle_stored(shared).await?;
            beat.unbroken_since = Instant::now();
        }
    }
    shared.heartbeat.latest.send_replace(Some(beat));
    Ok(())
}

fn info_key(shared: &Shared) -> String {
    format!("{WORKERS}{}", shared.scope.worker_id)
}

fn heartbeat_key(shared: &Shared) -> String {
    format!("{}{HEARTBEAT}", info_key(shared))
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
    let schedules = code_ids(&shared.registry).map(str::to_owned).collect();
    let registered = Registered { info, gives_signs: true, schedules };
    // A plain struct of text and numbers can always be encoded.
    Codec::MessagePack.encode(&registered).map(|payload| payload.as_bytes().clone()).unwrap_or_default()
}
