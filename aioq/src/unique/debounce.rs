//! Debounced kicks: of many triggers of a key, one job runs, with the newest arguments.
//!
//! The first trigger sends a *ticket*: an ordinary message that is due after the pause. Each later
//! trigger writes its own message and the new due time into the entry of the key, and sends
//! nothing. When the ticket is delivered, the worker follows the entry: it puts the ticket off if
//! the pause is not over, or else closes the entry and runs the newest message.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::claim::{Holder, Keys, contended};
use super::entry::{self, KeyEntry, UNFREED_TTL};
use super::fate::{Fate, fate};
use crate::broker::Kicked;
use crate::error::Result;
use crate::fault::{Fault, point};
use crate::message::{Envelope, Message, UniqueTie};
use crate::store::{Expect, KvStore};
use crate::time::Timestamp;

/// Time after the due time of a ticket from which a trigger asks whether its job is still there.
const OVERDUE: Duration = Duration::from_secs(10);

/// The triggers since the last run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Burst {
    /// Time of the first trigger.
    pub(crate) first: Timestamp,
    /// Time at which the job is due.
    pub(crate) due: Timestamp,
    /// Number of the newest trigger, from 1.
    pub(crate) version: u64,
    /// The sealed message of the newest trigger.
    #[serde(with = "crate::codec::as_bytes")]
    pub(crate) message: Bytes,
    /// True once the ticket is known to be in the broker.
    pub(crate) confirmed: bool,
    /// True once the job starts: the next trigger begins a new burst.
    pub(crate) closed: bool,
}

/// The job of a trigger.
pub(crate) enum Triggered {
    /// This trigger began a burst.
    New,
    /// The trigger joined the burst of a job that waits.
    Joined(Holder),
}

impl Keys<'_> {
    /// Kicks a debounced message. `pause` is the time after the last trigger, `longest` the limit
    /// since the first one.
    ///
    /// # Errors
    /// The trigger may be lost or not, as any kick.
    pub(crate) async fn trigger(
        self,
        tie: &UniqueTie,
        message: &Message,
        pause: Duration,
        longest: Option<Duration>,
    ) -> Result<Triggered> {
        let began = Instant::now();
        loop {
            let now = self.backend.now();
            let due = now + pause;
            let ttl = pause.saturating_add(UNFREED_TTL);
            let found = entry::get(&*self.backend.kv, &tie.key).await?;
            let joined = match &found {
                Some(found) => self.burst_to_join(&found.entry, now).await?,
                None => None,
            };
            let expect = found.as_ref().map_or(Expect::Absent, |found| Expect::Revision(found.revision));
            if let (Some(burst), Some(found)) = (joined, &found) {
                let holder = found.entry.holder();
                if !burst.confirmed {
                    // The one who began the burst may have died before the ticket was sent.
                    self.kick_ticket(ticket(&burst.message, &found.entry)?).await?;
                }
                // This may be over. A trigger whose clock is ahead must not move it.
                let due = longest.map_or(due, |longest| due.min(burst.first + longest));
                let version = burst.version + 1;
                let newest = sealed(message, &holder, tie, version, due);
                let burst = Burst { due, version, message: newest, confirmed: true, ..burst.clone() };
                let joined = KeyEntry { burst: Some(burst), ..found.entry.clone() };
                if entry::put(&*self.backend.kv, &tie.key, &joined, expect, ttl).await?.is_some() {
                    return Ok(Triggered::Joined(holder));
                }
            } else {
                let mine = Holder { id: message.id.clone(), queue: message.queue.clone() };
                let newest = sealed(message, &mine, tie, 1, due);
                let burst =
                    Burst { first: now, due, version: 1, message: newest, confirmed: false, closed: false };
                let mut begun = KeyEntry::new(mine.id, mine.queue, now, None);
                begun.burst = Some(burst);
                if entry::put(&*self.backend.kv, &tie.key, &begun, expect, ttl).await?.is_some() {
                    point(Fault::Locked);
                    if let Some(burst) = &begun.burst {
                        self.kick_ticket(ticket(&burst.message, &begun)?).await?;
                    }
                    return Ok(Triggered::New);
                }
            }
            if began.elapsed() > self.deadline {
                return Err(contended(&tie.key));
            }
        }
    }

    /// The burst of an entry, if its job still waits.
    async fn burst_to_join(self, entry: &KeyEntry, now: Timestamp) -> Result<Option<&Burst>> {
        let Some(burst) = entry.burst.as_ref().filter(|burst| !burst.closed && entry.freed.is_none()) else {
            return Ok(None);
        };
        if burst.due + OVERDUE >= now {
            return Ok(Some(burst));
        }
        let waits = fate(self.backend, &entry.id).await? == Fate::Unfinished;
        Ok(waits.then_some(burst))
    }

    async fn kick_ticket(self, ticket: Envelope) -> Result<Kicked> {
        point(Fault::Kicking);
        let kicked = self.backend.broker.kick(ticket, Expect::Absent).await;
        point(Fault::Kicked);
        kicked
    }
}

/// The newest message of a debounced job that waits, if it is not the one in the broker. It is of
/// the same kick and follows the same record as that one.
pub(crate) async fn newest(kv: &dyn KvStore, message: &Message) -> Result<Option<Message>> {
    let Some(UniqueTie { key, version: Some(version), .. }) = message.unique() else { return Ok(None) };
    let found = entry::get(kv, key).await?.filter(|found| found.entry.id == message.id);
    let Some(burst) = found.and_then(|found| found.entry.burst) else { return Ok(None) };
    if burst.version <= *version {
        return Ok(None);
    }
    let (kicked_at, supersedes) = (message.kicked_at, message.supersedes);
    let newest = Message::open(&burst.message)?;
    Ok(Some(Message { kicked_at, supersedes, run_at: Some(burst.due), ..newest }))
}

/// The message of a trigger, sealed as a message of the burst's job.
fn sealed(message: &Message, job: &Holder, tie: &UniqueTie, version: u64, due: Timestamp) -> Bytes {
    let mut message = message.clone();
    message.id = job.id.clone();
    message.queue = job.queue.clone();
    message.run_at = Some(due);
    message.ties_mut().unique = Some(UniqueTie { version: Some(version), ..tie.clone() });
    message.seal().body
}

/// The envelope of a sealed message of the burst's job.
fn ticket(sealed: &Bytes, entry: &KeyEntry) -> Result<Envelope> {
    let mut message = Message::open(sealed)?;
    message.id = entry.id.clone();
    Ok(message.seal())
}

impl Burst {
    /// The newest message, to be delivered when it is due.
    pub(super) fn put_off(&self) -> Result<Envelope> {
        let mut message = Message::open(&self.message)?;
        message.run_at = Some(self.due);
        Ok(message.seal())
    }

    /// The newest message as an ordinary job, which the next burst cannot displace.
    pub(super) fn run_now(&self) -> Result<Envelope> {
        let mut message = Message::open(&self.message)?;
        message.run_at = None;
        // It may come late: another worker may find the key taken, and cancel the job. So the
        // worker of this message looks for a record before it claims the start.
        message.supersedes = Some(0);
        if let Some(ties) = &mut message.ties {
            ties.unique = None;
        }
        Ok(message.seal())
    }
}
