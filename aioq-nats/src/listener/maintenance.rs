//! Maintenance of a listener while its `next` does not run: [`Maintenance`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aioq::Result;
use aioq::store::KvChange;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Idle;
use super::suspend::Suspensions;
use crate::keys;
use crate::link::Link;
use crate::receipt::QueueContext;
use crate::setup::ack_wait::{self, Change};

/// Pause of `next` after which messages beyond the prefetch are given back: the worker is full.
const FULL_AFTER: Duration = Duration::from_millis(100);

/// Pause of `next` after which all messages are given back: the worker's jobs take long, and other
/// workers may be free by now.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);

/// Pause before a failed change of an `ack_wait` is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Task that extends leases, gives back messages and follows changes of `ack_wait`.
///
/// Runs on the lease runtime, whose thread no body can block.
pub(super) struct Maintenance {
    queues: HashMap<String, Arc<QueueContext>>,
    lease: Arc<Link>,
    /// Changes of `ack_wait` to apply later.
    changes: Vec<Change>,
    announcements: BoxStream<'static, KvChange>,
    idle: Arc<Idle>,
    suspensions: Arc<Suspensions>,
}

impl Maintenance {
    pub(super) async fn new(
        queues: Vec<Arc<QueueContext>>,
        changes: Vec<Change>,
        idle: Arc<Idle>,
        suspensions: Arc<Suspensions>,
    ) -> Result<Self> {
        let first = queues.first().expect("a listener has at least one queue");
        let (session, lease) = (Arc::clone(&first.session), Arc::clone(&first.lease));
        let announcements = keys::watch(session, Some(&lease), ack_wait::KEY_PREFIX).await?;
        let queues = queues.iter().map(|queue| (queue.queue.to_string(), Arc::clone(queue))).collect();
        Ok(Self { queues, lease, changes, announcements, idle, suspensions })
    }

    pub(super) async fn run(mut self) {
        let mut ticks = interval((self.shortest_lease() / 8).min(FULL_AFTER));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut health = self.lease.health();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick().await,
                Some(change) = self.announcements.next() => self.read_announced(change).await,
                Ok(()) = health.changed() => {
                    let down = health.borrow_and_update().down;
                    if !down {
                        self.read_all().await;
                    }
                }
            }
        }
    }

    fn shortest_lease(&self) -> Duration {
        self.queues.values().map(|queue| queue.ack_wait.get()).min().unwrap_or_default()
    }

    async fn tick(&mut self) {
        // Only the check itself counts here: the pull state handles suspensions.
        self.suspensions.check(self.shortest_lease() / 2);
        let acks = self.idle.with(|state, pause| {
            let keep = match pause {
                pause if pause >= BLOCKED_AFTER => Some(0),
                pause if pause >= FULL_AFTER => Some(state.prefetch()),
                _ => None,
            };
            state.maintain(keep)
        });
        acks.unwrap_or_default().send(&self.lease).await;
        self.apply_due_changes().await;
    }

    /// Reads a value that another listener announced. Reads it from the store, because a
    /// notification can be forged.
    async fn read_announced(&mut self, change: KvChange) {
        let KvChange::Put(entry) = change else { return };
        let queue = entry.key.strip_prefix(ack_wait::KEY_PREFIX);
        let Some(queue) = queue.and_then(|queue| self.queues.get(queue)) else { return };
        read_ack_wait(queue).await;
    }

    /// Reads all values, which may have changed while the connection was broken.
    async fn read_all(&mut self) {
        for queue in self.queues.values() {
            read_ack_wait(queue).await;
        }
    }

    async fn apply_due_changes(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.changes).into_iter().partition(|change| change.at <= now);
        self.changes = later;
        for change in due {
            self.apply(change).await;
        }
    }

    async fn apply(&mut self, mut change: Change) {
        let Some(queue) = self.queues.get(&change.queue) else { return };
        let announced = ack_wait::announced(&queue.session, &queue.lease, &change.queue).await;
        let applied = match announced {
            // Another listener has announced another value since, and applies it.
            Ok(announced) if announced != Some(change.value) => return,
            Ok(_) => ack_wait::apply(&queue.session, &queue.lease, &change.queue, change.value).await,
            Err(error) => Err(error),
        };
        if let Err(error) = applied {
            tracing::debug!(%error, queue = change.queue, "cannot change the ack_wait of the queue, retrying");
            change.at = Instant::now() + RETRY_PAUSE;
            self.changes.push(change);
        }
    }
}

/// Puts the announced value of a queue into force.
async fn read_ack_wait(queue: &QueueContext) {
    if let Ok(Some(value)) = ack_wait::announced(&queue.session, &queue.lease, &queue.queue).await {
        queue.ack_wait.set(value);
    }
}
