//! What became of jobs: entries whose values are encoded records.

use std::sync::Arc;
use std::time::Duration;

use aioq::store::{Expect, JobRecord, JobStore, Stored, Watched};
use aioq::{JobId, Result};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use redb::TableDefinition;
use tokio::sync::broadcast;

use crate::file::{Access, File};
use crate::kv::{Entries, stream};

const RECORDS: Entries = Entries(TableDefinition::new("records"));
const BACKLOG: usize = 1024;

/// [`JobStore`] on redb.
pub struct RedbJobs {
    access: Access,
    changes: broadcast::Sender<Arc<JobRecord>>,
}

impl RedbJobs {
    pub fn new(file: Arc<File>) -> Self {
        Self { access: Access::new(file), changes: broadcast::Sender::new(BACKLOG) }
    }
}

#[async_trait]
impl JobStore for RedbJobs {
    async fn startup(&self) -> Result<()> {
        self.access.startup(|transaction| RECORDS.sweep(transaction)).await
    }

    async fn shutdown(&self) -> Result<()> {
        self.access.shutdown();
        Ok(())
    }

    async fn get(&self, id: &JobId) -> Result<Option<Stored>> {
        let id = id.clone();
        let get = move |transaction: &redb::ReadTransaction| {
            Entries::get(&transaction.open_table(RECORDS.0)?, id.as_str())
        };
        let Some(entry) = self.access.read(get).await? else { return Ok(None) };
        Ok(Some(Stored::new(JobRecord::from_bytes(&entry.value)?, entry.revision)))
    }

    async fn put(&self, record: JobRecord, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let (record, changes) = (Arc::new(record), self.changes.clone());
        let told = record.clone();
        let write = move |transaction: &_| {
            RECORDS.put(transaction, record.id.as_str(), record.to_bytes(), expect, ttl)
        };
        let entry = self.access.write(write, move |_| _ = changes.send(told)).await?;
        Ok(entry.revision)
    }

    async fn remove(&self, id: &JobId) -> Result<bool> {
        let id = id.clone();
        let remove = move |transaction: &_| RECORDS.delete(transaction, id.as_str(), Expect::Any);
        self.access.write(remove, |_| {}).await
    }

    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>> {
        self.access.started()?;
        let records = stream(self.changes.subscribe(), move |record| watched.covers(record));
        Ok(Box::pin(futures_util::StreamExt::map(records, Arc::unwrap_or_clone)))
    }
}
