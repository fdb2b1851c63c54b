//! Small shared state by key. Jobs keep their records in the same way, so [`Entries`] serves both.

use std::sync::Arc;
use std::time::Duration;

use aioq::store::{Entry, Expect, KvChange, KvStore};
use aioq::{Error, ErrorKind, Result, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use crate::file::{Access, Done, File, count};
use crate::watch::Watchers;

/// By key: the revision, the end in microseconds since 1970, the value.
type EntryTable = TableDefinition<'static, &'static str, (u64, i64, &'static [u8])>;

const KEYS: EntryTable = TableDefinition::new("keys");
const FOREVER: i64 = i64::MAX;

/// Entries with revisions and ends.
#[derive(Clone, Copy)]
pub struct Entries(pub EntryTable);

impl Entries {
    /// The entry of `key`. An entry whose TTL has passed is not there, even if it has not been
    /// swept yet.
    pub fn get(
        table: &impl ReadableTable<&'static str, (u64, i64, &'static [u8])>,
        key: &str,
    ) -> Done<Option<Entry>> {
        let found = table.get(key)?;
        Ok(found.and_then(|found| live(key, found.value())))
    }

    /// All entries whose key has this prefix, in the order of the keys.
    pub fn scan(
        table: &impl ReadableTable<&'static str, (u64, i64, &'static [u8])>,
        prefix: &str,
    ) -> Done<Vec<Entry>> {
        let mut entries = Vec::new();
        for row in table.range(prefix..)? {
            let (key, value) = row?;
            if !key.value().starts_with(prefix) {
                break;
            }
            entries.extend(live(key.value(), value.value()));
        }
        Ok(entries)
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

    /// Removes an entry if `expect` holds. True if it was there.
    pub fn delete(self, transaction: &WriteTransaction, key: &str, expect: Expect) -> Done<bool> {
        let mut table = transaction.open_table(self.0)?;
        let found = Self::get(&table, key)?;
        let there = found.is_some();
        check(key, found, expect)?;
        table.remove(key)?;
        Ok(there)
    }

    /// Removes an entry of that revision. True if it was there.
    pub fn remove(self, transaction: &WriteTransaction, key: &str, revision: u64) -> Done<bool> {
        let mut table = transaction.open_table(self.0)?;
        let same = Self::get(&table, key)?.is_some_and(|entry| entry.revision == revision);
        if same {
            table.remove(key)?;
        }
        Ok(same)
    }

    /// Makes the table if there is none, and removes expired entries.
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
    watchers: Arc<Watchers<KvChange>>,
}

impl RedbKv {
    pub fn new(file: Arc<File>) -> Self {
        Self { access: Access::new(file), watchers: Arc::default() }
    }
}

#[async_trait]
impl KvStore for RedbKv {
    async fn startup(&self) -> Result<()> {
        self.access.startup(|transaction| Entries(KEYS).sweep(transaction)).await
    }

    async fn shutdown(&self) -> Result<()> {
        self.access.shutdown();
        self.watchers.end();
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        let key = key.to_owned();
        self.access.read(move |transaction| Entries::get(&transaction.open_table(KEYS)?, &key)).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let (key, watchers) = (key.to_owned(), self.watchers.clone());
        let write = move |transaction: &_| Entries(KEYS).put(transaction, &key, value, expect, ttl);
        let tell = move |entry: &Entry| watchers.tell(KvChange::Put(entry.clone()));
        Ok(self.access.write(write, tell).await?.revision)
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool> {
        let (key, watchers) = (key.to_owned(), self.watchers.clone());
        let deleted = KvChange::Deleted(key.clone());
        let delete = move |transaction: &_| Entries(KEYS).delete(transaction, &key, expect);
        let tell = move |there: &bool| {
            if *there {
                watchers.tell(deleted);
            }
        };
        self.access.write(delete, tell).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>> {
        let prefix = prefix.to_owned();
        let scan =
            move |transaction: &redb::ReadTransaction| Entries::scan(&transaction.open_table(KEYS)?, &prefix);
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
        Ok(self.watchers.watch(covers))
    }
}
