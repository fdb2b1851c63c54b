//! Small shared state by key. Jobs keep their records in the same way, so [`Entries`] serves both.

use std::sync::Arc;
use std::time::Duration;

use aioq::store::{Entry, Expect, KvChange, KvStore};
use aioq::{Error, ErrorKind, Result, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::file::{Access, Done, File, count};

/// By key: the revision, the end in microseconds since 1970, the value.
type EntryTable = TableDefinition<'static, &'static str, (u64, i64, &'static [u8])>;

const KEYS: EntryTable = TableDefinition::new("keys");
const FOREVER: i64 = i64::MAX;
/// How many changes a watcher may fall behind before it loses the oldest.
const BACKLOG: usize = 1024;

/// Entries with revisions and ends.
#[derive(Clone, Copy)]
pub struct Entries(pub EntryTable);

impl Entries {
    /// The entry of `key`. One whose time has passed is not there, whether or not it has been swept.
    pub fn get(
        table: &impl ReadableTable<&'static str, (u64, i64, &'static [u8])>,
        key: &str,
    ) -> Done<Option<Entry>> {
        let found = table.get(key)?;
        Ok(found.and_then(|found| live(key, found.value())))
    }

    /// Writes an entry if `expect` holds.
    pub fn put(
        self,
        transaction: &WriteTransaction,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Done<Entry> {
        let mut table = transaction.open_table(self.0)?;
        check(key, Self::get(&table, key)?, expect)?;
        let revision = count(transaction, "revision")?;
        let end = ttl.map_or(FOREVER, |ttl| (Timestamp::now() + ttl).as_micros());
        table.insert(key, (revision, end, &*value))?;
        Ok(Entry::new(key, value, revision))
    }

    /// Removes an entry if `expect` holds; whether it was there.
    pub fn delete(self, transaction: &WriteTransaction, key: &str, expect: Expect) -> Done<bool> {
        let mut table = transaction.open_table(self.0)?;
        let found = Self::get(&table, key)?;
        let there = found.is_some();
        check(key, found, expect)?;
        table.remove(key)?;
        Ok(there)
    }

    /// Makes the table if there is none, and removes what has ended.
    pub fn sweep(self, transaction: &WriteTransaction) -> Done<()> {
        let now = Timestamp::now().as_micros();
        transaction.open_table(self.0)?.retain(|_, (_, end, _)| end > now)?;
        Ok(())
    }
}

fn live(key: &str, (revision, end, value): (u64, i64, &[u8])) -> Option<Entry> {
    let value = Bytes::copy_from_slice(value);
    (end > Timestamp::now().as_micros()).then(|| Entry::new(key, value, revision))
}

fn check(key: &str, found: Option<Entry>, expect: Expect) -> Result<()> {
    let found = found.map(|entry| entry.revision);
    match expect {
        Expect::Any => Ok(()),
        Expect::Absent if found.is_none() => Ok(()),
        Expect::Revision(wanted) if found == Some(wanted) => Ok(()),
        _ => Err(Error::new(ErrorKind::Conflict, format!("`{key}` was written by somebody else"))),
    }
}

/// [`KvStore`] on redb.
pub struct RedbKv {
    access: Access,
    changes: broadcast::Sender<KvChange>,
}

impl RedbKv {
    pub fn new(file: Arc<File>) -> Self {
        Self { access: Access::new(file), changes: broadcast::Sender::new(BACKLOG) }
    }
}

#[async_trait]
impl KvStore for RedbKv {
    async fn startup(&self) -> Result<()> {
        self.access.startup(|transaction| Entries(KEYS).sweep(transaction)).await
    }

    async fn shutdown(&self) -> Result<()> {
        self.access.shutdown();
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        let key = key.to_owned();
        self.access.read(move |transaction| Entries::get(&transaction.open_table(KEYS)?, &key)).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let (key, changes) = (key.to_owned(), self.changes.clone());
        let write = move |transaction: &_| Entries(KEYS).put(transaction, &key, value, expect, ttl);
        // That nobody watches is no error.
        let tell = move |entry: &Entry| _ = changes.send(KvChange::Put(entry.clone()));
        Ok(self.access.write(write, tell).await?.revision)
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool> {
        let (key, changes) = (key.to_owned(), self.changes.clone());
        let deleted = KvChange::Deleted(key.clone());
        let delete = move |transaction: &_| Entries(KEYS).delete(transaction, &key, expect);
        let tell = move |there: &bool| {
            if *there {
                _ = changes.send(deleted);
            }
        };
        self.access.write(delete, tell).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>> {
        let prefix = prefix.to_owned();
        let scan = move |transaction: &redb::ReadTransaction| {
            let mut entries = Vec::new();
            for row in transaction.open_table(KEYS)?.range(&*prefix..)? {
                let (key, value) = row?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                entries.extend(live(key.value(), value.value()));
            }
            Ok(entries)
        };
        self.access.read(scan).await
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, KvChange>> {
        self.access.started()?;
        let prefix = prefix.to_owned();
        let covers = move |change: &KvChange| match change {
            KvChange::Put(entry) => entry.key.starts_with(&prefix),
            KvChange::Deleted(key) => key.starts_with(&prefix),
            _ => false,
        };
        Ok(stream(self.changes.subscribe(), covers))
    }
}

/// The changes that are covered. Whoever falls behind loses the oldest, and holds up no writer.
pub fn stream<T: Clone + Send + 'static>(
    receiver: broadcast::Receiver<T>,
    covers: impl Fn(&T) -> bool + Send + 'static,
) -> BoxStream<'static, T> {
    let next = |mut receiver: broadcast::Receiver<T>| async {
        loop {
            match receiver.recv().await {
                Ok(change) => return Some((change, receiver)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    };
    unfold(receiver, next).filter(move |change| std::future::ready(covers(change))).boxed()
}
