//! Looks after a listener between two calls of `next`, on the thread that no task body can block.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aioq::Result;
use aioq::store::KvChange;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Parked;
use super::lane::Return;
use super::pull::Upkeep;
use super::suspend::Sleeps;
use crate::kv;
use crate::link::lock;
use crate::receipt::{Source, nak};
use crate::setup::ack_wait::{self, Change};

/// How long `next` may pause before what is more than the prefetch is given back: the worker is full.
const PAUSE: Duration = Duration::from_millis(100);

/// How long `next` may pause before everything is given back: the jobs that fill the worker last, and what was
/// a moment's work when it was prefetched may be one for others by now.
const FULL: Duration = Duration::from_secs(1);

/// Owned by a listener; ends with it.
pub(super) struct Keeper {
    sources: HashMap<String, Arc<Source>>,
    changes: Vec<Change>,
    told: BoxStream<'static, KvChange>,
    parked: Arc<Parked>,
    sleeps: Arc<Sleeps>,
}

impl Keeper {
    pub(super) async fn new(
        sources: Vec<Arc<Source>>,
        changes: Vec<Change>,
        parked: Arc<Parked>,
        sleeps: Arc<Sleeps>,
    ) -> Result<Self> {
        let first = sources.first().expect("a listener has at least one queue");
        let told = kv::watch(Arc::clone(&first.session), Some(&first.lease), ack_wait::KEYS).await?;
        let sources = sources.iter().map(|source| (source.queue.to_string(), Arc::clone(source))).collect();
        Ok(Self { sources, changes, told, parked, sleeps })
    }

    pub(super) async fn run(mut self) {
        let mut ticks = interval(self.pace());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let source = Arc::clone(self.sources.values().next().expect("a listener has at least one queue"));
        let mut health = source.lease.health();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(&source).await,
                Some(change) = self.told.next() => self.adopt(change).await,
                Ok(()) = health.changed() => {
                    let down = health.borrow_and_update().down;
                    if !down {
                        self.adopt_all().await;
                    }
                }
            }
        }
    }

    /// Often enough for the shortest lease.
    fn pace(&self) -> Duration {
        (self.shortest() / 8).min(PAUSE)
    }

    fn shortest(&self) -> Duration {
        self.sources.values().map(|source| source.ack_wait.get()).min().unwrap_or_default()
    }

    async fn tick(&mut self, source: &Source) {
        // Only that it was looked counts: the intake draws the conclusions.
        self.sleeps.longer_than(self.shortest() / 2);
        let upkeep = lock(&self.parked.place).as_mut().map(|(intake, since)| {
            let keep = match since.elapsed() {
                pause if pause >= FULL => Some(0),
                pause if pause >= PAUSE => Some(intake.prefetch()),
                _ => None,
            };
            intake.look_after(keep)
        });
        let Upkeep { give_back, extend } =
            upkeep.unwrap_or(Upkeep { give_back: Vec::new(), extend: Vec::new() });
        // A failure here is a closed connection: all comes again elsewhere.
        for Return { reply, delay } in give_back {
            let _ = source.lease.publish(reply, nak(delay)).await;
        }
        for reply in extend {
            let _ = source.lease.publish(reply, Bytes::from_static(b"+WPI")).await;
        }
        self.apply_due_changes().await;
    }

    /// Takes over a value that another listener told, as it is stored: what is told can be forged.
    async fn adopt(&mut self, change: KvChange) {
        let KvChange::Put(entry) = change else { return };
        let queue = entry.key.strip_prefix(ack_wait::KEYS);
        let Some(source) = queue.and_then(|queue| self.sources.get(queue)) else { return };
        adopt(source).await;
    }

    /// Reads what may have been told while the connection was broken.
    async fn adopt_all(&mut self) {
        for source in self.sources.values() {
            adopt(source).await;
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
        let Some(source) = self.sources.get(&change.queue) else { return };
        let told = ack_wait::told(&source.session, &source.lease, &change.queue).await;
        let applied = match told {
            // Somebody has told another value since: it is theirs to apply.
            Ok(told) if told != Some(change.value) => return,
            Ok(_) => ack_wait::apply(&source.session, &source.lease, &change.queue, change.value).await,
            Err(error) => Err(error),
        };
        if let Err(error) = applied {
            tracing::debug!(%error, queue = change.queue, "the ack_wait of the queue cannot be changed yet");
            change.at = Instant::now() + Duration::from_secs(1);
            self.changes.push(change);
        }
    }
}

/// Takes over the value that is stored.
async fn adopt(source: &Source) {
    if let Ok(Some(value)) = ack_wait::told(&source.session, &source.lease, &source.queue).await {
        source.ack_wait.set(value);
    }
}
