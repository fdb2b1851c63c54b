//! One lane of one queue, as a listener sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aioq::broker::Delivery;
use aioq::{JobId, Timestamp};
use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use tokio::time::Instant;

use super::fairness::Stand;
use crate::api::number;
use crate::kick::{SHORTEST_SCHEDULE, is_resent, not_before};
use crate::receipt::{NatsReceipt, Source};
use crate::setup::consumers::Info;
use crate::wire::ack_subject::Delivered;
use crate::wire::subject::{Lane, Place, consumer_name};

/// How long a request for a few messages waits at the server.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a request for many messages that are known to be there waits: no longer than it takes to see that
/// other workers took them.
const BULK_PATIENCE: Duration = Duration::from_secs(1);

/// How often the server says that it still knows of a request.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// A server that was silent for longer, and is heard again, was away.
const GAP: Duration = Duration::from_millis(4_500);

/// A lane that was asked and says nothing for this long is asked anew.
const SILENCE: Duration = Duration::from_secs(7);

/// How long to wait after a refusal.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a lane that should have more is waited for before lanes behind it get their turn: a few round trips, and some for a busy machine.
const OWED: Duration = Duration::from_millis(10);

/// How many messages whose time has not come a lane keeps; the server keeps the others.
const MOST_EARLY: usize = 256;

/// How many deliveries a server that crashed may have forgotten of one consumer: it writes down what it has delivered
/// ten times a second, and no consumer delivers so many in a few times that.
const FORGOTTEN: u64 = 8_192;

/// Which messages may have been delivered before although the server says that they come for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Doubt {
    /// What was stored later is not in doubt.
    stored: u64,
    /// What is not behind this is in doubt: it has come here, or the consumer knows that it delivered it.
    delivered: u64,
    /// So are the deliveries up to this number: as many as the server may have forgotten, to whomever they went.
    deliveries: u64,
}

impl Doubt {
    fn all(stored: u64) -> Self {
        Self { stored, delivered: stored, deliveries: u64::MAX }
    }

    /// `newest` is the newest message that has come here.
    fn narrow(&mut self, newest: u64, consumer: &Info) {
        // A consumer that has delivered nothing may be another than before.
        if self.deliveries == u64::MAX && consumer.deliveries > 0 {
            self.delivered = self.stored.min(newest.max(consumer.delivered));
            self.deliveries = consumer.deliveries.saturating_add(FORGOTTEN);
        }
    }

    fn covers(&self, delivered: &Delivered) -> bool {
        let may_be_forgotten = delivered.count <= self.deliveries;
        delivered.sequence <= self.delivered || (may_be_forgotten && delivered.sequence <= self.stored)
    }
}

/// A message that has come and has not been handed out.
struct Held {
    id: JobId,
    body: Bytes,
    reply: Subject,
    delivered: Delivered,
    /// It may have been delivered before, under another sequence.
    resent: bool,
    /// When its lease began or was extended.
    leased: Instant,
    /// Not to be handed out before.
    due: Instant,
}

impl Held {
    /// How to give it back.
    fn into_return(self, now: Instant) -> Return {
        Return { reply: self.reply, delay: self.due.saturating_duration_since(now) }
    }
}

/// A message to give back.
pub(super) struct Return {
    pub(super) reply: Subject,
    /// To be delivered again after this.
    pub(super) delay: Duration,
}

pub(super) struct LaneIntake {
    source: Arc<Source>,
    pub(super) class: Lane,
    /// Where requests go.
    requests: Subject,
    held: VecDeque<Held>,
    /// Messages whose time has not come.
    early: Vec<Held>,
    asked: usize,
    pending: usize,
    /// The last sign of life since something was asked.
    heard: Instant,
    /// The last request or message.
    moved: Instant,
    /// It has ever said anything.
    spoke: bool,
    /// Not to be asked before.
    pub(super) not_before: Instant,
    /// Its consumer must be looked up, and declared if it is gone.
    pub(super) unsure: bool,
    /// The newest message that has come.
    newest: u64,
    /// Which messages may have been delivered before, whatever the server says.
    doubt: Doubt,
    /// It is in line to hand something out.
    in_line: bool,
}

