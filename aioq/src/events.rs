//! Events of jobs, live: [`Event`], [`EventFilter`] and [`Client::events`].

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

/// Pause before a broken watch is opened again.
const WATCH_RETRY: Duration = Duration::from_millis(200);

/// An event of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Kind of the event.
    pub kind: EventKind,
    /// The job.
    pub id: JobId,
    /// Its task; empty if its message could not be read.
    pub task: Name,
    /// Its queue.
    pub queue: Name,
    /// Status of the job after the event.
    pub status: Status,
    /// Attempt of the job, from 1.
    pub attempt: u32,
    /// Time of the event, by the clock of the process that caused it.
    pub at: Timestamp,
    /// Worker of the event.
    pub worker_id: Option<Name>,
    /// Reason why the job ended without a result.
    pub reason: Option<Reason>,
    /// Error of a failure, in one line.
    pub error: Option<String>,
    /// Progress that the body has reported.
    pub progress: Option<Progress>,
}

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EventKind {
    /// The job was kicked, delayed or not, or rerun.
    Kicked,
    /// The job has run for half a second. A job that ends sooner has no such event.
    Started,
    /// The body reported progress.
    Progress,
    /// An attempt failed, and a retry will follow.
    Retrying,
    /// The body snoozed the job.
    Snoozed,
    /// The worker ended and gave the job back.
    Released,
    /// The job ended with a result.
    Completed,
    /// The job failed for good.
    Failed,
    /// The job was not started in time.
    Expired,
    /// The job was cancelled.
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

/// A filter for events; the default matches the end of every job.
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

    /// All events.
    pub fn all() -> Self {
        Self::default().statuses(Status::ALL)
    }

    /// Only events of this queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Only events after which a job has one of these statuses.
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
    /// Streams the events of all jobs from now on. Events cost workers and producers nothing: they
    /// are derived from records and messages that are written anyway.
    ///
    /// Best effort: events during a broken connection are lost, and a receiver that falls thousands
    /// behind loses the oldest. The stream goes on after an outage, and ends when the client is
    /// shut down. Drop it to stop.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): the client keeps no records, so there are no events
    /// but kicks; the errors of the backend.
    pub async fn events(&self, filter: EventFilter) -> Result<BoxStream<'static, Event>> {
        let record_filter = filter.clone();
        let records = self.records_from_now_on().await?;
        let records = records.scan(Running::default(), move |running, record| {
            std::future::ready(Some(running.event(&record).filter(|event| record_filter.wants(event))))
        });
        let records = records.filter_map(std::future::ready);
        let kicks = [Status::Pending, Status::Scheduled];
        if !kicks.into_iter().any(|status| filter.wants_status(status)) {
            return Ok(records.boxed());
        }
        let kicks = self.kicks_from_now_on().await?.filter_map(move |queued| {
            // A retry has an event already, from the record that announces it.
            let event = Some(kicked(&queued)).filter(|event| event.attempt == 1 && filter.wants(event));
            std::future::ready(event)
        });
        Ok(select(records, kicks).boxed())
    }

    async fn records_from_now_on(&self) -> Result<BoxStream<'static, JobRecord>> {
        if self.backend().jobs().is_none() {
            let message = "this client keeps no records of jobs, so there are no events: connect with another `RecordLevel`";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let client = self.clone();
        reopened(move || {
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
        reopened(move || {
            let client = client.clone();
            async move { client.backend().broker().watch().await }
        })
        .await
    }
}

/// A watch that is opened again when it breaks, until an error that is not an outage.
async fn reopened<T, F, W>(watch: F) -> Result<BoxStream<'static, T>>
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
                tokio::time::sleep(WATCH_RETRY).await;
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

/// Largest number of jobs to remember as running. Beyond it, a progress may be reported as a start.
const MAX_RUNNING: usize = 100_000;

/// Running jobs and their attempts: tell the start of a job from its progress.
#[derive(Default)]
struct Running(HashMap<JobId, u32>);

impl Running {
    fn event(&mut self, record: &JobRecord) -> Option<Event> {
        if self.0.len() > MAX_RUNNING {
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
            // The kick has an event of its own.
            Status::Blocked => return None,
            Status::Pending if record.is_unstarted() => return None,
            Status::Pending => EventKind::Released,
            Status::Failed => EventKind::Failed,
            // A status of a newer version.
            Status::Unknown => return None,
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
