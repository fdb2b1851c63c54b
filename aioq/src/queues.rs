//! Queues from the outside: [`Queues`] lists, pauses, resumes and empties them.

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

/// A queue as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueInfo {
    /// The queue.
    pub queue: String,
    /// Jobs that wait for a worker, now.
    pub depth: u64,
    /// Jobs that a worker holds and has not said to run: it will start them, has just done so, or has died. Those of a
    /// worker that died come back when their lease is over. They count as pending.
    pub held: u64,
    /// Since when the one that waits for longest could run; `None` if none waits.
    pub oldest: Option<Timestamp>,
    /// Whether workers leave it alone.
    pub paused: bool,
    /// Its jobs, by status.
    pub counts: Counts,
}

impl QueueInfo {
    /// How long the job that waits for longest could have run by now.
    #[must_use]
    pub fn oldest_age(&self) -> Option<Duration> {
        self.oldest.map(|since| Timestamp::now().since(since))
    }
}

impl Serialize for QueueInfo {
    /// The fields as `queues --json` prints them; the same names for ever.
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

/// Looks at queues, pauses, resumes and empties them.
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
    /// How much is in each of these queues.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        self.client.backend().broker().depths(queues).await
    }

    /// All queues that were used of late, in the order of their names, with what is in them.
    ///
    /// A job in its first half second of running counts as pending. So does one that expired while it waits behind one
    /// that has not, until a worker sees it: the front of each queue is looked at, and no more than 10,000 of its
    /// messages. Jobs that were acked when they started are taken off those that wait while they run.
    ///
    /// # Errors
    /// What the backend reports.
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
        let expired = try_join_all(depths.iter().map(|depth| self.expired_unseen(depth))).await?;
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

    /// How many messages at the front of a queue are of jobs that expired while they wait.
    async fn expired_unseen(&self, depth: &QueueDepth) -> Result<u64> {
        let filter = QueuedFilter::new().queue(&depth.queue).waiting(Waiting::Ready);
        let (now, mut expired, mut page) = (self.client.now(), 0, Page::oldest(1));
        // Most queues have none, and are done with the first message.
        while depth.ready > 0 && expired < MOST_EXPIRED {
            let messages = self.client.backend().broker().list(&filter, page).await?;
            let Some(last) = messages.last() else { break };
            let of_these = messages.iter().filter(|queued| has_expired_unseen(queued, now)).count();
            expired += of_these as u64;
            if of_these < messages.len() || messages.len() < page.limit {
                break;
            }
            page = Page::oldest(EXPIRED_AT_ONCE).after(last.position);
        }
        Ok(expired)
    }

    /// The jobs of each queue, by status; what is zero is left out.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn stats(&self) -> Result<BTreeMap<String, Counts>> {
        let queues = self.list().await?.into_iter().map(|info| (info.queue, info.counts));
        Ok(queues.filter(|(_, counts)| !counts.is_empty()).collect())
    }

    /// Pauses a queue for all workers: they stop taking its jobs, running ones finish. Kicks and delays go on.
    /// It lasts until [`resume`](Self::resume), over restarts of everything; pausing twice is once.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn pause(&self, queue: &str) -> Result<()> {
        check_queue_name(queue)?;
        self.client.backend().kv().put(&key(queue), Bytes::new(), Expect::Any, None).await.map(drop)
    }

    /// Ends the pause of a queue; whether it was paused. Workers take its jobs again at once.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn resume(&self, queue: &str) -> Result<bool> {
        check_queue_name(queue)?;
        self.client.backend().kv().delete(&key(queue), Expect::Any).await
    }

    /// The queues that are paused.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn paused(&self) -> Result<BTreeSet<String>> {
        let entries = self.client.backend().kv().scan(PAUSES).await?;
        Ok(entries.iter().filter_map(|entry| queue_of(&entry.key)).collect())
    }
}

/// How many jobs that expired while they wait are counted at most, in each queue.
const MOST_EXPIRED: u64 = 10_000;

/// How many messages to look at once.
const EXPIRED_AT_ONCE: usize = 500;

fn has_expired_unseen(queued: &Queued, now: Timestamp) -> bool {
    Message::open(&queued.body).is_ok_and(|message| message.has_expired_unstarted(now))
}

/// What is in a queue, by status: the queue is the record of what waits, so of the records only those of jobs
/// that run or have ended count.
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

/// The keys of paused queues start with this.
pub(crate) const PAUSES: &str = "pause.";

fn key(queue: &str) -> String {
    format!("{PAUSES}{queue}")
}

/// The queue that a key pauses.
pub(crate) fn queue_of(key: &str) -> Option<String> {
    key.strip_prefix(PAUSES).map(str::to_owned)
}
