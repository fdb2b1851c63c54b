//! How a client tells workers to leave jobs alone.
//!
//! A worker may hold a job that has not started, and nobody but that worker can tell. So the client asks: it
//! writes a [`Round`] into the shared state, and every worker of these queues answers which of the jobs it has
//! started. From its answer on it starts none of the others, neither those that it holds nor those that it gets
//! later. Once all have answered, nobody starts what nobody has started.
//!
//! A worker that nobody knows of cannot be waited for. So a worker watches the rounds, then registers, then
//! reads the rounds, and only then fetches; and one whose sign of life is old starts nothing until it has given
//! another and read the rounds anew.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::client::Client;
use crate::codec::Codec;
use crate::error::{Error, ErrorKind, JobError, Result};
use crate::message::{JobId, Message};
use crate::store::{Expect, JobRecord, KvChange};
use crate::time::{Timestamp, from_now};
use crate::workers::WorkerInfo;

/// The keys of rounds start with this.
pub(crate) const ROUNDS: &str = "cancel.";
/// The keys of the answers to a round start with this and the name of the round.
const ANSWERS: &str = "answer.";

/// How long workers remember a round: longer than a delivery is on its way.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// How long an answer is there to be read.
const ANSWER_KEPT: Duration = Duration::from_secs(60);
/// How often to look for answers that the watch may have lost, and for workers that have gone.
const RECHECK: Duration = Duration::from_millis(500);

/// Jobs that no worker is to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    /// The queues of these jobs: workers of others need not answer.
    pub(crate) queues: Vec<String>,
    pub(crate) jobs: Vec<Marked>,
    /// Those that run are to be stopped.
    pub(crate) abort: bool,
}

/// A job as it was when it was called off. The same job kicked again, or run again, is another matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marked {
    pub(crate) id: JobId,
    kicked_at: Option<Timestamp>,
    supersedes: u64,
}

impl Marked {
    /// A job as it was seen: its message if it has one, and the revision of its record if it has one. Such a
    /// record may announce a message that is only on its way, which comes after it: that one is meant, too.
    pub(crate) fn new(record: &JobRecord, message: Option<&Message>, revision: Option<u64>) -> Self {
        let base = message.and_then(|message| message.supersedes).unwrap_or(0);
        Self {
            id: record.id.clone(),
            kicked_at: message.map_or(record.kicked_at, |message| message.kicked_at),
            supersedes: revision.map_or(base, |revision| revision.max(base)),
        }
    }

    /// Whether a message is one of those called off.
    pub(crate) fn covers(&self, message: &Message) -> bool {
        self.id == message.id && self.covers_run(&RunMark::of(message))
    }

    /// Whether a run of the job is one of those called off.
    pub(crate) fn covers_run(&self, run: &RunMark) -> bool {
        self.kicked_at == run.kicked_at && run.supersedes <= self.supersedes
    }
}

/// What tells the runs of one job apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunMark {
    attempt: u32,
    kicked_at: Option<Timestamp>,
    supersedes: u64,
}

impl RunMark {
    pub(crate) fn of(message: &Message) -> Self {
        let (attempt, supersedes) = (message.attempt, message.supersedes.unwrap_or(0));
        Self { attempt, kicked_at: message.kicked_at, supersedes }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    started: Vec<JobId>,
}

/// What is said of a job that was called off before it started.
pub(crate) fn called_off() -> JobError {
    JobError::new("Cancelled", "was called off before it started")
}

/// What is said of a job that was stopped while it ran.
pub(crate) fn aborted() -> JobError {
    JobError::new("Cancelled", "was stopped while it ran")
}

/// A round that a worker has been told of.
pub(crate) fn read(value: &Bytes) -> Option<Round> {
    Codec::decode_value(value).ok()
}

/// Answers a round: these of its jobs were started by that worker.
pub(crate) async fn answer(client: &Client, key: &str, worker_id: &str, started: Vec<JobId>) -> Result<()> {
    let Some(round) = key.strip_prefix(ROUNDS) else { return Ok(()) };
    let value = encode(&Answer { started })?;
    let key = format!("{ANSWERS}{round}.{worker_id}");
    client.backend().kv().put(&key, value, Expect::Any, Some(ANSWER_KEPT)).await.map(drop)
}

fn encode(value: &impl Serialize) -> Result<Bytes> {
    Codec::MessagePack.encode(value).map(|payload| payload.as_bytes().clone())
}

/// A round on its way.
pub(crate) struct Asking<'a> {
    client: &'a Client,
    name: String,
    round: Round,
}

