//! What happens to jobs, as it happens: [`Event`], [`EventFilter`], and the stream of them.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, select, unfold};
use serde::{Deserialize, Serialize};

use crate::broker::Queued;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Reason, Result};
use crate::message::{JobId, Message, Name};
use crate::store::{JobRecord, Progress, Status, Watched};
use crate::time::Timestamp;

/// How long to wait before a broken watch is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The job.
    pub id: JobId,
    /// Its task; empty if its message could not be read.
    pub task: Name,
    /// Its queue.
    pub queue: Name,
    /// How far it is now.
    pub status: Status,
    /// The run it is at, from 1.
    pub attempt: u32,
    /// When it happened, by the clock of the process that did it.
    pub at: Timestamp,
    /// The worker that it happened on.
    pub worker_id: Option<Name>,
    /// Why the job ended without a result.
    pub reason: Option<Reason>,
    /// How it failed, in one line.
    pub error: Option<String>,
    /// How far its body says it is.
    pub progress: Option<Progress>,
}

/// What happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EventKind {
    /// It was kicked, for now or for later, or to run again.
    Kicked,
    /// It runs, for half a second at least: what ends sooner is told by its end alone.
    Started,
    /// Its body said how far it is.
    Progress,
    /// An attempt failed, and another will follow.
    Retrying,
    /// Its body put it off.
    Snoozed,
    /// Its worker ended and gave it back.
    Released,
    /// It ended well.
    Completed,
    /// It ended badly.
    Failed,
    /// It was not started in time.
    Expired,
    /// It was called off.
    Cancelled,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kicked => "kicked",
            Self::Started => "started",
            Self::Progress => "progress",
            Self::Retrying => "retrying",
            Self::Snoozed => "snoozed",
            Self::Released => "released",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        })
    }
}

/// Which events to hear of; the default is the end of every job.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct EventFilter {
    queue: Option<String>,
    statuses: Option<Vec<Status>>,
}

impl EventFilter {
    /// The end of every job.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that happens.
    pub fn all() -> Self {
        Self::default().statuses(Status::ALL)
    }

    /// Only in one queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Jobs that come into one of these states.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = Status>) -> Self {
        self.statuses = Some(statuses.into_iter().collect());
        self
    }

    fn wants_status(&self, status: Status) -> bool {
        match &self.statuses {
            Some(statuses) => statuses.contains(&status),
            None => status.is_terminal(),
        }
    }

    fn wants(&self, event: &Event) -> bool {
        self.wants_status(event.status) && self.queue.as_ref().is_none_or(|queue| *queue == event.queue)
    }
}

impl Client {
    /// What happens to jobs from now on, wherever it happens. Nothing is written for it and nobody is asked: it
    /// costs the workers nothing, and producers neither.
    ///
    /// As well as can be: what happens while the connection is broken is lost, and so is what a listener that
    /// falls thousands of events behind has not heard. The stream goes on after an outage, and ends when the
    /// client is shut down. Dropping it ends it.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): the client keeps no records, and only kicks could be told; what
    /// the backend reports.
    pub async fn events(&self, filter: EventFilter) -> Result<BoxStream<'static, Event>> {
        let told = filter.clone();
        let records = self.records_from_now_on().await?;
        let records = records.scan(Seen::default(), move |seen, record| {
            std::future::ready(Some(seen.event(&record).filter(|event| told.wants(event))))
        });
        let records = records.filter_map(std::future::ready);
        let kicks = [Status::Pending, Status::Scheduled];
        if !kicks.into_iter().any(|status| filter.wants_status(status)) {
            return Ok(records.boxed());
        }
        let kicks = self.kicks_from_now_on().await?.filter_map(move |queued| {
            // The next attempt of a job is told by the record that announces it.
            let event = Some(kicked(&queued)).filter(|event| event.attempt == 1 && filter.wants(event));
            std::future::ready(event)
        });
        Ok(select(records, kicks).boxed())
    }

    async fn records_from_now_on(&self) -> Result<BoxStream<'static, JobRecord>> {
        if self.backend().jobs().is_none() {
            let message = "this client keeps no records of jobs, so there are no events";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let client = self.clone();
        again_and_again(move || {
            let client = client.clone();
            async move {
                match client.backend().jobs() {
                    Some(jobs) => jobs.watch(Watched::All).await,
                    None => Ok(futures_util::stream::empty().boxed()),
                }
            }
        })
        .await
    }

    async fn kicks_from_now_on(&self) -> Result<BoxStream<'static, Queued>> {
        let client = self.clone();
        again_and_again(move || {
            let client = client.clone();
            async move { client.backend().broker().watch().await }
        })
        .await
    }
}

