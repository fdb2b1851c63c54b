//! A job store that holds back one answer, so that a test decides what happens between a look and a
//! write, or that refuses to write the records of some jobs.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aioq::client::{KickHook, KickNext, Sent};
use aioq::store::{Expect, JobRecord, JobStore, Page, RecordCount, RecordFilter, Status, Stored, Watched};
use aioq::{Error, ErrorKind, JobId, Message, Result, Timestamp};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::sync::Semaphore;

/// Holds back what its client reads of a job after the next kick has begun. As a hook of that
/// client it sees the kick begin.
#[derive(Clone)]
pub struct HeldStore(Arc<Inner>);

struct Inner {
    store: Arc<dyn JobStore>,
    armed: AtomicBool,
    armed_before: AtomicBool,
    has_read: Semaphore,
    may_go_on: Semaphore,
    refused: Mutex<HashSet<JobId>>,
}

impl HeldStore {
    /// Over `store`.
    #[must_use]
    pub fn over(store: Arc<dyn JobStore>) -> Self {
        let (has_read, may_go_on) = (Semaphore::new(0), Semaphore::new(0));
        let (armed, armed_before) = (AtomicBool::new(false), AtomicBool::new(false));
        let refused = Mutex::default();
        Self(Arc::new(Inner { store, armed, armed_before, has_read, may_go_on, refused }))
    }

    /// Holds back the next answer, although nothing was kicked.
    pub fn hold_next(&self) {
        self.0.armed.store(true, Ordering::SeqCst);
    }

    /// Holds back the next question.
    pub fn hold_before_next(&self) {
        self.0.armed_before.store(true, Ordering::SeqCst);
    }

    /// Waits until an answer, or a question, is held back.
    pub async fn held(&self) {
        self.0.has_read.acquire().await.expect("never closed").forget();
    }

    /// From now on refuses to write or remove the record of a job.
    pub fn refuse(&self, id: impl Into<JobId>) {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(id.into());
    }

    /// Hands it out.
    pub fn let_go(&self) {
        self.0.may_go_on.add_permits(1);
    }
}

impl Inner {
    fn check(&self, id: &JobId) -> Result<()> {
        if self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(id) {
            Err(Error::new(ErrorKind::Permission, "this record may not be written"))
        } else {
            Ok(())
        }
    }

    async fn wait(&self) {
        self.has_read.add_permits(1);
        self.may_go_on.acquire().await.expect("never closed").forget();
    }
}

#[async_trait]
impl KickHook for HeldStore {
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Sent> {
        self.0.armed.store(true, Ordering::SeqCst);
        next.run(message).await
    }
}

#[async_trait]
impl JobStore for HeldStore {
    async fn startup(&self) -> Result<()> {
        self.0.store.startup().await
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.store.shutdown().await
    }

    async fn get(&self, id: &JobId) -> Result<Option<Stored>> {
        if self.0.armed_before.swap(false, Ordering::SeqCst) {
            self.0.wait().await;
        }
        let stored = self.0.store.get(id).await?;
        if self.0.armed.swap(false, Ordering::SeqCst) {
            self.0.wait().await;
        }
        Ok(stored)
    }

    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        self.0.check(&record.id)?;
        self.0.store.put(record, expect, ttl).await
    }

    async fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<Stored>> {
        self.0.store.list(filter, page).await
    }

    async fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>> {
        self.0.store.counts(queues).await
    }

    async fn remove(&self, records: &[Stored]) -> Vec<Result<bool>> {
        let mut removed = Vec::with_capacity(records.len());
        for stored in records {
            removed.push(match self.0.check(&stored.record.id) {
                Ok(()) => self.0.store.remove(std::slice::from_ref(stored)).await.remove(0),
                Err(error) => Err(error),
            });
        }
        removed
    }

    async fn trim(&self, status: Status, keep: u64, before: Option<Timestamp>) -> Result<u64> {
        self.0.store.trim(status, keep, before).await
    }

    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>> {
        self.0.store.watch(watched).await
    }
}
