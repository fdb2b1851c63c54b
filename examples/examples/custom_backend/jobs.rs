//! Records of jobs: entries whose values are encoded records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aioq::store::{
    Entry, Expect, JobRecord, JobStore, Order, Page, RecordCount, RecordFilter, Status, Stored, Watched,
};
use aioq::{JobId, Result, Timestamp};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use crate::file::{Access, Done, File, fates};
use crate::kv::Entries;
use crate::page::cut;
use crate::watch::Watchers;

const RECORDS: Entries = Entries(TableDefinition::new("records"));

/// [`JobStore`] on redb.
pub struct RedbJobs {
    access: Access,
    watchers: Arc<Watchers<Arc<JobRecord>>>,
}

impl RedbJobs {
    pub fn new(file: Arc<File>) -> Self {
        Self { access: Access::new(file), watchers: Arc::default() }
    }

    /// All records that match a filter.
    async fn all(&self, filter: RecordFilter) -> Result<Vec<Stored>> {
        let look =
            move |transaction: &redb::ReadTransaction| all(&transaction.open_table(RECORDS.0)?, &filter);
        self.access.read(look).await
    }
}

/// Reads all records to find the matching ones. For many records, keep a second table by queue,
/// status and revision.
fn all(
    table: &impl ReadableTable<&'static str, (u64, i64, &'static [u8])>,
    filter: &RecordFilter,
) -> Done<Vec<Stored>> {
    let stored = Entries::scan(table, "")?.into_iter().map(readable);
    Ok(stored.filter(|stored| lets_through(filter, &stored.record)).collect())
}

/// An unreadable record is shown too: only its key is known here.
fn readable(entry: Entry) -> Stored {
    let unreadable = |_| JobRecord::unreadable(entry.key.as_str().into(), "", Status::Unknown);
    Stored::new(JobRecord::from_bytes(&entry.value).unwrap_or_else(unreadable), entry.revision)
}

fn lets_through(filter: &RecordFilter, record: &JobRecord) -> bool {
    filter.queue.as_ref().is_none_or(|queue| *queue == record.queue)
        && filter.status.is_none_or(|status| status == record.status)
}

/// The records of a status, without the newest ones, and without those of jobs that ended later.
fn surplus(
    transaction: &WriteTransaction,
    status: Status,
    keep: u64,
    before: Option<Timestamp>,
) -> Done<Vec<Stored>> {
    let filter = RecordFilter::new().status(status);
    let records = all(&transaction.open_table(RECORDS.0)?, &filter)?;
    let limit = records.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    let oldest = Page { order: Order::OldestFirst, after: None, limit };
    let mut surplus = cut(records, oldest, |stored| stored.revision);
    if let Some(before) = before {
        surplus.retain(|stored| stored.record.finished_at.is_none_or(|end| end < before));
    }
    Ok(surplus)
}

#[async_trait]
impl JobStore for RedbJobs {
    async fn startup(&self) -> Result<()> {
        self.access.startup(|transaction| RECORDS.sweep(transaction)).await
    }

    async fn shutdown(&self) -> Result<()> {
        self.access.shutdown();
        self.watchers.end();
        Ok(())
    }

    async fn get(&self, id: &JobId) -> Result<Option<Stored>> {
        let id = id.clone();
        let get = move |transaction: &redb::ReadTransaction| {
            Entries::get(&transaction.open_table(RECORDS.0)?, id.as_str())
        };
        let Some(entry) = self.access.read(get).await? else { return Ok(None) };
        Ok(Some(readable(entry)))
    }

    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let (told, watchers) = (record.clone(), self.watchers.clone());
        let write = move |transaction: &_| {
            RECORDS.put(transaction, record.id.as_str(), record.to_bytes(), expect, ttl)
        };
        let entry = self.access.write(write, move |_| watchers.tell(told)).await?;
        Ok(entry.revision)
    }

    async fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<Stored>> {
        Ok(cut(self.all(filter.clone()).await?, page, |stored| stored.revision))
    }

    async fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>> {
        let mut counts = BTreeMap::<_, u64>::new();
        for Stored { record, .. } in self.all(RecordFilter::new()).await? {
            *counts.entry((String::from(record.queue), record.status)).or_default() += 1;
        }
        let asked = counts.into_iter().filter(|((queue, _), _)| queues.contains(queue));
        Ok(asked.map(|((queue, status), count)| RecordCount { queue, status, count }).collect())
    }

    /// One transaction for all.
    async fn remove(&self, records: &[Stored]) -> Vec<Result<bool>> {
        let wanted: Vec<_> =
            records.iter().map(|stored| (stored.record.id.clone(), stored.revision)).collect();
        let remove = move |transaction: &WriteTransaction| {
            let remove = |(id, revision): &(JobId, u64)| RECORDS.remove(transaction, id.as_str(), *revision);
            wanted.iter().map(|wanted| remove(wanted).map(Ok)).collect::<Done<Vec<_>>>()
        };
        fates(records.len(), self.access.write(remove, |_| {}).await)
    }

    async fn trim(&self, status: Status, keep: u64, before: Option<Timestamp>) -> Result<u64> {
        let trim = move |transaction: &WriteTransaction| {
            let surplus = surplus(transaction, status, keep, before)?;
            for stored in &surplus {
                RECORDS.remove(transaction, stored.record.id.as_str(), stored.revision)?;
            }
            Ok(surplus.len() as u64)
        };
        self.access.write(trim, |_| {}).await
    }

    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>> {
        self.access.started()?;
        let records = self.watchers.watch(move |record| watched.covers(record));
        Ok(records.map(Arc::unwrap_or_clone).boxed())
    }
}