impl LaneIntake {
    pub(super) fn new(source: Arc<Source>, class: Lane) -> Self {
        let (stream, consumer) = (&source.session.names.jobs, consumer_name(&source.queue, class));
        let requests = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}").into();
        let (held, now) = (VecDeque::new(), Instant::now());
        Self {
            source,
            class,
            requests,
            held,
            early: Vec::new(),
            asked: 0,
            pending: 0,
            heard: now,
            moved: now,
            spoke: false,
            not_before: now,
            unsure: false,
            newest: 0,
            doubt: Doubt::default(),
            in_line: false,
        }
    }

    /// The subject that it is asked for messages on.
    pub(super) fn requests(&self) -> &str {
        &self.requests
    }

    pub(super) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// What its messages' subjects say between the kind and the id: queue and lane.
    pub(super) fn tokens(&self) -> String {
        format!("{}.{}", crate::wire::token::escape(&self.source.queue), self.class.token())
    }

    /// Messages that can be handed out.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Messages that are here.
    pub(super) fn kept(&self) -> usize {
        self.held.len() + self.early.len()
    }

    /// Whether a message should come any moment: the consumer was asked just now, and had more, or has never been
    /// heard of.
    pub(super) fn owes(&self, now: Instant) -> bool {
        let may_have_more = self.pending > 0 || !self.spoke;
        self.asked > 0 && may_have_more && self.held.is_empty() && now < self.moved + OWED
    }

    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    pub(super) fn stand(&self) -> Stand {
        Stand { class: self.class, held: self.held.len(), asked: self.asked, pending: self.pending }
    }

    /// The request for `batch` more messages; `None` if it must not be asked now.
    pub(super) fn request(&self, batch: usize, now: Instant) -> Option<(Subject, Bytes)> {
        if batch == 0 || self.unsure || now < self.not_before {
            return None;
        }
        let body = match self.pending >= self.asked + batch {
            true => format!("{{\"batch\":{batch},\"expires\":{}}}", BULK_PATIENCE.as_nanos()),
            false => {
                let (patience, heartbeat) = (PATIENCE.as_nanos(), HEARTBEAT.as_nanos());
                format!("{{\"batch\":{batch},\"expires\":{patience},\"idle_heartbeat\":{heartbeat}}}")
            }
        };
        Some((self.requests.clone(), body.into()))
    }

    pub(super) fn note_asked(&mut self, batch: usize, now: Instant) {
        self.asked += batch;
        (self.heard, self.moved) = (now, now);
    }

    /// Takes in a message; what is to be given back at once.
    pub(super) fn receive(&mut self, message: Message, now: Instant) -> Option<Return> {
        self.note_gap(now);
        (self.heard, self.moved, self.spoke) = (now, now, true);
        self.asked = self.asked.saturating_sub(1);
        let reply = message.reply?;
        let (delivered, place) = (Delivered::read(&reply)?, Place::of(&message.subject)?);
        self.pending = usize::try_from(delivered.pending).unwrap_or(usize::MAX);
        self.newest = self.newest.max(delivered.sequence);
        let id = place.job_id();
        let early = message.headers.as_ref().map_or(Duration::ZERO, time_left);
        let resent = message.headers.as_ref().is_some_and(is_resent);
        let held =
            Held { id, body: message.payload, reply, delivered, resent, leased: now, due: now + early };
        match early.is_zero() {
            true => self.held.push_back(held),
            false if self.early.len() < MOST_EARLY => self.early.push(held),
            false => return Some(held.into_return(now)),
        }
        None
    }

    /// Notes that the server was away, if it was silent for longer than it should be.
    fn note_gap(&self, now: Instant) {
        if self.asked > 0 && now >= self.heard + GAP {
            self.source.session.absence.ends();
        }
    }

    /// Moves messages whose time has come to those that can be handed out.
    pub(super) fn admit_due(&mut self, now: Instant) {
        if self.next_due().is_some_and(|due| due <= now) {
            let mut due: Vec<_> = self.early.extract_if(.., |held| held.due <= now).collect();
            due.sort_by_key(|held| held.due);
            self.held.extend(due);
        }
    }

    /// When the time of the next message comes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.early.iter().map(|held| held.due).min()
    }

    /// Takes in what the server says about a request.
    pub(super) fn receive_status(&mut self, status: StatusCode, message: &Message, now: Instant) {
        self.note_gap(now);
        (self.heard, self.spoke) = (now, true);
        if status == StatusCode::IDLE_HEARTBEAT {
            return;
        }
        // How much of the request was left; a request that was refused at once is not accounted for.
        let left = message.headers.as_ref().and_then(|headers| number(headers, "Nats-Pending-Messages"));
        let left = left.map_or(self.asked, |left| usize::try_from(left).unwrap_or(usize::MAX));
        self.asked = self.asked.saturating_sub(left);
        let why = message.description.as_deref().unwrap_or_default();
        if matches!(status, StatusCode::TIMEOUT | StatusCode::NOT_FOUND) {
            self.pending = 0;
        } else if why != "Batch Completed" {
            tracing::debug!(queue = %self.source.queue, lane = self.class.token(), %status, why, "a pull request ended");
            self.not_before = now + PAUSE;
            // Nobody answers for the consumer, or it was deleted, or it moves.
            self.unsure = true;
        }
    }

    /// When to stop believing in the requests that are under way.
    pub(super) fn silent_from(&self) -> Option<Instant> {
        (self.asked > 0).then_some(self.heard + SILENCE)
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silent_from().is_some_and(|at| now >= at)
    }

    /// Whether it is silent, or its consumer must be looked up and may be now.
    pub(super) fn needs_care(&self, now: Instant) -> bool {
        self.is_silent(now) || (self.unsure && now >= self.not_before)
    }

    /// The server may have forgotten deliveries of the messages that it had stored by now, up to that sequence.
    pub(super) fn doubt(&mut self, stored: u64) {
        self.doubt = Doubt::all(stored);
    }

    /// Limits the doubt to what the consumer, as it is found now, and this listener tell.
    pub(super) fn found(&mut self, consumer: &Info) {
        self.doubt.narrow(self.newest, consumer);
    }

    /// Forgets the requests that are under way: they are lost, because the server is away or was.
    pub(super) fn forget_requests(&mut self) {
        self.source.session.absence.ends();
        self.asked = 0;
        self.pending = 0;
        self.unsure = true;
    }

    /// Whether it is to be put in line now: it holds something and is not in line.
    pub(super) fn lines_up(&mut self) -> bool {
        let joins = !self.in_line && !self.held.is_empty();
        self.in_line |= joins;
        joins
    }

    /// Its turn has come.
    pub(super) fn leaves_line(&mut self) {
        self.in_line = false;
    }

    /// The message that came first, unless its lease has passed: then it comes again, here or elsewhere.
    pub(super) fn hand_out(&mut self, now: Instant) -> Option<Delivery> {
        let ack_wait = self.source.ack_wait.get();
        loop {
            let held = self.held.pop_front()?;
            if now < held.leased + ack_wait {
                return Some(self.delivery(held));
            }
        }
    }

    fn delivery(&self, held: Held) -> Delivery {
        let Held { id, body, reply, delivered, resent, .. } = held;
        let source = Arc::clone(&self.source);
        let receipt = NatsReceipt { source, id: id.clone(), reply, sequence: delivered.sequence };
        let doubtful = resent || self.doubt.covers(&delivered);
        let deliveries = if doubtful { delivered.deliveries.max(2) } else { delivered.deliveries };
        let queue = self.source.queue.clone();
        Delivery { id, queue, body, deliveries, receipt: Arc::new(receipt) }
    }

    /// Takes back the message that would be handed out last, to give it back.
    pub(super) fn take_back(&mut self, now: Instant) -> Option<Return> {
        let last = self.early.pop().or_else(|| self.held.pop_back())?;
        Some(last.into_return(now))
    }

    /// Forgets the messages that are here; how many.
    pub(super) fn forget_held(&mut self) -> usize {
        self.held.drain(..).chain(self.early.drain(..)).count()
    }

    /// When the next lease is due to be extended.
    pub(super) fn next_lease(&self) -> Option<Instant> {
        let third = self.source.ack_wait.get() / 3;
        self.early.iter().map(|held| held.leased + third).min()
    }

    /// The leases that are due to be extended; they count as extended from now on.
    pub(super) fn due_leases(&mut self, now: Instant) -> impl Iterator<Item = Subject> + '_ {
        let third = self.source.ack_wait.get() / 3;
        let due = move |held: &&mut Held| now >= held.leased + third;
        self.held.iter_mut().chain(&mut self.early).filter(due).map(move |held| {
            held.leased = now;
            held.reply.clone()
        })
    }
}

