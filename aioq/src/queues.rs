//! Listing, pausing, resuming and purging queues: [`Queues`].

mod purge;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{try_join, try_join_all};
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::broker::{Page, QueueDepth, Queued, QueuedFilter, Waiting};
use crate::client::Client;
use crate::error::Result;
use crate::message::{Message, check_queue_name};
use crate::store::{Counts, Expect, RecordCount, Status};
use crate::time::Timestamp;

/// The state of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Name of the queue.
    pub queue: String,
    /// Number of jobs that wait for a worker.
    pub depth: u64,
    /// Number of jobs that a worker holds and has not recorded as running: it is about to start
    /// them, has just started them, or has died. The jobs of a dead worker come back when their
    /// lease ends. They count as pending.
    pub held: u64,
    /// Due time of the job that has waited longest; `None` if no job waits.
    pub oldest: Option<Timestamp>,
    /// True if the queue is paused: workers take no jobs of it.
    pub paused: bool,
    /// Number of its jobs, by status.
    pub counts: Counts,
}

impl QueueInfo {
    /// Age of the oldest waiting job, counted from its due time.
    #[must_use]
    pub fn oldest_age(&self) -> Option<Duration> {
        self.oldest.map(|since| Timestamp::now().since(since))
    }
}

impl Serialize for QueueInfo {
    /// The fields of `queues --json`. Their names never change.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("QueueInfo", 6)?;
        out.serialize_field("queue", &self.queue)?;
        out.serialize_field("depth", &self.depth)?;
        out.serialize_field("held", &self.held)?;
        out.serialize_field("oldest_age_seconds", &self.oldest_age().map(|age| age.as_secs_f64()))?;
        out.serialize_field("paused", &self.paused)?;
        out.serialize_field("counts", &self.counts)?;
        out.end()
    }
}

/// Lists, pauses, resumes and purges queues.
///
/// ```
/// use aioq::store::Status;
/// use aioq::{Client, Memory};
///
/// #[aioq::task(queue = "sums")]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let client = Client::connect(Memory::new()).await?;
/// client.kiq(add(1, 2)).await?;
/// client.kiq(add(3, 4).delay("1h")).await?;
///
/// let queues = client.queues().list().await?;
/// assert_eq!((queues[0].queue.as_str(), queues[0].depth), ("sums", 1));
/// assert_eq!(queues[0].counts[&Status::Scheduled], 1);
///
/// assert_eq!(client.queues().purge("sums").await?.done, 2);
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Queues {
    client: Client,
}

impl Client {
    /// Lists, pauses, resumes and purges queues.
    #[must_use]
    pub fn queues(&self) -> Queues {
        Queues { client: self.clone() }
    }
}

