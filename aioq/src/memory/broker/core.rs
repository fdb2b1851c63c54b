//! The state of the broker behind one lock, and the inbox in front of it.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use futures_util::stream::BoxStream;

use super::inbox::Inbox;
use super::ops::{DeliveryTag, Incoming, Op, PendingOp};
use super::queues::QueueEntry;
use super::state::State;
use crate::broker::{Expect, Kicked, Queued};
use crate::error::Result;
use crate::memory::ordered_ids::OrderedIds;
use crate::memory::{Guarded, clock, not_started, watch};
use crate::message::{Envelope, JobId};

/// All messages.
///
/// Kicks and acks go to the inbox while nobody waits for them, so that threads contend neither on
/// the lock nor on the memory behind it. Each access to the state applies the inbox first.
pub(super) struct Core {
    inbox: Inbox<PendingOp>,
    state: Arc<Guarded<State>>,
    hasher: RandomState,
}

impl Core {
    pub(super) fn new() -> Self {
        Self { inbox: Inbox::new(), state: Guarded::new(State::default()), hasher: RandomState::default() }
    }

    pub(super) fn startup(&self) {
        self.state.startup();
        self.inbox.set_open(true);
    }

    /// Ends the streams of watchers. Waiting listeners return an error.
    pub(super) fn shutdown(&self) {
        self.inbox.set_open(false);
        self.locked(|state| state.queues.waiters.wake_all());
        watch::shutdown(&self.state);
    }

    /// Runs `section` on the state, also after a shutdown.
    pub(super) fn locked<R>(&self, section: impl FnOnce(&mut State) -> R) -> R {
        // Dropped after the lock is released, so that other threads do not wait for the
        // deallocation.
        let mut gone = Vec::new();
        let mut guard = self.state.lock();
        let state = &mut guard.content;
        self.drain_inbox(state, &mut gone);
        let result = section(state);
        if self.inbox.set_awaited(state.is_awaited()) {
            // An operation may have been pushed just before `awaited` was set.
            self.drain_inbox(state, &mut gone);
        }
        drop(guard);
        result
    }

    /// Runs `section` on the state.
    ///
    /// # Errors
    /// [`NotStarted`](crate::ErrorKind::NotStarted) before `startup` and after `shutdown`.
    pub(super) fn with<R>(&self, section: impl FnOnce(&mut State) -> R) -> Result<R> {
        if self.inbox.is_open() { Ok(self.locked(section)) } else { Err(not_started()) }
    }

    /// Applies the operations in the inbox.
    fn drain_inbox(&self, state: &mut State, gone: &mut Vec<QueueEntry>) {
        let mut pending = std::mem::take(&mut state.pending);
        if self.inbox.drain(&mut pending) {
            // Merges the sorted runs of the threads.
            pending.sort_by_key(|pending| pending.id);
            for PendingOp { id, op } in pending.drain(..) {
                match op {
                    Op::Kick(incoming) => _ = state.add(incoming, id),
                    Op::Ack(tag) => gone.extend(state.ack(&tag)),
                }
            }
        }
        state.pending = pending;
    }

    pub(super) fn kick(&self, envelope: Envelope, expect: Expect) -> Result<Kicked> {
        let now = Instant::now();
        // A chosen id needs its answer now, and a delay may be the next timer that a listener waits
        // for.
        let at_once = expect != Expect::Any || envelope.not_before.is_some();
        let incoming = self.incoming(envelope, now);
        if at_once {
            return self.with(|state| state.kick(incoming, now));
        }
        self.push(|ids| PendingOp { id: ids.next(now), op: Op::Kick(incoming) })?;
        Ok(Kicked::New)
    }

    /// Kicks several messages under one lock. Returns their results in order.
    pub(super) fn kick_all(&self, envelopes: impl Iterator<Item = Envelope>) -> Result<Vec<Kicked>> {
        let now = Instant::now();
        let incoming: Vec<Incoming> = envelopes.map(|envelope| self.incoming(envelope, now)).collect();
        self.with(|state| incoming.into_iter().map(|incoming| state.kick(incoming, now)).collect())
    }

    fn incoming(&self, envelope: Envelope, now: Instant) -> Incoming {
        Incoming { hash: self.hash(&envelope.id), envelope, ready_since: clock::at(now) }
    }

    pub(super) fn ack(&self, tag: DeliveryTag) -> Result<()> {
        self.push(|ids| PendingOp { id: ids.next_untimed(), op: Op::Ack(tag) })
    }

    fn push(&self, pending: impl FnOnce(&mut OrderedIds) -> PendingOp) -> Result<()> {
        if !self.inbox.is_open() {
            return Err(not_started());
        }
        if self.inbox.push(pending) {
            self.locked(|_| ());
        }
        Ok(())
    }

    pub(super) fn hash(&self, id: &JobId) -> u64 {
        self.hasher.hash_one(id)
    }

    pub(super) fn watch(&self, backlog: usize) -> Result<BoxStream<'static, Queued>> {
        let receiver = self.with(|state| state.watchers.subscribe((), backlog))?;
        Ok(watch::stream(Arc::clone(&self.state), (), receiver))
    }
}