/// How long until the time of a message that carries one. It was less than that when it was kicked, so more can only
/// be the difference of two clocks.
fn time_left(headers: &HeaderMap) -> Duration {
    not_before(headers).map_or(Duration::ZERO, Timestamp::until).min(SHORTEST_SCHEDULE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_restart_only_what_may_have_been_delivered_is_in_doubt() {
        let delivered = |sequence, count| Delivered { deliveries: 1, sequence, count, pending: 0 };
        let consumer = |delivered, deliveries| Info::of(delivered, deliveries);
        let mut doubt = Doubt::default();
        assert!(!doubt.covers(&delivered(1, 1)));
        doubt = Doubt::all(1_000_000);
        assert!(doubt.covers(&delivered(1_000_000, 900_000)) && !doubt.covers(&delivered(1_000_001, 1)));
        // A consumer that is new tells nothing.
        doubt.narrow(70, &consumer(0, 0));
        assert_eq!(doubt, Doubt::all(1_000_000));
        doubt.narrow(70, &consumer(50, 100));
        // What came here, what others may have got, and the rest of the backlog.
        assert!(doubt.covers(&delivered(70, 100 + FORGOTTEN + 1)));
        assert!(doubt.covers(&delivered(90_000, 100 + FORGOTTEN)));
        assert!(!doubt.covers(&delivered(90_000, 101 + FORGOTTEN)));
        // Asked again later, the consumer has delivered more; that is not in doubt.
        doubt.narrow(70, &consumer(500_000, 500_000));
        assert!(!doubt.covers(&delivered(400_000, 400_000)));
    }
}
