//! The backend of one actor: requests about keys, records and messages wait at the desk.

use std::sync::Arc;
use std::time::Duration;

use aioq::broker::{
    Broker, BrokerInfo, Delivery, Demand, Finding, Kicked, Listener, QueueDepth, Queued, QueuedFilter,
    Receipt, Replaced, Subscription,
};
use aioq::message::Envelope;
use aioq::store::{
    Entry, Expect, JobRecord, JobStore, KvChange, KvStore, Page, RecordCount, RecordFilter, Status, Stored,
    Watched,
};
use aioq::{Backend, JobId, Result, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::desk::{Actor, Desk};

/// Prefix of the keys that wait at the desk. All others pass.
const UNIQUE: &str = "unique.";

/// The way of an actor to a backend.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) desk: Desk,
    pub(crate) actor: Actor,
    /// True if a write that marks an entry as contested is confirmed and not made.
    pub(crate) loses_marks: bool,
}

impl Link {
    /// The backend as this actor sees it.
    pub(crate) fn over(&self, backend: &Backend) -> Backend {
        let broker = LinkedBroker { link: self.clone(), inner: Arc::clone(backend.broker()) };
        let jobs = LinkedJobs { link: self.clone(), inner: Arc::clone(backend.jobs().unwrap()) };
        let kv = LinkedKv { link: self.clone(), inner: Arc::clone(backend.kv()) };
        Backend::new(broker, jobs, kv)
    }
}

/// What an entry says, without its times.
pub(crate) fn entry(desk: &Desk, found: Option<&Entry>) -> String {
    let Some(found) = found else { return "none".to_owned() };
    let says = |text: &[u8]| found.value.windows(text.len()).any(|part| part == text);
    let job = (0..9).map(|number| format!("job-{number}")).find(|id| says(id.as_bytes()));
    let (contested, freed) = (is_marked(&found.value), says(b"freed"));
    let revision = desk.number(&found.key, found.revision);
    format!(
        "{} at {revision}{}{}",
        job.unwrap_or_default(),
        if contested { ", contested" } else { "" },
        if freed { ", freed" } else { "" }
    )
}

fn is_marked(value: &[u8]) -> bool {
    value.windows(9).any(|part| part == b"contested")
}

pub(crate) fn record(desk: &Desk, id: &JobId, found: Option<&Stored>) -> String {
    let Some(found) = found else { return "none".to_owned() };
    let revision = desk.number(&format!("record of {id}"), found.revision);
    format!("{} at {revision}", found.record.status)
}

pub(crate) fn message(desk: &Desk, id: &JobId, found: Option<&Queued>) -> String {
    let Some(found) = found else { return "none".to_owned() };
    format!("message {}", desk.number(&format!("message of {id}"), found.revision))
}

struct LinkedKv {
    link: Link,
    inner: Arc<dyn KvStore>,
}

#[async_trait]
impl KvStore for LinkedKv {
    async fn startup(&self) -> Result<()> {
        self.inner.startup().await
    }

    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        if !key.starts_with(UNIQUE) {
            return self.inner.get(key).await;
        }
        let Link { desk, actor, .. } = &self.link;
        let learns = |desk: &Desk, found: &Option<Entry>| entry(desk, found.as_ref());
        desk.pass(*actor, "get entry".to_owned(), self.inner.get(key), learns).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        if !key.starts_with(UNIQUE) {
            return self.inner.put(key, value, expect, ttl).await;
        }
        let Link { desk, actor, loses_marks } = &self.link;
        let written = Entry::new(key, value.clone(), 0);
        let what = format!("put entry {}", entry(&Desk::default(), Some(&written)));
        let request = async {
            if let (true, true, Expect::Revision(revision)) = (*loses_marks, is_marked(&value), expect) {
                return Ok(revision);
            }
            self.inner.put(key, value, expect, ttl).await
        };
        desk.pass(*actor, what, request, |desk, revision| desk.number(key, *revision).to_string()).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool> {
        if !key.starts_with(UNIQUE) {
            return self.inner.delete(key, expect).await;
        }
        let Link { desk, actor, .. } = &self.link;
        desk.pass(*actor, "delete entry".to_owned(), self.inner.delete(key, expect), |_, gone| {
            gone.to_string()
        })
        .await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>> {
        self.inner.scan(prefix).await
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, KvChange>> {
        self.inner.watch(prefix).await
    }
}

struct LinkedJobs {
    link: Link,
    inner: Arc<dyn JobStore>,
}

#[async_trait]
impl JobStore for LinkedJobs {
    async fn startup(&self) -> Result<()> {
        self.inner.startup().await
    }

    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }

    async fn get(&self, id: &JobId) -> Result<Option<Stored>> {
        let Link { desk, actor, .. } = &self.link;
        let learns = |desk: &Desk, found: &Option<Stored>| record(desk, id, found.as_ref());
        desk.pass(*actor, format!("get record of {id}"), self.inner.get(id), learns).await
    }

    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let Link { desk, actor, .. } = &self.link;
        let what = format!("put {} is {}", record.id, record.status);
        let key = format!("record of {}", record.id);
        let learns = |desk: &Desk, revision: &u64| desk.number(&key, *revision).to_string();
        desk.pass(*actor, what, self.inner.put(record, expect, ttl), learns).await
    }

