//! The stores over a link.

use std::sync::Arc;
use std::time::Duration;

use aioq::broker::{Expect, Page};
use aioq::store::{
    Entry, JobRecord, JobStore, KvChange, KvStore, RecordCount, RecordFilter, Status, Stored, Watched,
};
use aioq::{JobId, Result, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::link::Link;
use super::{Broken, Fact};

pub(super) struct FaultyJobs {
    pub(super) link: Link,
    pub(super) inner: Arc<dyn JobStore>,
}

#[async_trait]
impl JobStore for FaultyJobs {
    async fn startup(&self) -> Result<()> {
        self.inner.startup().await
    }

    /// Others use it.
    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }

    async fn get(&self, id: &JobId) -> Result<Option<Stored>> {
        if let Some(doubted) = self.link.doubted(id) {
            return Ok(doubted.record);
        }
        let stored = self.link.ask("get", id.as_str(), self.inner.get(id)).await?;
        self.link.saw(id, |doubted| doubted.record.clone_from(&stored));
        Ok(stored)
    }

    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let expect = match self.link.faults.breaks(Broken::Expectations) {
            true => Expect::Any,
            false => expect,
        };
        if self.link.faults.breaks(Broken::Records) {
            return Ok(1);
        }
        if record.is_removed()
            && let Expect::Revision(revision) = expect
            && self.link.faults.breaks(Broken::Removals)
        {
            let removed = Stored::new(JobRecord::clone(&record), revision);
            self.remove(&[removed]).await.remove(0)?;
            return Ok(revision);
        }
        let act = || {
            let (link, inner, record) = (self.link.clone(), Arc::clone(&self.inner), Arc::clone(&record));
            async move {
                let revision = inner.put(Arc::clone(&record), expect, ttl).await?;
                link.note(Fact::Put(record, revision));
                Ok(revision)
            }
        };
        self.link.tell("put", record.id.as_str(), act).await
    }

    async fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<Stored>> {
        self.link.ask("list", "records", self.inner.list(filter, page)).await
    }

    async fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>> {
        self.link.ask("counts", "records", self.inner.counts(queues)).await
    }

    async fn remove(&self, records: &[Stored]) -> Vec<Result<bool>> {
        let mut fates = Vec::new();
        for record in records {
            let act = || {
                let (link, inner, records) = (self.link.clone(), Arc::clone(&self.inner), [record.clone()]);
                async move {
                    let removed = inner.remove(&records).await.remove(0)?;
                    if removed {
                        link.note(Fact::Removed(records[0].record.id.clone()));
                    }
                    Ok(removed)
                }
            };
            fates.push(self.link.tell("remove", record.record.id.as_str(), act).await);
        }
        fates
    }

    async fn trim(&self, status: Status, keep: u64, before: Option<Timestamp>) -> Result<u64> {
        self.link.ask("trim", status.as_str(), self.inner.trim(status, keep, before)).await
    }

    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>> {
        let stream = self.link.ask("watch", "records", self.inner.watch(watched)).await?;
        Ok(self.link.stream(stream))
    }
}

pub(super) struct FaultyKv {
    pub(super) link: Link,
    pub(super) inner: Arc<dyn KvStore>,
}

#[async_trait]
impl KvStore for FaultyKv {
    async fn startup(&self) -> Result<()> {
        self.inner.startup().await
    }

    /// Others use it.
    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        if kind(key) == "schedule" && self.link.faults.breaks(Broken::Fences) {
            return Ok(None);
        }
        self.link.ask("get", kind(key), self.inner.get(key)).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let says = |text: &[u8]| value.windows(text.len()).any(|part| part == text);
        if let Expect::Revision(revision) = expect
            && says(b"contested")
            && (self.link.faults.breaks(Broken::Marks) || self.link.doubts())
        {
            return Ok(revision);
        }
        let is_free = self.link.faults.breaks(Broken::Entries)
            || (says(b"freed") && self.link.faults.breaks(Broken::Freeing));
        let expect = if is_free { Expect::Any } else { expect };
        let act = || {
            let (link, inner) = (self.link.clone(), Arc::clone(&self.inner));
            let (key, value) = (key.to_owned(), value.clone());
            async move {
                let revision = inner.put(&key, value.clone(), expect, ttl).await?;
                if kind(&key) == "unique" {
                    link.note(Fact::Wrote(key, value));
                }
                Ok(revision)
            }
        };
        self.link.tell("put", kind(key), act).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool> {
        let act = || {
            let (inner, key) = (Arc::clone(&self.inner), key.to_owned());
            async move { inner.delete(&key, expect).await }
        };
        self.link.tell("delete", kind(key), act).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>> {
        self.link.ask("scan", kind(prefix), self.inner.scan(prefix)).await
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, KvChange>> {
        let stream = self.link.ask("watch", kind(prefix), self.inner.watch(prefix)).await?;
        Ok(self.link.stream(stream))
    }
}

/// A key without what is drawn at random: journals of one seed are the same.
fn kind(key: &str) -> &str {
    key.split('.').next().unwrap_or(key)
}
