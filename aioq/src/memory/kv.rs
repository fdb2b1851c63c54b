//! [`KvStore`] in memory.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::time::Instant;

use super::Guarded;
use super::table::Table;
use super::watch::{self, Watchable, Watchers};
use crate::broker::Expect;
use crate::error::Result;
use crate::store::{Entry, KvChange, KvStore};

/// Expired keys removed per write. More than one, so that a backlog shrinks.
const SWEPT_PER_WRITE: usize = 8;
/// Changes that a watcher may fall behind before it loses the oldest.
const BACKLOG: usize = 1024;

#[derive(Clone)]
pub(super) struct MemoryKv(Arc<Guarded<Keys>>);

impl Default for MemoryKv {
    fn default() -> Self {
        Self(Guarded::new(Keys::new()))
    }
}

#[async_trait]
impl KvStore for MemoryKv {
    async fn startup(&self) -> Result<()> {
        self.0.startup();
        Ok(())
    }

    async fn shutdown(&self) -> Result<()> {
        watch::shutdown(&self.0);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.0.with(|keys| keys.get(key, Instant::now()))
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        self.0.with(|keys| keys.put(key.into(), value, expect, ttl))?
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool> {
        self.0.with(|keys| keys.delete(key, expect))?
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>> {
        self.0.with(|keys| keys.scan(prefix))
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, KvChange>> {
        let topic = prefix.to_owned();
        let receiver = self.0.with(|keys| keys.watchers.subscribe(topic.clone(), BACKLOG))?;
        Ok(watch::stream(self.0.clone(), topic, receiver))
    }
}

/// All keys.
struct Keys {
    table: Table<Arc<str>, Bytes>,
    /// The same keys in order, for scans.
    names: BTreeSet<Arc<str>>,
    /// By prefix.
    watchers: Watchers<String, KvChange>,
}

impl Keys {
    fn new() -> Self {
        Self { table: Table::new(), names: BTreeSet::new(), watchers: Watchers::default() }
    }

    fn get(&self, key: &str, now: Instant) -> Option<Entry> {
        let found = self.table.get(key, now)?;
        Some(Entry::new(key, found.value.clone(), found.revision))
    }

    fn put(&mut self, key: Arc<str>, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let now = Instant::now();
        self.table.check(&key, expect, now)?;
        let (revision, old) = self.table.put(key.clone(), value.clone(), ttl, now);
        if old.is_none() {
            self.names.insert(key.clone());
        }
        self.publish(&key, || KvChange::Put(Entry::new(&*key, value.clone(), revision)));
        self.sweep(now);
        Ok(revision)
    }

    fn delete(&mut self, key: &str, expect: Expect) -> Result<bool> {
        let now = Instant::now();
        self.table.check(key, expect, now)?;
        let live = self.table.get(key, now).is_some();
        self.table.remove(key);
        self.names.remove(key);
        if live {
            self.publish(key, || KvChange::Deleted(key.to_owned()));
        }
        Ok(live)
    }

    fn scan(&self, prefix: &str) -> Vec<Entry> {
        let now = Instant::now();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let names = self.names.range::<str, _>(from).take_while(|name| name.starts_with(prefix));
        names.filter_map(|name| self.get(name, now)).collect()
    }

    fn publish(&self, key: &str, change: impl Fn() -> KvChange) {
        for prefix in self.watchers.topics().filter(|prefix| key.starts_with(*prefix)) {
            self.watchers.send(prefix, &change());
        }
    }

    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT_PER_WRITE {
            match self.table.pop_expired(now) {
                Some((key, _)) => _ = self.names.remove(&key),
                None => break,
            }
        }
    }
}

impl Watchable for Keys {
    type Topic = String;
    type Change = KvChange;

    fn watchers(&mut self) -> &mut Watchers<Self::Topic, Self::Change> {
        &mut self.watchers
    }
}
