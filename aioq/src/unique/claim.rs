//! Taking a key, before a kick.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::entry::{self, Freed, KeyEntry, UNFREED_TTL};
use super::fate::{Fate, fate};
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{Fault, point};
use crate::message::{JobId, Message, Name, UniqueKey, UniqueTie};
use crate::store::Expect;
use crate::time::Timestamp;

/// Age of an entry up to which a kick waits for the named job to appear: its kicker may be between
/// the entry and the message.
const YOUNG: Duration = Duration::from_secs(30);

/// Longest time for which a kick waits for such a job. Another kick may take the key over
/// meanwhile: its job is waited for as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// First pause of that wait. Each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Time after which the entry is read again before the message is sent: another kick may have
/// given this one up.
const STALE: Duration = Duration::from_millis(500);

/// The job that holds a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) id: JobId,
    pub(crate) queue: Name,
}

/// Result of a try to take a key.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// The key is taken for the job of the message.
    Taken(Taken),
    /// Another job holds the key.
    Held(Holder),
}

/// A key that was taken and whose job is not kicked yet.
#[derive(Debug)]
pub(crate) struct Taken {
    began: Instant,
    revision: u64,
}

/// The unique keys of a backend.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(super) backend: &'a Backend,
    pub(super) deadline: Duration,
}

impl<'a> Keys<'a> {
    /// `deadline` limits the time that taking a key may last.
    pub(crate) fn new(backend: &'a Backend, deadline: Duration) -> Self {
        Self { backend, deadline }
    }

    /// Takes the key of a message that is about to be kicked.
    ///
    /// # Errors
    /// - [`Deadline`](ErrorKind::Deadline): the key changed hands again and again.
    /// - The errors of the backend.
    pub(crate) async fn take(self, tie: &UniqueTie, message: &Message) -> Result<Claimed> {
        let began = Instant::now();
        loop {
            match self.claim(tie, message).await? {
                // Another kick has taken the key over. That kick may die before it sends its own
                // job, so this one asks for that job, like any later kick.
                Claimed::Taken(taken) if !self.is_kept(&tie.key, &taken, &message.id).await? => {
                    if began.elapsed() > self.deadline {
                        return Err(contended(&tie.key));
                    }
                }
                claimed => return Ok(claimed),
            }
        }
    }

    async fn claim(self, tie: &UniqueTie, message: &Message) -> Result<Claimed> {
        let (began, mut wait) = (Instant::now(), None);
        let due = message.run_at.map(|due| due.since(self.backend.now())).unwrap_or_default();
        let ttl = due.saturating_add(tie.terms.within).saturating_add(UNFREED_TTL);
        let taken = |revision| {
            point(Fault::Locked);
            Claimed::Taken(Taken { began, revision })
        };
        loop {
            let mut mine = self.entry_of(tie, message);
            if let Some(revision) = self.put(&tie.key, &mine, Expect::Absent, ttl).await? {
                return Ok(taken(revision));
            }
            while let Some(found) = entry::get(&*self.backend.kv, &tie.key).await? {
                if began.elapsed() > self.deadline {
                    return Err(contended(&tie.key));
                }
                if found.entry.id == mine.id {
                    // A rerun keeps the window of the job.
                    mine.until = mine.until.or(found.entry.until);
                }
                let mut revision = found.revision;
                let holding = self.holding(&found.entry, &mine.id).await?;
                if holding == Holding::NotKickedYet
                    && let Some(pause) = Wait::of(&mut wait, &found.entry.id).next_pause()
                {
                    sleep(pause).await;
                    continue;
                }
                match holding {
                    Holding::Held => return Ok(Claimed::Held(found.entry.holder())),
                    Holding::Free => {}
                    Holding::NotKickedYet | Holding::Doubtful => {
                        let marked = KeyEntry { contested: true, ..found.entry.clone() };
                        let expect = Expect::Revision(revision);
                        let Some(contested) = self.put(&tie.key, &marked, expect, ttl).await? else {
                            continue;
                        };
                        point(Fault::Contested);
                        // Asked again after the mark: a job that appeared before it is found now.
                        // One that appears later is stopped by the mark, or by this kick's entry.
                        if self.holding(&found.entry, &mine.id).await? == Holding::Held {
                            return Ok(Claimed::Held(found.entry.holder()));
                        }
                        revision = contested;
                    }
                }
                let expect = Expect::Revision(revision);
                if let Some(revision) = self.put(&tie.key, &mine, expect, ttl).await? {
                    return Ok(taken(revision));
                }
            }
        }
    }

