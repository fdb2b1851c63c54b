//! A map whose entries have a revision and an optional TTL.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::clock;
use crate::broker::Expect;
use crate::error::{Error, ErrorKind, Result};

/// Entries by key. An expired entry counts as absent; [`pop_expired`](Self::pop_expired) removes
/// it.
pub(super) struct Table<K, V> {
    entries: HashMap<K, Versioned<V>, RandomState>,
    ends: BTreeMap<(Instant, u64), K>,
    /// Latest revision. One counter for all keys, so that revisions of a key rise across a removal.
    revision: u64,
}

/// A value with its revision.
pub(super) struct Versioned<V> {
    pub(super) value: V,
    pub(super) revision: u64,
    ends_at: Option<Instant>,
}

impl<V> Versioned<V> {
    fn is_live(&self, now: Instant) -> bool {
        self.ends_at.is_none_or(|end| end > now)
    }
}

impl<K: Clone + Eq + Hash, V> Table<K, V> {
    pub(super) fn new() -> Self {
        Self { entries: HashMap::default(), ends: BTreeMap::new(), revision: 0 }
    }

    pub(super) fn get<Q>(&self, key: &Q, now: Instant) -> Option<&Versioned<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.get(key).filter(|entry| entry.is_live(now))
    }

    /// Checks that `expect` holds for `key`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it does not.
    pub(super) fn check<Q>(&self, key: &Q, expect: Expect, now: Instant) -> Result<()>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + fmt::Display + ?Sized,
    {
        check(key, expect, self.get(key, now).map(|entry| entry.revision))
    }

    /// Writes an entry. Returns its revision, and the entry that it replaced.
    pub(super) fn put(
        &mut self,
        key: K,
        value: V,
        ttl: Option<Duration>,
        now: Instant,
    ) -> (u64, Option<Versioned<V>>) {
        self.revision += 1;
        let revision = self.revision;
        let ends_at = ttl.map(|ttl| clock::after(now, ttl));
        if let Some(end) = ends_at {
            self.ends.insert((end, revision), key.clone());
        }
        let old = self.entries.insert(key, Versioned { value, revision, ends_at });
        if let Some(old) = &old {
            self.forget_end(old);
        }
        (revision, old)
    }

    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<Versioned<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entry = self.entries.remove(key)?;
        self.forget_end(&entry);
        Some(entry)
    }

    /// Removes an entry that has expired.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<(K, Versioned<V>)> {
        let first = self.ends.first_entry().filter(|entry| entry.key().0 <= now)?;
        let key = first.remove();
        self.entries.remove_entry(&key)
    }

    fn forget_end(&mut self, entry: &Versioned<V>) {
        if let Some(end) = entry.ends_at {
            self.ends.remove(&(end, entry.revision));
        }
    }
}

/// Checks that `expect` holds if `found` is the revision of `key`.
///
/// # Errors
/// [`ErrorKind::Conflict`] if it does not.
pub(super) fn check(key: impl fmt::Display, expect: Expect, found: Option<u64>) -> Result<()> {
    let wanted = match expect {
        Expect::Any => return Ok(()),
        Expect::Absent => None,
        Expect::Revision(revision) => Some(revision),
    };
    if found == wanted { Ok(()) } else { Err(conflict(key, found, wanted)) }
}

fn conflict(key: impl fmt::Display, found: Option<u64>, wanted: Option<u64>) -> Error {
    let say = |revision: Option<u64>| match revision {
        Some(revision) => format!("revision {revision}"),
        None => "nothing".to_owned(),
    };
    let message = format!("conflict on `{key}`: expected {}, found {}", say(wanted), say(found));
    Error::new(ErrorKind::Conflict, message)
}