    async fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<Stored>> {
        self.inner.list(filter, page).await
    }

    async fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>> {
        self.inner.counts(queues).await
    }

    async fn remove(&self, records: &[Stored]) -> Vec<Result<bool>> {
        self.inner.remove(records).await
    }

    async fn trim(&self, status: Status, keep: u64, before: Option<Timestamp>) -> Result<u64> {
        self.inner.trim(status, keep, before).await
    }

    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>> {
        self.inner.watch(watched).await
    }
}

struct LinkedBroker {
    link: Link,
    inner: Arc<dyn Broker>,
}

#[async_trait]
impl Broker for LinkedBroker {
    fn info(&self) -> BrokerInfo {
        self.inner.info()
    }

    async fn startup(&self) -> Result<()> {
        self.inner.startup().await
    }

    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }

    async fn kick(&self, envelope: Envelope, expect: Expect) -> Result<Kicked> {
        let Link { desk, actor, .. } = &self.link;
        let what = format!("kick {}", envelope.id);
        desk.pass(*actor, what, self.inner.kick(envelope, expect), |_, kicked| format!("{kicked:?}")).await
    }

    async fn kick_all(&self, envelopes: Vec<(Envelope, Expect)>) -> Vec<Result<Kicked>> {
        self.inner.kick_all(envelopes).await
    }

    async fn listen(&self, subscription: Subscription) -> Result<Box<dyn Listener>> {
        let inner = self.inner.listen(subscription).await?;
        Ok(Box::new(LinkedListener { link: self.link.clone(), inner }))
    }

    async fn find(&self, id: &JobId) -> Result<Option<Queued>> {
        let Link { desk, actor, .. } = &self.link;
        let learns = |desk: &Desk, found: &Option<Queued>| message(desk, id, found.as_ref());
        desk.pass(*actor, format!("find {id}"), self.inner.find(id), learns).await
    }

    async fn list(&self, filter: &QueuedFilter, page: Page) -> Result<Vec<Queued>> {
        self.inner.list(filter, page).await
    }

    async fn remove(&self, messages: &[Queued]) -> Vec<Result<bool>> {
        let Link { desk, actor, .. } = &self.link;
        let request = async { Ok(self.inner.remove(messages).await) };
        let removed = desk.pass(*actor, "remove messages".to_owned(), request, |_, gone| format!("{gone:?}"));
        removed.await.unwrap_or_default()
    }

    async fn queues(&self) -> Result<Vec<String>> {
        self.inner.queues().await
    }

    async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        self.inner.depths(queues).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Queued>> {
        self.inner.watch().await
    }

    async fn examine(&self) -> Result<Vec<Finding>> {
        self.inner.examine().await
    }
}

struct LinkedListener {
    link: Link,
    inner: Box<dyn Listener>,
}

#[async_trait]
impl Listener for LinkedListener {
    async fn next(&mut self, demand: Demand) -> Result<Vec<Delivery>> {
        let mut deliveries = self.inner.next(demand).await?;
        for delivery in &mut deliveries {
            self.link.desk.learn(self.link.actor, &format!("{} is delivered", delivery.id));
            let (link, inner) = (self.link.clone(), Arc::clone(&delivery.receipt));
            delivery.receipt = Arc::new(LinkedReceipt { link, inner, id: delivery.id.clone() });
        }
        Ok(deliveries)
    }

    async fn stop(&mut self) -> Result<()> {
        self.inner.stop().await
    }
}

struct LinkedReceipt {
    link: Link,
    inner: Arc<dyn Receipt>,
    id: JobId,
}

#[async_trait]
impl Receipt for LinkedReceipt {
    fn ack_wait(&self) -> Duration {
        self.inner.ack_wait()
    }

    async fn ack(&self) -> Result<()> {
        let Link { desk, actor, .. } = &self.link;
        desk.pass(*actor, format!("ack {}", self.id), self.inner.ack(), |_, ()| String::new()).await
    }

    async fn release(&self, delay: Duration) -> Result<()> {
        self.inner.release(delay).await
    }

    async fn extend(&self) -> Result<()> {
        self.inner.extend().await
    }

    async fn replace(&self, next: Envelope) -> Result<Replaced> {
        let Link { desk, actor, .. } = &self.link;
        let what = format!("replace {}", self.id);
        desk.pass(*actor, what, self.inner.replace(next), |_, _| String::new()).await
    }

    async fn is_newest(&self) -> Result<bool> {
        self.inner.is_newest().await
    }

    fn ready_since(&self) -> Option<Timestamp> {
        self.inner.ready_since()
    }
}
