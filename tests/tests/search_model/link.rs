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
use aioq::{Backend, JobId, Message, Result, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::desk::{Actor, Desk};

/// Prefixes of the keys that wait at the desk. All others pass.
const UNIQUE: &str = "unique.";
const EDGES: &str = "after.";
const SCHEDULES: &str = "schedule.";

/// The way of an actor to a backend.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) desk: Desk,
    pub(crate) actor: Actor,
    pub(crate) mistake: Option<Mistake>,
}

/// A mistake on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A write that marks a unique entry as contested is confirmed and not made.
    MarkLost,
    /// A write that announces the release of a job is confirmed and not made.
    ReleaseLost,
    /// A worker that asks for the schedule of a tick is told that there is none.
    TickNotAsked,
    /// The message of a rerun by hand does not say that other jobs may wait for its end.
    RerunNotAwaited,
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

/// What edges say.
pub(crate) fn edges(desk: &Desk, found: &[Entry]) -> String {
    let says = |found: &Entry| format!("{} {}", found.key, edge(desk, found));
    found.iter().map(says).collect::<Vec<_>>().join("; ")
}

fn edge(desk: &Desk, found: &Entry) -> String {
    if found.value.is_empty() {
        return "removed".to_owned();
    }
    let says = |text: &[u8]| found.value.windows(text.len()).any(|part| part == text);
    let state = ["waiting", "done", "bad"].into_iter().find(|state| says(state.as_bytes()));
    let baton = if says(b"baton\xc3") { ", baton" } else { "" };
    let revision = desk.number(&found.key, found.revision);
    format!("{} at {revision}{baton}", state.unwrap_or("unreadable"))
}

/// What the entry of a schedule says, without its times.
pub(crate) fn schedule(desk: &Desk, found: Option<&Entry>) -> String {
    let Some(found) = found else { return "none".to_owned() };
    let says = |text: &[u8]| found.value.windows(text.len()).any(|part| part == text);
    let state = if says(b"ended_at") { "settled" } else { "unsettled" };
    let paused = if says(b"paused_at") { ", paused" } else { "" };
    format!("{state} at {}{paused}", desk.number(&found.key, found.revision))
}

/// What an entry or an edge says.
fn said(desk: &Desk, found: Option<&Entry>) -> String {
    match found {
        Some(found) if found.key.starts_with(EDGES) => edge(desk, found),
        Some(found) if found.key.starts_with(SCHEDULES) => schedule(desk, Some(found)),
        found => entry(desk, found),
    }
}

/// The name of a key that waits at the desk.
fn name(key: &str) -> Option<String> {
    if let Some(parent) = key.strip_prefix(EDGES) {
        return Some(format!("edge {parent}"));
    }
    (key.starts_with(UNIQUE) || key.starts_with(SCHEDULES)).then(|| "entry".to_owned())
}

/// The id of a job, without the time of its tick: it is another one in each run.
fn named(id: &JobId) -> &str {
    id.as_str().split('@').next().unwrap_or_default()
}

fn is_marked(value: &[u8]) -> bool {
    value.windows(9).any(|part| part == b"contested")
}

pub(crate) fn record(desk: &Desk, id: &JobId, found: Option<&Stored>) -> String {
    let Some(found) = found else { return "none".to_owned() };
    let revision = desk.number(&format!("record of {id}"), found.revision);
    let awaited = if found.record.awaited { ", awaited" } else { "" };
    format!("{} at {revision}{awaited}", found.record.status)
}

