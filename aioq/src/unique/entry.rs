//! The entry of a unique key in the shared state.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::debounce::Burst;
use crate::codec::Codec;
use crate::error::{ErrorKind, Result};
use crate::message::{JobId, Message, Name, UniqueKey};
use crate::store::{Expect, JobRecord, KvStore};
use crate::time::Timestamp;

/// Prefix of the entries.
pub(super) const KEYS: &str = "unique.";

/// Time for which an entry outlives the moment at which its job is due, if nobody frees the key.
pub(super) const UNFREED_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Time for which the entry of a freed key is kept. A short lifetime costs one write; a removal
/// leaves a mark for longer on some stores.
const FREED_TTL: Duration = Duration::from_secs(1);

/// Time for which the entry of an ended burst is kept. A ticket of an older burst may still come,
/// with arguments that are older than those that ran: the entry tells it so. Longer than a message
/// that a worker died with is on its way.
const ENDED_BURST_TTL: Duration = Duration::from_secs(3600);

/// Which job holds a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyEntry {
    /// Id of the job.
    pub(crate) id: JobId,
    /// Queue of the job.
    pub(crate) queue: Name,
    /// Time at which the job took the key.
    pub(crate) at: Timestamp,
    /// Time of the kick, which tells a rerun of the job from the run before. A burst has many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kicked_at: Option<Timestamp>,
    /// Time until which the job holds the key although it has completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
    /// True if a kick has doubted the job. The worker that starts the job clears this first, so
    /// the kick learns that the job is alive.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) contested: bool,
    /// Set once the job has freed the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) freed: Option<Freed>,
    /// The triggers of a debounced job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<Burst>,
}

/// The end of a job that has freed its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Freed {
    /// The job completed: it holds the key until its window ends.
    Completed,
    /// The job ended otherwise, or frees the key as it starts.
    Otherwise,
}

/// A run of a job, as the one that held a key.
#[derive(Clone, Copy)]
pub(crate) struct Tenant<'a> {
    pub(crate) key: &'a UniqueKey,
    pub(crate) id: &'a JobId,
    pub(crate) kicked_at: Option<Timestamp>,
}

impl<'a> Tenant<'a> {
    /// The run that a record is of, if it had a key.
    pub(crate) fn of(record: &'a JobRecord) -> Option<Self> {
        let JobRecord { id, kicked_at, unique_key, .. } = record;
        unique_key.as_ref().map(|key| Self { key, id, kicked_at: *kicked_at })
    }

    /// The run of a message, if it has a key.
    pub(crate) fn of_message(message: &'a Message) -> Option<Self> {
        message.unique().map(|tie| Self { key: &tie.key, id: &message.id, kicked_at: message.kicked_at })
    }
}

/// An entry, and its revision.
#[derive(Clone, Debug)]
pub(crate) struct StoredEntry {
    pub(crate) entry: KeyEntry,
    pub(crate) revision: u64,
}

impl KeyEntry {
    pub(super) fn new(id: JobId, queue: Name, at: Timestamp, until: Option<Timestamp>) -> Self {
        Self { id, queue, at, kicked_at: None, until, contested: false, freed: None, burst: None }
    }

    /// The entry of a job that is kicked by this message, or was.
    pub(super) fn of(message: &Message, at: Timestamp, until: Option<Timestamp>) -> Self {
        let entry = Self::new(message.id.clone(), message.queue.clone(), at, until);
        Self { kicked_at: message.kicked_at, ..entry }
    }

    /// True if the entry is of that run, and not of a rerun since.
    pub(super) fn is_of(&self, tenant: Tenant<'_>) -> bool {
        let is_other = |(own, other)| own != other;
        self.id == *tenant.id && !self.kicked_at.zip(tenant.kicked_at).is_some_and(is_other)
    }

    /// True if a completed job still holds the key.
    pub(super) fn is_in_window(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// The entry once the job has freed the key, and its lifetime.
    pub(super) fn freed(self, freed: Freed, now: Timestamp) -> (Self, Duration) {
        let window = self.until.filter(|_| freed == Freed::Completed).map(|until| until.since(now));
        let least = if self.burst.is_some() { ENDED_BURST_TTL } else { FREED_TTL };
        let entry = Self { contested: false, freed: Some(freed), burst: None, ..self };
        (entry, window.unwrap_or_default().max(least))
    }
}

fn name(key: &UniqueKey) -> String {
    format!("{KEYS}{key}")
}

/// The entry of a key. One that cannot be read counts as freed by a job that nobody knows.
pub(super) async fn get(kv: &dyn KvStore, key: &UniqueKey) -> Result<Option<StoredEntry>> {
    let Some(found) = kv.get(&name(key)).await? else { return Ok(None) };
    let entry = Codec::MessagePack.decode(&found.value).unwrap_or_else(|error| {
        tracing::warn!(%key, %error, "the entry of a unique key cannot be read, the key counts as free");
        let unknown = KeyEntry::new("".into(), Name::default(), Timestamp::from_micros(0), None);
        KeyEntry { freed: Some(Freed::Otherwise), ..unknown }
    });
    Ok(Some(StoredEntry { entry, revision: found.revision }))
}

/// Writes the entry of a key. `None` if `expect` does not hold.
pub(super) async fn put(
    kv: &dyn KvStore,
    key: &UniqueKey,
    entry: &KeyEntry,
    expect: Expect,
    ttl: Duration,
) -> Result<Option<u64>> {
    let mut value = Vec::new();
    Codec::MessagePack.encode_into(entry, &mut value)?;
    match kv.put(&name(key), Bytes::from(value), expect, Some(ttl)).await {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the entry of a key, if it is that revision.
pub(super) async fn remove(kv: &dyn KvStore, key: &UniqueKey, revision: u64) -> Result<()> {
    kv.delete(&name(key), Expect::Revision(revision)).await.map(drop)
}
