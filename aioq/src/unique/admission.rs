//! The worker's side of a key: asking before the body starts, and freeing at the end.

use std::time::Duration;

use super::entry::{self, Freed, KeyEntry, StoredEntry, Tenant, UNFREED_TTL};
use crate::error::Result;
use crate::fault::{Fault, point};
use crate::message::{Envelope, JobId, Message, UniqueKey, UniqueTie};
use crate::store::{Expect, KvStore, Status};
use crate::time::Timestamp;

/// Number of tries to free a key. Only a kick that doubts the job can be in between.
const TRIES: u32 = 3;

/// Result of asking whether a job may start.
#[derive(Debug)]
pub(crate) enum Admission {
    /// The key is the job's.
    Held(HeldKey),
    /// The key is another job's.
    TakenBy(JobId),
    /// The job is debounced: this message takes the place of the delivered one.
    Replaced(Envelope),
}

/// A key as the worker of its job knows it.
#[derive(Clone, Debug)]
pub(crate) struct HeldKey {
    key: UniqueKey,
    stored: StoredEntry,
}

/// Asks whether a job may start: the entry must name it, and the mark of a kick that doubts the job
/// must be cleared first. A job without an entry takes the key.
///
/// `within` is the window of a job whose entry was lost. `is_due` compares the due time of a newer
/// trigger with the clocks of the worker and the broker.
pub(crate) async fn admit(
    kv: &dyn KvStore,
    tie: &UniqueTie,
    message: &Message,
    within: Duration,
    now: Timestamp,
    is_due: impl Fn(Timestamp) -> bool,
) -> Result<Admission> {
    let key = &tie.key;
    let held = |entry, revision| {
        Admission::Held(HeldKey { key: key.clone(), stored: StoredEntry { entry, revision } })
    };
    loop {
        let found = entry::get(kv, key).await?;
        let (entry, expect) = match found {
            Some(StoredEntry { entry, .. }) if entry.id != message.id => {
                return Ok(Admission::TakenBy(entry.id));
            }
            Some(StoredEntry { mut entry, revision }) => {
                match &mut entry.burst {
                    Some(burst)
                        if !burst.closed
                            && tie.version.is_none_or(|version| version < burst.version)
                            && !is_due(burst.due) =>
                    {
                        return Ok(Admission::Replaced(burst.put_off()?));
                    }
                    Some(burst)
                        if burst.closed && tie.version.is_some_and(|version| version < burst.version) =>
                    {
                        return Ok(Admission::Replaced(burst.run_now()?));
                    }
                    Some(burst) if !burst.closed => burst.closed = true,
                    _ if !entry.contested && entry.freed.is_none() => return Ok(held(entry, revision)),
                    _ => {}
                }
                (KeyEntry { contested: false, freed: None, ..entry }, Expect::Revision(revision))
            }
            None => {
                let at = message.kicked_at.unwrap_or(now);
                let until = (!within.is_zero()).then(|| at + within);
                (KeyEntry::of(message, now, until), Expect::Absent)
            }
        };
        let is_newest =
            entry.burst.as_ref().is_none_or(|burst| tie.version.is_none_or(|own| own >= burst.version));
        if let Some(revision) = entry::put(kv, key, &entry, expect, UNFREED_TTL).await? {
            if entry.burst.is_some() {
                point(Fault::Closed);
            }
            if is_newest {
                return Ok(held(entry, revision));
            }
        }
    }
}

impl HeldKey {
    /// Frees the key at the end of its job, or as its job starts.
    pub(crate) async fn free(self, kv: &dyn KvStore, status: Status, now: Timestamp) {
        let KeyEntry { id, kicked_at, .. } = &self.stored.entry;
        let tenant = Tenant { key: &self.key, id, kicked_at: *kicked_at };
        free_from(kv, tenant, Some(self.stored.clone()), status, now).await;
    }
}

/// Frees a key at the end of a job, if it is still that run's.
pub(crate) async fn free(kv: &dyn KvStore, tenant: Tenant<'_>, status: Status, now: Timestamp) {
    free_from(kv, tenant, None, status, now).await;
}

/// The write is tried a few times, not until it succeeds: the next kick frees a key that was not
/// freed, because it asks the job.
async fn free_from(
    kv: &dyn KvStore,
    tenant: Tenant<'_>,
    known: Option<StoredEntry>,
    status: Status,
    now: Timestamp,
) {
    if let Err(error) = try_free(kv, tenant, known, status, now).await {
        let Tenant { id, key, .. } = tenant;
        tracing::debug!(%id, %key, %error, "the unique key of an ended job was not freed; the next kick of the key does it");
    }
}

async fn try_free(
    kv: &dyn KvStore,
    tenant: Tenant<'_>,
    mut known: Option<StoredEntry>,
    status: Status,
    now: Timestamp,
) -> Result<()> {
    let freed = if status == Status::Completed { Freed::Completed } else { Freed::Otherwise };
    for _ in 0..TRIES {
        let stored = match known.take() {
            Some(stored) => Some(stored),
            None => entry::get(kv, tenant.key).await?,
        };
        let Some(StoredEntry { entry, revision }) = stored.filter(|stored| stored.entry.is_of(tenant)) else {
            return Ok(());
        };
        if entry.freed.is_some() {
            return Ok(());
        }
        let (entry, ttl) = entry.freed(freed, now);
        if entry::put(kv, tenant.key, &entry, Expect::Revision(revision), ttl).await?.is_some() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[tokio::test]
    async fn a_late_end_of_a_job_leaves_its_key_with_the_rerun() {
        let backend = crate::Backend::from(Memory::new());
        backend.startup().await.unwrap();
        let (kv, key, id) = (&**backend.kv(), UniqueKey::of_bytes([1; 16]), JobId::from("job"));
        let times = [1, 2].map(Timestamp::from_micros);
        let mut entry = KeyEntry::new(id.clone(), "default".into(), times[1], None);
        entry.kicked_at = Some(times[1]);
        let free = async |kicked_at| {
            let tenant = Tenant { key: &key, id: &id, kicked_at };
            free(kv, tenant, Status::Failed, times[1]).await;
            entry::get(kv, &key).await.unwrap().unwrap().entry.freed
        };
        entry::put(kv, &key, &entry, Expect::Absent, UNFREED_TTL).await.unwrap();
        assert_eq!(free(Some(times[0])).await, None);
        assert_eq!(free(Some(times[1])).await, Some(Freed::Otherwise));
    }
}