pub(crate) fn message(desk: &Desk, id: &JobId, found: Option<&Queued>) -> String {
    let Some(found) = found else { return "none".to_owned() };
    let number = desk.number(&format!("message of {id}"), found.revision);
    let message = Message::open(&found.body).unwrap();
    let base = message.supersedes.filter(|base| *base > 0);
    let base = base.map(|base| format!(" after {}", desk.number(&format!("record of {id}"), base)));
    let awaited = if message.ties.is_some_and(|ties| ties.awaited) { ", awaited" } else { "" };
    format!("message {number}{}{awaited}", base.unwrap_or_default())
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
        let Some(name) = name(key) else { return self.inner.get(key).await };
        let Link { desk, actor, mistake } = &self.link;
        if let (Some(Mistake::TickNotAsked), Actor::Worker(_)) = (mistake, actor) {
            return Ok(None);
        }
        let learns = |desk: &Desk, found: &Option<Entry>| said(desk, found.as_ref());
        desk.pass(*actor, format!("get {name}"), self.inner.get(key), learns).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let Some(name) = name(key) else { return self.inner.put(key, value, expect, ttl).await };
        let Link { desk, actor, mistake } = &self.link;
        let written = Entry::new(key, value.clone(), 0);
        let what = format!("put {name} {}", said(&Desk::default(), Some(&written)));
        let request = async {
            if let (Some(Mistake::MarkLost), true, Expect::Revision(revision)) =
                (*mistake, is_marked(&value), expect)
            {
                return Ok(revision);
            }
            self.inner.put(key, value, expect, ttl).await
        };
        desk.pass(*actor, what, request, |desk, revision| desk.number(key, *revision).to_string()).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool> {
        let Some(name) = name(key) else { return self.inner.delete(key, expect).await };
        let Link { desk, actor, .. } = &self.link;
        let request = self.inner.delete(key, expect);
        desk.pass(*actor, format!("delete {name}"), request, |_, gone| gone.to_string()).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>> {
        let Some(name) = name(prefix).filter(|_| prefix.starts_with(EDGES)) else {
            return self.inner.scan(prefix).await;
        };
        let Link { desk, actor, .. } = &self.link;
        let learns = |desk: &Desk, found: &Vec<Entry>| edges(desk, found);
        desk.pass(*actor, format!("scan {name}"), self.inner.scan(prefix), learns).await
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
        desk.pass(*actor, format!("get record of {}", named(id)), self.inner.get(id), learns).await
    }

    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let Link { desk, actor, mistake } = &self.link;
        let what = format!("put {} is {}", named(&record.id), record.status);
        let key = format!("record of {}", record.id);
        let learns = |desk: &Desk, revision: &u64| desk.number(&key, *revision).to_string();
        let request = async {
            let is_release = record.status == Status::Pending && record.message.is_some();
            if let (Some(Mistake::ReleaseLost), true, Expect::Revision(revision)) =
                (*mistake, is_release, expect)
            {
                return Ok(revision);
            }
            self.inner.put(record, expect, ttl).await
        };
        desk.pass(*actor, what, request, learns).await
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

    async fn kick(&self, mut envelope: Envelope, expect: Expect) -> Result<Kicked> {
        let Link { desk, actor, mistake } = &self.link;
        if let (Some(Mistake::RerunNotAwaited), Actor::Rerunner(_)) = (mistake, actor) {
            let mut message = Message::open(&envelope.body)?;
            message.ties.iter_mut().for_each(|ties| ties.awaited = false);
            envelope = message.seal();
        }
        let what = format!("kick {}", named(&envelope.id));
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
        desk.pass(*actor, format!("find {}", named(id)), self.inner.find(id), learns).await
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
            self.link.desk.learn(self.link.actor, &format!("{} is delivered", named(&delivery.id)));
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
        desk.pass(*actor, format!("ack {}", named(&self.id)), self.inner.ack(), |_, ()| String::new()).await
    }

    async fn release(&self, delay: Duration) -> Result<()> {
        self.inner.release(delay).await
    }

    async fn extend(&self) -> Result<()> {
        self.inner.extend().await
    }

    async fn replace(&self, next: Envelope) -> Result<Replaced> {
        let Link { desk, actor, .. } = &self.link;
        let what = format!("replace {}", named(&self.id));
        desk.pass(*actor, what, self.inner.replace(next), |_, _| String::new()).await
    }

    async fn is_newest(&self) -> Result<bool> {
        self.inner.is_newest().await
    }

    fn ready_since(&self) -> Option<Timestamp> {
        self.inner.ready_since()
    }
}