/// A watch that is taken up again when it breaks, until that is no use any more.
async fn again_and_again<T, F, W>(watch: F) -> Result<BoxStream<'static, T>>
where
    T: Send + 'static,
    F: Fn() -> W + Send + Sync + 'static,
    W: Future<Output = Result<BoxStream<'static, T>>> + Send,
{
    let first = watch().await?;
    let next = |(mut changes, watch): (BoxStream<'static, T>, F)| async move {
        loop {
            if let Some(change) = changes.next().await {
                return Some((change, (changes, watch)));
            }
            changes = loop {
                tokio::time::sleep(PAUSE).await;
                match watch().await {
                    Ok(anew) => break anew,
                    Err(error) if error.is_outage() => {}
                    Err(_) => return None,
                }
            };
        }
    };
    Ok(unfold((first, watch), next).boxed())
}

/// The most jobs to remember as running. Beyond that, a progress may be told as a start.
const MOST_RUNNING: usize = 100_000;

/// What tells the start of a job from its progress: which jobs run.
#[derive(Default)]
struct Seen(HashMap<JobId, u32>);

impl Seen {
    fn event(&mut self, record: &JobRecord) -> Option<Event> {
        if self.0.len() > MOST_RUNNING {
            self.0.clear();
        }
        let ran = match record.status {
            Status::Running => self.0.insert(record.id.clone(), record.attempt) == Some(record.attempt),
            _ => self.0.remove(&record.id).is_some(),
        };
        let kind = match record.status {
            Status::Running if ran => EventKind::Progress,
            Status::Running => EventKind::Started,
            Status::Retrying => EventKind::Retrying,
            Status::Completed => EventKind::Completed,
            Status::Expired => EventKind::Expired,
            Status::Cancelled => EventKind::Cancelled,
            Status::Scheduled => EventKind::Snoozed,
            // It was told by its kick.
            Status::Pending if record.is_unstarted() => return None,
            Status::Pending => EventKind::Released,
            Status::Failed => EventKind::Failed,
            // Of a newer version.
            Status::Blocked | Status::Unknown => return None,
        };
        let at = match record.status {
            Status::Running if !ran => record.started_at,
            _ => record.finished_at,
        };
        Some(Event {
            kind,
            id: record.id.clone(),
            task: record.task.clone(),
            queue: record.queue.clone(),
            status: record.status,
            attempt: record.attempt,
            at: at.unwrap_or_else(Timestamp::now),
            worker_id: record.worker_id.clone(),
            reason: record.reason,
            error: record.error.as_ref().map(|error| format!("{}: {error}", error.exc_type)),
            progress: record.progress.as_deref().cloned(),
        })
    }
}

fn kicked(queued: &Queued) -> Event {
    let message = Message::open(&queued.body).ok();
    let due = message.as_ref().and_then(|message| message.run_at);
    let later = !queued.ready || due.is_some_and(|due| due > Timestamp::now());
    Event {
        kind: EventKind::Kicked,
        id: queued.id.clone(),
        task: message.as_ref().map(|message| message.task.clone()).unwrap_or_default(),
        queue: queued.queue.clone().into(),
        status: if later { Status::Scheduled } else { Status::Pending },
        attempt: message.as_ref().map_or(1, |message| message.attempt),
        at: message.and_then(|message| message.kicked_at).unwrap_or_else(Timestamp::now),
        worker_id: None,
        reason: None,
        error: None,
        progress: None,
    }
}
