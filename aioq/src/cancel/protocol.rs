//! Requests and answers: their keys, their content, their encoding.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::error::{JobError, Result};
use crate::message::{JobId, Message};
use crate::store::{Expect, JobRecord, KvStore};
use crate::time::Timestamp;

/// Prefix of the keys of requests; the name of the request follows.
pub(crate) const REQUESTS: &str = "cancel.";
/// Prefix of the keys of answers; the name of the request, a dot and the id of the worker follow.
const ANSWERS: &str = "answer.";

/// Lifetime of a request, in the store and in the notes of workers: longer than a delivery is on
/// its way.
pub(crate) const REQUEST_TTL: Duration = Duration::from_secs(5 * 60);
/// Lifetime of an answer in the store.
const ANSWER_TTL: Duration = Duration::from_secs(60);

/// Jobs that no worker is to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CancelRequest {
    /// Queues of the jobs. Only workers of these queues answer.
    pub(crate) queues: Vec<String>,
    pub(crate) jobs: Vec<Target>,
    /// True if workers also stop the targets that run.
    pub(crate) abort: bool,
}

impl CancelRequest {
    /// The request in a stored value; `None` if this version cannot read it.
    pub(crate) fn decode(value: &Bytes) -> Option<Self> {
        Codec::decode_value(value).ok()
    }

    pub(super) fn encode(&self) -> Result<Bytes> {
        encode(self)
    }
}

/// One job to cancel, as it was when the client looked. A later run under the same id is no target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) id: JobId,
    kicked_at: Option<Timestamp>,
    supersedes: u64,
}

impl Target {
    /// A target from the record of a job, its message in the broker and the revision of its stored
    /// record.
    ///
    /// The stored record may announce a message that is not in the broker yet. Such a message comes
    /// after the record and is meant, too.
    pub(crate) fn new(record: &JobRecord, message: Option<&Message>, revision: Option<u64>) -> Self {
        let base = message.map_or(0, Message::base_revision);
        Self {
            id: record.id.clone(),
            kicked_at: message.map_or(record.kicked_at, |message| message.kicked_at),
            supersedes: revision.map_or(base, |revision| revision.max(base)),
        }
    }

    /// True if the message is of the target's run.
    pub(crate) fn matches(&self, message: &Message) -> bool {
        self.id == message.id && self.matches_run(&RunId::of(message))
    }

    /// True if a run of the job is the target's.
    pub(crate) fn matches_run(&self, run: &RunId) -> bool {
        self.kicked_at == run.kicked_at && run.base_revision <= self.supersedes
    }
}

/// Identity of one run among the runs of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunId {
    attempt: u32,
    kicked_at: Option<Timestamp>,
    base_revision: u64,
}

impl RunId {
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            attempt: message.attempt,
            kicked_at: message.kicked_at,
            base_revision: message.base_revision(),
        }
    }
}

/// The answer of one worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Targets that the worker had started before it noted the request.
    pub(super) started: Vec<JobId>,
}

impl Answer {
    pub(super) fn decode(value: &Bytes) -> Option<Self> {
        Codec::decode_value(value).ok()
    }
}

/// Key of a request.
pub(super) fn request_key(name: &str) -> String {
    format!("{REQUESTS}{name}")
}

/// Prefix of the keys of the answers to a request; the id of the worker follows.
pub(super) fn answer_prefix(name: &str) -> String {
    format!("{ANSWERS}{name}.")
}

/// Answers the request at `key`: the worker has started these of its jobs.
pub(crate) async fn answer(kv: &dyn KvStore, key: &str, worker_id: &str, started: Vec<JobId>) -> Result<()> {
    let Some(name) = key.strip_prefix(REQUESTS) else { return Ok(()) };
    let value = encode(&Answer { started })?;
    let key = format!("{}{worker_id}", answer_prefix(name));
    kv.put(&key, value, Expect::Any, Some(ANSWER_TTL)).await.map(drop)
}

fn encode(value: &impl Serialize) -> Result<Bytes> {
    Codec::MessagePack.encode(value).map(|payload| payload.as_bytes().clone())
}

/// Error on the record of a job that was cancelled before it started.
///
/// Clients compare it with the error on a record, also with one that another version wrote: the
/// text stays.
pub(crate) fn cancelled_before_start() -> JobError {
    JobError::new("Cancelled", "was called off before it started")
}

/// Error on the record of a job that was aborted while it ran.
pub(crate) fn aborted() -> JobError {
    JobError::new("Cancelled", "was stopped while it ran")
}