impl Queues {
    /// Number of messages in each of these queues.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        self.client.backend().broker().depths(queues).await
    }

    /// All recently used queues with their state, by name.
    ///
    /// A job counts as pending during the first half second of its run. An expired job counts as
    /// pending until a worker receives it, if a job before it in its queue has not expired: only
    /// the front of each queue is checked, at most 10,000 messages. A running job of a task with
    /// `ack = "on_receive"` is not in the broker any more, and is subtracted from `pending`.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn list(&self) -> Result<Vec<QueueInfo>> {
        let backend = self.client.backend();
        let paused = self.paused().await?;
        let mut names: BTreeSet<String> = backend.broker().queues().await?.into_iter().collect();
        names.extend(paused.iter().cloned());
        let names: Vec<String> = names.into_iter().collect();
        let depths = backend.broker().depths(&names);
        let counts = async {
            match backend.jobs() {
                Some(jobs) => jobs.counts(&names).await,
                None => Ok(Vec::new()),
            }
        };
        let (depths, records) = try_join(depths, counts).await?;
        let expired = try_join_all(depths.iter().map(|depth| self.expired_at_front(depth))).await?;
        let mut by_queue: BTreeMap<String, Counts> = BTreeMap::new();
        for RecordCount { queue, status, count } in records {
            by_queue.entry(queue).or_default().insert(status, count);
        }
        let info = |(mut depth, expired): (QueueDepth, u64)| {
            depth.ready = depth.ready.saturating_sub(expired);
            let mut counts = counts_of(&depth, by_queue.remove(&depth.queue).unwrap_or_default());
            if expired > 0 {
                *counts.entry(Status::Expired).or_default() += expired;
            }
            let pending = counts.get(&Status::Pending).copied().unwrap_or(0);
            QueueInfo {
                depth: depth.ready.min(pending),
                held: pending.saturating_sub(depth.ready),
                oldest: depth.oldest,
                paused: paused.contains(&depth.queue),
                queue: depth.queue,
                counts,
            }
        };
        Ok(depths.into_iter().zip(expired).map(info).collect())
    }

    /// Number of messages at the front of a queue whose jobs expired while they waited.
    async fn expired_at_front(&self, depth: &QueueDepth) -> Result<u64> {
        let filter = QueuedFilter::new().queue(&depth.queue).waiting(Waiting::Ready);
        let (now, mut expired, mut page) = (self.client.now(), 0, Page::oldest(1));
        // In most queues the first message has not expired: then one read is enough.
        while depth.ready > 0 && expired < MAX_EXPIRED {
            let messages = self.client.backend().broker().list(&filter, page).await?;
            let Some(last) = messages.last() else { break };
            let of_these = messages.iter().filter(|queued| has_expired(queued, now)).count();
            expired += of_these as u64;
            if of_these < messages.len() || messages.len() < page.limit {
                break;
            }
            page = Page::oldest(EXPIRED_PAGE).after(last.position);
        }
        Ok(expired)
    }

    /// Number of jobs of each queue, by status. Zeros are left out.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn stats(&self) -> Result<BTreeMap<String, Counts>> {
        let queues = self.list().await?.into_iter().map(|info| (info.queue, info.counts));
        Ok(queues.filter(|(_, counts)| !counts.is_empty()).collect())
    }

    /// Pauses a queue for all workers: they take no more jobs of it, and running jobs finish. Kicks
    /// and delays go on. The pause lasts until [`resume`](Self::resume), also across restarts.
    /// Idempotent.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn pause(&self, queue: &str) -> Result<()> {
        check_queue_name(queue)?;
        self.client.backend().kv().put(&key(queue), Bytes::new(), Expect::Any, None).await.map(drop)
    }

    /// Ends the pause of a queue: workers take its jobs again at once. True if the queue was
    /// paused.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn resume(&self, queue: &str) -> Result<bool> {
        check_queue_name(queue)?;
        self.client.backend().kv().delete(&key(queue), Expect::Any).await
    }

    /// Names of the paused queues.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn paused(&self) -> Result<BTreeSet<String>> {
        let entries = self.client.backend().kv().scan(PAUSES).await?;
        Ok(entries.iter().filter_map(|entry| queue_of(&entry.key)).collect())
    }
}

/// Largest number of expired jobs to count in a queue.
const MAX_EXPIRED: u64 = 10_000;

/// Number of messages to read at once.
const EXPIRED_PAGE: usize = 500;

fn has_expired(queued: &Queued, now: Timestamp) -> bool {
    Message::open(&queued.body).is_ok_and(|message| message.has_expired_unstarted(now))
}

/// Number of jobs of a queue, by status. Waiting jobs are counted by their messages, so only
/// records of running and ended jobs count.
fn counts_of(depth: &QueueDepth, records: Counts) -> Counts {
    let mut counts: Counts = records
        .into_iter()
        .filter(|(status, _)| !matches!(status, Status::Pending | Status::Scheduled | Status::Retrying))
        .collect();
    let running = counts.get(&Status::Running).copied().unwrap_or(0);
    counts.insert(Status::Pending, (depth.ready + depth.held).saturating_sub(running));
    counts.insert(Status::Scheduled, depth.scheduled);
    counts.insert(Status::Retrying, depth.retrying);
    counts.retain(|_, count| *count > 0);
    counts
}

/// Prefix of the keys of paused queues; the name of the queue follows.
pub(crate) const PAUSES: &str = "pause.";

fn key(queue: &str) -> String {
    format!("{PAUSES}{queue}")
}

/// The queue of a key.
pub(crate) fn queue_of(key: &str) -> Option<String> {
    key.strip_prefix(PAUSES).map(str::to_owned)
}
