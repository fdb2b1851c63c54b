//! The presence of a worker: others see that it lives, and reach it.
//!
//! The order in which it comes up matters to those who call jobs off, see [`control`](crate::control): it
//! watches, registers, reads what it was told before, and only then fetches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::cancels;
use super::run::{AbortOnDrop, run_beside, spawn_beside};
use crate::client::Client;
use crate::codec::Codec;
use crate::error::Result;
use crate::store::Expect;
use crate::time::Timestamp;
use crate::workers::{WORKERS, WorkerInfo};

/// How often a worker gives a sign of life.
const EVERY: Duration = Duration::from_secs(10);
/// How long it waits after one that failed.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a worker that died is remembered.
const KEEP: Duration = Duration::from_secs(5 * 60);
/// A worker whose last sign of life is older starts nothing: others may take it for dead soon.
const STALE: Duration = Duration::from_secs(20);

/// Whether the worker is present; its runs share one presence.
#[derive(Default)]
pub(super) struct Presence {
    /// Held while it comes up or goes.
    change: tokio::sync::Mutex<()>,
    parts: Mutex<Parts>,
    /// When the latest sign of life was given.
    seen: watch::Sender<Option<Seen>>,
}

/// A moment by both clocks: that of the process stands still while the machine sleeps, that of the wall may be
/// set.
#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    on_the_wall: Timestamp,
}

impl Seen {
    fn now(client: &Client) -> Self {
        Self { at: Instant::now(), on_the_wall: client.now() }
    }

    fn is_fresh(&self, client: &Client) -> bool {
        self.at.elapsed() < STALE && client.now().since(self.on_the_wall) < STALE
    }
}

#[derive(Default)]
struct Parts {
    /// Runs that need it.
    users: usize,
    tasks: Vec<AbortOnDrop>,
}

/// The worker is present as long as this lives.
pub(super) struct Present(Arc<Shared>);

impl Presence {
    /// Registers the worker, unless it is registered.
    pub(super) async fn enter(shared: &Arc<Shared>) -> Result<Present> {
        let _change = shared.presence.change.lock().await;
        let first = {
            let mut parts = shared.presence.parts();
            parts.users += 1;
            parts.users == 1
        };
        let present = Present(Arc::clone(shared));
        if first {
            let tasks = run_beside(shared, come_up(Arc::clone(shared))).await?;
            shared.presence.parts().tasks = tasks;
        }
        Ok(present)
    }

    /// Resolves as long as the worker is known to live, at once; otherwise when it is again.
    pub(super) async fn known(&self, client: &Client) {
        let fresh = |seen: &Option<Seen>| seen.as_ref().is_some_and(|seen| seen.is_fresh(client));
        if !fresh(&self.seen.borrow()) {
            // An error would say that the sender is gone, which is right here.
            let _ = self.seen.subscribe().wait_for(fresh).await;
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // Nothing panics while it is locked.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    /// Deregisters the worker, unless another of its runs goes on.
    pub(super) async fn leave(self) {
        let shared = Arc::clone(&self.0);
        let _change = shared.presence.change.lock().await;
        // No sign of life after this.
        drop(self);
        if shared.presence.parts().users > 0 {
            return;
        }
        if let Err(error) = shared.scope.client.backend().kv().delete(&key(&shared), Expect::Any).await {
            tracing::debug!(%error, "the worker could not be deregistered, it will be forgotten by itself");
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut parts = self.0.presence.parts();
        parts.users -= 1;
        if parts.users == 0 {
            parts.tasks.clear();
        }
    }
}

async fn come_up(shared: Arc<Shared>) -> Result<Vec<AbortOnDrop>> {
    let rounds = cancels::watch(&**shared.scope.client.backend().kv()).await?;
    let registered_at = shared.scope.client.now();
    give_sign(&shared, registered_at).await?;
    cancels::read(&shared).await?;
    shared.presence.seen.send_replace(Some(Seen::now(&shared.scope.client)));
    Ok(vec![
        spawn_beside(&shared, cancels::follow(Arc::clone(&shared), rounds)),
        spawn_beside(&shared, beat(Arc::clone(&shared), registered_at)),
    ])
}

async fn beat(shared: Arc<Shared>, registered_at: Timestamp) {
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(pause).await;
        shared.cancels.sweep();
        let now = Seen::now(&shared.scope.client);
        pause = match beat_once(&shared, registered_at).await {
            Ok(()) => {
                shared.presence.seen.send_replace(Some(now));
                EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "no sign of life could be given");
                // Soon: nothing starts once the last one is old.
                AGAIN
            }
        };
    }
}

async fn beat_once(shared: &Arc<Shared>, registered_at: Timestamp) -> Result<()> {
    let client = &shared.scope.client;
    let was_known = shared.presence.seen.borrow().as_ref().is_some_and(|seen| seen.is_fresh(client));
    give_sign(shared, registered_at).await?;
    if !was_known {
        // Nobody may have waited for an answer meanwhile.
        cancels::read(shared).await?;
    }
    Ok(())
}

async fn give_sign(shared: &Shared, registered_at: Timestamp) -> Result<()> {
    let kv = shared.scope.client.backend().kv();
    kv.put(&key(shared), describe(shared, registered_at), Expect::Any, Some(KEEP)).await.map(drop)
}

fn key(shared: &Shared) -> String {
    format!("{WORKERS}{}", shared.scope.worker_id)
}

fn describe(shared: &Shared, registered_at: Timestamp) -> Bytes {
    let (blocking_threads, blocking_busy) = shared.scope.pool.size_and_busy();
    let info = WorkerInfo {
        worker_id: shared.scope.worker_id.to_string(),
        queues: shared.queues.clone(),
        registered_at,
        last_heartbeat: shared.scope.client.now(),
        host: host(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        concurrency: shared.options.concurrency,
        busy: shared.held.count(),
        blocking_threads,
        blocking_busy,
        rss_bytes: rss_bytes(),
    };
    // A plain struct of text and numbers always has a form.
    Codec::MessagePack.encode(&info).map(|payload| payload.as_bytes().clone()).unwrap_or_default()
}

/// The resident memory of this process, where the kernel tells.
fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

fn host() -> String {
    let from_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).or_else(from_kernel);
    name.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}
