//! A map whose entries have a revision and may have an end.

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

/// Entries by key. An entry whose time has passed is as good as gone; [`pop_expired`](Self::pop_expired)
/// takes it out.
pub(super) struct Table<K, V> {
    slots: HashMap<K, Slot<V>, RandomState>,
    ends: BTreeMap<(Instant, u64), K>,
    /// The latest revision given out; one counter for all keys, so it grows over a removal too.
    revision: u64,
}

/// An entry.
pub(super) struct Slot<V> {
    pub(super) value: V,
    pub(super) revision: u64,
    ends_at: Option<Instant>,
}

impl<V> Slot<V> {
    fn is_live(&self, now: Instant) -> bool {
        self.ends_at.is_none_or(|end| end > now)
    }
}

impl<K: Clone + Eq + Hash, V> Table<K, V> {
    pub(super) fn new() -> Self {
        Self { slots: HashMap::default(), ends: BTreeMap::new(), revision: 0 }
    }

    pub(super) fn get<Q>(&self, key: &Q, now: Instant) -> Option<&Slot<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.slots.get(key).filter(|slot| slot.is_live(now))
    }

    /// Whether `expect` holds for `key`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it does not.
    pub(super) fn check<Q>(&self, key: &Q, expect: Expect, now: Instant) -> Result<()>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + fmt::Display + ?Sized,
    {
        check(key, expect, self.get(key, now).map(|slot| slot.revision))
    }

    /// Writes an entry; its revision, and the entry that was in its place.
    pub(super) fn put(
        &mut self,
        key: K,
        value: V,
        ttl: Option<Duration>,
        now: Instant,
    ) -> (u64, Option<Slot<V>>) {
        self.revision += 1;
        let revision = self.revision;
        let ends_at = ttl.map(|ttl| clock::after(now, ttl));
        if let Some(end) = ends_at {
            self.ends.insert((end, revision), key.clone());
        }
        let old = self.slots.insert(key, Slot { value, revision, ends_at });
        if let Some(old) = &old {
            self.forget_end(old);
        }
        (revision, old)
    }

    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<Slot<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let slot = self.slots.remove(key)?;
        self.forget_end(&slot);
        Some(slot)
    }

    /// Takes out an entry whose time has passed.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<(K, Slot<V>)> {
        let first = self.ends.first_entry().filter(|entry| entry.key().0 <= now)?;
        let key = first.remove();
        self.slots.remove_entry(&key)
    }

    fn forget_end(&mut self, slot: &Slot<V>) {
        if let Some(end) = slot.ends_at {
            self.ends.remove(&(end, slot.revision));
        }
    }
}

/// Whether `expect` holds where that revision of `key` was found.
///
/// # Errors
/// [`ErrorKind::Conflict`] if it does not.
pub(super) fn check(key: impl fmt::Display, expect: Expect, found: Option<u64>) -> Result<()> {
    let wanted = match expect {
        Expect::Any => return Ok(()),
        Expect::Absent => None,
        Expect::Revision(revision) => Some(revision),
    };
    match found == wanted {
        true => Ok(()),
        false => Err(conflict(key, found, wanted)),
    }
}

fn conflict(key: impl fmt::Display, found: Option<u64>, wanted: Option<u64>) -> Error {
    let say = |revision: Option<u64>| match revision {
        Some(revision) => format!("revision {revision}"),
        None => "nothing".to_owned(),
    };
    let message =
        format!("`{key}` was written by somebody else: expected {}, found {}", say(wanted), say(found));
    Error::new(ErrorKind::Conflict, message)
}
