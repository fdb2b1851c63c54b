//! The door to the messages: one lock, and boxes before it.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use futures_util::stream::BoxStream;

use super::boxes::Boxes;
use super::places::Message;
use super::stamp::Stamps;
use super::state::{Arrival, Loan, State};
use super::{Guarded, clock, not_started, watch};
use crate::broker::{Expect, Kicked, Queued};
use crate::error::Result;
use crate::message::{Envelope, JobId};

/// All messages. Kicks and acks that nobody waits for are left in boxes, so that threads neither wait for each other
/// nor write what all of them read; whoever comes in takes along what lies there, and sees no difference.
pub(super) struct Desk {
    boxes: Boxes<Left>,
    state: Arc<Guarded<State>>,
    hasher: RandomState,
}

/// What was left in a box, and its number.
pub(super) struct Left {
    number: u64,
    deed: Deed,
}

enum Deed {
    Kick(Arrival),
    Ack(Loan),
}

impl Desk {
    pub(super) fn new() -> Self {
        Self { boxes: Boxes::new(), state: Guarded::new(State::default()), hasher: RandomState::default() }
    }

    pub(super) fn startup(&self) {
        self.state.startup();
        self.boxes.set_open(true);
    }

    /// Ends the streams of watchers; those who wait come back with an error.
    pub(super) fn shutdown(&self) {
        self.boxes.set_open(false);
        self.look(|state| state.places.seats.ring_all());
        watch::shutdown(&self.state);
    }

    /// Looks at the messages, also after a shutdown.
    pub(super) fn look<R>(&self, section: impl FnOnce(&mut State) -> R) -> R {
        // Dropped outside of the lock: what it frees, others need not wait for.
        let mut gone = Vec::new();
        let mut guard = self.state.lock();
        let state = &mut guard.content;
        self.bring_in(state, &mut gone);
        let seen = section(state);
        if self.boxes.set_awaited(state.is_awaited()) {
            // It may have been left just before that was said.
            self.bring_in(state, &mut gone);
        }
        drop(guard);
        seen
    }

    /// Looks at the messages.
    ///
    /// # Errors
    /// [`NotStarted`](crate::ErrorKind::NotStarted) before `startup` and after `shutdown`.
    pub(super) fn with<R>(&self, section: impl FnOnce(&mut State) -> R) -> Result<R> {
        match self.boxes.is_open() {
            true => Ok(self.look(section)),
            false => Err(not_started()),
        }
    }

    /// Does what was left to be done.
    fn bring_in(&self, state: &mut State, gone: &mut Vec<Message>) {
        let mut left = std::mem::take(&mut state.left);
        if self.boxes.empty(&mut left) {
            // Of several threads, mostly: their parts are merged.
            left.sort_by_key(|left| left.number);
            for Left { number, deed } in left.drain(..) {
                match deed {
                    Deed::Kick(arrival) => _ = state.arrive(arrival, number),
                    Deed::Ack(loan) => gone.extend(state.ack(&loan)),
                }
            }
        }
        state.left = left;
    }

    pub(super) fn kick(&self, envelope: Envelope, expect: Expect) -> Result<Kicked> {
        let now = Instant::now();
        // Whether a chosen id is taken must be known now, and a delay may be what somebody waits for.
        let at_once = expect != Expect::Any || envelope.not_before.is_some();
        let arrival = self.arrival(envelope, now);
        if at_once {
            return self.with(|state| state.kick(arrival, now));
        }
        self.leave(|stamps| Left { number: stamps.next(now), deed: Deed::Kick(arrival) })?;
        Ok(Kicked::New)
    }

    /// Takes in several messages at once; the fate of each, in order.
    pub(super) fn kick_all(&self, envelopes: impl Iterator<Item = Envelope>) -> Result<Vec<Kicked>> {
        let now = Instant::now();
        let arrivals: Vec<Arrival> = envelopes.map(|envelope| self.arrival(envelope, now)).collect();
        self.with(|state| arrivals.into_iter().map(|arrival| state.kick(arrival, now)).collect())
    }

    fn arrival(&self, envelope: Envelope, now: Instant) -> Arrival {
        Arrival { hash: self.hash(&envelope.id), envelope, since: clock::at(now) }
    }

    pub(super) fn ack(&self, loan: Loan) -> Result<()> {
        self.leave(|stamps| Left { number: stamps.next_untimed(), deed: Deed::Ack(loan) })
    }

    fn leave(&self, left: impl FnOnce(&mut Stamps) -> Left) -> Result<()> {
        if !self.boxes.is_open() {
            return Err(not_started());
        }
        if self.boxes.leave(left) {
            self.look(|_| ());
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