    /// True if a key is still the message's, just before that is sent.
    async fn is_kept(self, key: &UniqueKey, taken: &Taken, id: &JobId) -> Result<bool> {
        if taken.began.elapsed() <= STALE {
            return Ok(true);
        }
        let found = entry::get(&*self.backend.kv, key).await?;
        Ok(found.is_none_or(|found| found.entry.id == *id))
    }

    /// Gives back a key whose job was not kicked.
    pub(crate) async fn give_back(self, key: &UniqueKey, taken: &Taken) -> Result<()> {
        entry::remove(&*self.backend.kv, key, taken.revision).await
    }

    /// The job that holds a key.
    pub(crate) async fn holder_of(self, key: &UniqueKey) -> Result<Option<JobId>> {
        let Some(found) = entry::get(&*self.backend.kv, key).await? else { return Ok(None) };
        let held = self.holding(&found.entry, &JobId::from("")).await? == Holding::Held;
        Ok(held.then_some(found.entry.id))
    }

    fn entry_of(self, tie: &UniqueTie, message: &Message) -> KeyEntry {
        let now = self.backend.now();
        let until: Option<Timestamp> = (!tie.terms.within.is_zero()).then(|| now + tie.terms.within);
        KeyEntry::of(message, now, until)
    }

    async fn put(
        self,
        key: &UniqueKey,
        entry: &KeyEntry,
        expect: Expect,
        ttl: Duration,
    ) -> Result<Option<u64>> {
        entry::put(&*self.backend.kv, key, entry, expect, ttl).await
    }

    async fn holding(self, entry: &KeyEntry, claimant: &JobId) -> Result<Holding> {
        let now = self.backend.now();
        if let Some(freed) = entry.freed {
            let is_held = freed == Freed::Completed && entry.is_in_window(now);
            return Ok(if is_held { Holding::Held } else { Holding::Free });
        }
        if entry.id == *claimant {
            // A job that is rerun by hand, and whose end did not free the key.
            return Ok(Holding::Free);
        }
        Ok(match fate(self.backend, &entry.id).await? {
            Fate::Unfinished => Holding::Held,
            Fate::Completed if entry.is_in_window(now) => Holding::Held,
            Fate::Unknown if now.since(entry.at) < YOUNG => Holding::NotKickedYet,
            Fate::Completed | Fate::Ended | Fate::Unknown => Holding::Doubtful,
        })
    }
}

/// A wait for a job that its entry names and that is not kicked yet.
struct Wait {
    id: JobId,
    began: Instant,
    pause: Duration,
}

impl Wait {
    /// The wait for this job; a new one if it was for another job until now.
    fn of<'a>(wait: &'a mut Option<Self>, id: &JobId) -> &'a mut Self {
        wait.take_if(|wait| wait.id != *id);
        wait.get_or_insert_with(|| Self { id: id.clone(), began: Instant::now(), pause: FIRST_PAUSE })
    }

    /// The next pause; `None` once the wait is over.
    fn next_pause(&mut self) -> Option<Duration> {
        let left = PATIENCE.saturating_sub(self.began.elapsed());
        let pause = self.pause.min(left);
        self.pause *= 2;
        (!pause.is_zero()).then_some(pause)
    }
}

impl KeyEntry {
    pub(super) fn holder(&self) -> Holder {
        Holder { id: self.id.clone(), queue: self.queue.clone() }
    }
}

/// Whether the job that an entry names holds the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    Held,
    /// The job has freed the key.
    Free,
    /// The job is not known, and its kicker may be about to send it.
    NotKickedYet,
    /// The job has ended without freeing the key, or is not known.
    Doubtful,
}

pub(super) fn contended(key: &UniqueKey) -> Error {
    let why = format!("the unique key {key} changed hands for the whole deadline; kick again");
    Error::new(ErrorKind::Deadline, why)
}