impl<'a> Asking<'a> {
    /// Asks all workers, and waits until each has answered; the jobs that were started.
    ///
    /// # Errors
    /// [`Deadline`](ErrorKind::Deadline) naming the workers that live and did not answer: nothing is certain
    /// then, and the round is taken back.
    pub(crate) async fn ask(client: &'a Client, round: Round) -> Result<(Self, HashSet<JobId>)> {
        let asking = Self { client, name: uuid::Uuid::now_v7().simple().to_string(), round };
        let answers = client.backend().kv().watch(&asking.answers()).await?;
        let heard = async {
            asking.put().await?;
            asking.hear(answers).await
        };
        match heard.await {
            Ok(started) => Ok((asking, started)),
            Err(error) => {
                asking.take_back().await;
                Err(error)
            }
        }
    }

    /// Lets workers start these jobs again: they were not called off after all.
    pub(crate) async fn let_go(mut self, ids: &HashSet<JobId>) {
        self.round.jobs.retain(|marked| !ids.contains(&marked.id));
        if self.round.jobs.is_empty() {
            return self.take_back().await;
        }
        if let Err(error) = self.put().await {
            tracing::warn!(%error, "jobs that could not be called off stay so for those that hold them no more");
        }
    }

    async fn take_back(&self) {
        if let Err(error) = self.client.backend().kv().delete(&self.key(), Expect::Any).await {
            tracing::warn!(%error, "a round could not be taken back, it is forgotten by itself");
        }
    }

    fn key(&self) -> String {
        format!("{ROUNDS}{}", self.name)
    }

    fn answers(&self) -> String {
        format!("{ANSWERS}{}.", self.name)
    }

    async fn put(&self) -> Result<()> {
        let value = encode(&self.round)?;
        self.client.backend().kv().put(&self.key(), value, Expect::Any, Some(REMEMBERED)).await.map(drop)
    }

    async fn hear(&self, mut answers: BoxStream<'static, KvChange>) -> Result<HashSet<JobId>> {
        let deadline = from_now(self.client.deadline());
        // Who registers after this reads the round before it fetches.
        let mut silent = self.workers().await?;
        let mut started = HashSet::new();
        while !silent.is_empty() {
            if Instant::now() >= deadline {
                return Err(self.unanswered(&silent));
            }
            match timeout_at(deadline.min(Instant::now() + RECHECK), answers.next()).await {
                // Only what is stored is an answer: what is told can be forged by whoever may publish there.
                Ok(Some(change)) => {
                    if let Some(entry) = self.client.backend().kv().get(&change.into_key()).await? {
                        self.note(&entry.key, &entry.value, &mut silent, &mut started);
                    }
                }
                Ok(None) => answers = self.client.backend().kv().watch(&self.answers()).await?,
                Err(_) => {
                    for entry in self.client.backend().kv().scan(&self.answers()).await? {
                        self.note(&entry.key, &entry.value, &mut silent, &mut started);
                    }
                    // One that has ended holds nothing any more.
                    let left = self.workers().await?;
                    silent.retain(|worker_id, _| left.contains_key(worker_id));
                }
            }
        }
        Ok(started)
    }

    fn note(
        &self,
        key: &str,
        value: &Bytes,
        silent: &mut BTreeMap<String, WorkerInfo>,
        started: &mut HashSet<JobId>,
    ) {
        let worker_id = key.strip_prefix(&self.answers()).unwrap_or_default();
        if let Ok(answer) = Codec::decode_value::<Answer>(value) {
            silent.remove(worker_id);
            started.extend(answer.started);
        }
    }

    /// The workers that may hold one of the jobs.
    async fn workers(&self) -> Result<BTreeMap<String, WorkerInfo>> {
        let workers = self.client.workers().list().await?.into_iter();
        let concerned = workers.filter(|worker| {
            worker.is_alive() && worker.queues.iter().any(|queue| self.round.queues.contains(queue))
        });
        Ok(concerned.map(|worker| (worker.worker_id.clone(), worker)).collect())
    }

    fn unanswered(&self, silent: &BTreeMap<String, WorkerInfo>) -> Error {
        let names: Vec<String> =
            silent.values().map(|worker| format!("{} on {}", worker.worker_id, worker.host)).collect();
        let message = format!(
            "nothing is certain: no answer within {} from the worker {}",
            humantime::format_duration(self.client.deadline()),
            names.join(", ")
        );
        Error::new(ErrorKind::Deadline, message)
    }
}
