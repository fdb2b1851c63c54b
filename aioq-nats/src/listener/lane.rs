//! Buffer of one lane of one queue: [`LaneBuffer`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aioq::broker::Delivery;
use aioq::{JobId, Timestamp};
use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use tokio::time::Instant;

use super::doubt::Doubt;
use super::fairness::LaneStats;
use crate::kick::SHORTEST_SCHEDULE;
use crate::receipt::{NatsReceipt, QueueContext};
use crate::setup::consumers::Info;
use crate::wire::ack_subject::AckSubject;
use crate::wire::headers::{is_resent, not_before, number};
use crate::wire::lane::{Lane, consumer_name};
use crate::wire::subject::MessageSubject;
use crate::wire::token::escape;

/// Life of a request that may have to wait for messages.
const REQUEST_LIFE: Duration = Duration::from_secs(30);

/// Life of a request for messages that are pending. Short, so that it ends soon if other workers
/// took them.
const BULK_REQUEST_LIFE: Duration = Duration::from_secs(1);

/// Interval at which the server confirms that it still has a request.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Silence after which the server counts as having been away.
const OUTAGE: Duration = Duration::from_millis(4_500);

/// Silence after which outstanding requests count as lost.
const SILENCE: Duration = Duration::from_secs(7);

/// Pause after a refusal.
const REFUSAL_PAUSE: Duration = Duration::from_millis(500);

/// Time for which lower lanes wait for a message that should come: a few round trips, and some more
/// for a busy machine.
const EXPECTATION: Duration = Duration::from_millis(10);

/// Number of messages that a lane keeps until they are due. The server keeps the others.
const MAX_EARLY: usize = 256;

/// Message received and not yet handed out.
struct Buffered {
    id: JobId,
    body: Bytes,
    reply: Subject,
    delivery: AckSubject,
    /// True if the kick was repeated, so that an earlier copy may have been delivered.
    resent: bool,
    /// Start or last extension of the lease.
    leased: Instant,
    /// Earliest time to hand the message out.
    due: Instant,
}

impl Buffered {
    fn into_release(self, now: Instant) -> Release {
        Release { reply: self.reply, delay: self.due.saturating_duration_since(now) }
    }
}

/// Message to give back.
pub(super) struct Release {
    pub(super) reply: Subject,
    /// Delay before the next delivery.
    pub(super) delay: Duration,
}

/// Buffered messages and outstanding requests of one lane of one queue.
pub(super) struct LaneBuffer {
    queue: Arc<QueueContext>,
    pub(super) lane: Lane,
    /// Subject of pull requests.
    requests: Subject,
    ready: VecDeque<Buffered>,
    /// Messages that are not yet due.
    early: Vec<Buffered>,
    /// Number of messages requested and not yet received.
    outstanding: usize,
    /// Number of messages left at the consumer when the last one came.
    pending: usize,
    /// Time of the last request, message or status.
    last_heard: Instant,
    /// Time of the last request or message.
    last_activity: Instant,
    /// True once the server has sent a message or a status.
    has_responded: bool,
    /// Time before which no request is sent.
    pub(super) paused_until: Instant,
    /// True if the consumer must be looked up, and declared if it is gone.
    pub(super) must_declare: bool,
    /// Newest sequence received.
    newest: u64,
    doubt: Doubt,
    /// True while the lane is among the turns of the listener.
    in_turns: bool,
}

impl LaneBuffer {
    pub(super) fn new(queue: Arc<QueueContext>, lane: Lane) -> Self {
        let (stream, consumer) = (&queue.session.names.jobs, consumer_name(&queue.queue, lane));
        let requests = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}").into();
        let now = Instant::now();
        Self {
            queue,
            lane,
            requests,
            ready: VecDeque::new(),
            early: Vec::new(),
            outstanding: 0,
            pending: 0,
            last_heard: now,
            last_activity: now,
            has_responded: false,
            paused_until: now,
            must_declare: false,
            newest: 0,
            doubt: Doubt::default(),
            in_turns: false,
        }
    }

    /// Subject of pull requests.
    pub(super) fn requests(&self) -> &str {
        &self.requests
    }

    pub(super) fn queue(&self) -> &Arc<QueueContext> {
        &self.queue
    }

    /// `<queue>.<lane>`, as in the subjects of its messages.
    pub(super) fn tokens(&self) -> String {
        format!("{}.{}", escape(&self.queue.queue), self.lane.token())
    }

    /// Number of messages that can be handed out.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Number of messages here, including those not yet due.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.early.len()
    }

    /// Number of messages requested and not yet received.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    pub(super) fn stats(&self) -> LaneStats {
        let Self { lane, outstanding, pending, .. } = *self;
        LaneStats { lane, buffered: self.ready.len(), outstanding, pending }
    }

    /// True if a message should come any moment: one was requested just now from a consumer that
    /// has more, or that has never responded.
    pub(super) fn expects_message(&self, now: Instant) -> bool {
        let may_have_more = self.pending > 0 || !self.has_responded;
        self.outstanding > 0
            && may_have_more
            && self.ready.is_empty()
            && now < self.last_activity + EXPECTATION
    }

    /// Request for `batch` more messages; `None` if none may be sent now.
    pub(super) fn request(&self, batch: usize, now: Instant) -> Option<(Subject, Bytes)> {
        if batch == 0 || self.must_declare || now < self.paused_until {
            return None;
        }
        let body = if self.pending >= self.outstanding + batch {
            format!("{{\"batch\":{batch},\"expires\":{}}}", BULK_REQUEST_LIFE.as_nanos())
        } else {
            let (life, heartbeat) = (REQUEST_LIFE.as_nanos(), HEARTBEAT.as_nanos());
            format!("{{\"batch\":{batch},\"expires\":{life},\"idle_heartbeat\":{heartbeat}}}")
        };
        Some((self.requests.clone(), body.into()))
    }

    /// Notes that a request for `batch` messages was sent.
    pub(super) fn note_requested(&mut self, batch: usize, now: Instant) {
        self.outstanding += batch;
        (self.last_heard, self.last_activity) = (now, now);
    }

    /// Buffers a message. Returns it if it must be given back at once.
    pub(super) fn receive(&mut self, message: Message, now: Instant) -> Option<Release> {
        self.note_outage(now);
        (self.last_heard, self.last_activity, self.has_responded) = (now, now, true);
        self.outstanding = self.outstanding.saturating_sub(1);
        let reply = message.reply?;
        let (delivery, subject) = (AckSubject::parse(&reply)?, MessageSubject::parse(&message.subject)?);
        self.pending = usize::try_from(delivery.pending).unwrap_or(usize::MAX);
        self.newest = self.newest.max(delivery.sequence);
        let headers = message.headers.as_ref();
        let time_left = headers.map_or(Duration::ZERO, time_left);
        let buffered = Buffered {
            id: subject.job_id(),
            body: message.payload,
            delivery,
            resent: headers.is_some_and(is_resent),
            leased: now,
            due: now + time_left,
            reply,
        };
        if time_left.is_zero() {
            self.ready.push_back(buffered);
        } else if self.early.len() < MAX_EARLY {
            self.early.push(buffered);
        } else {
            return Some(buffered.into_release(now));
        }
        None
    }

    /// Notes an outage if the server was silent for longer than its heartbeats allow.
    fn note_outage(&self, now: Instant) {
        if self.outstanding > 0 && now >= self.last_heard + OUTAGE {
            self.queue.session.outages.note_end();
        }
    }

    /// Makes messages that are due ready.
    pub(super) fn move_due(&mut self, now: Instant) {
        if self.next_due().is_some_and(|due| due <= now) {
            let mut due: Vec<_> = self.early.extract_if(.., |buffered| buffered.due <= now).collect();
            due.sort_by_key(|buffered| buffered.due);
            self.ready.extend(due);
        }
    }

    /// Time at which the next early message is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.early.iter().map(|buffered| buffered.due).min()
    }

    /// Handles a status about a request.
    pub(super) fn receive_status(&mut self, status: StatusCode, message: &Message, now: Instant) {
        self.note_outage(now);
        (self.last_heard, self.has_responded) = (now, true);
        if status == StatusCode::IDLE_HEARTBEAT {
            return;
        }
        // Rest of the request. A request that was refused at once carries no number: all of it is
        // left.
        let left = message.headers.as_ref().and_then(|headers| number(headers, "Nats-Pending-Messages"));
        let left = left.map_or(self.outstanding, |left| usize::try_from(left).unwrap_or(usize::MAX));
        self.outstanding = self.outstanding.saturating_sub(left);
        let description = message.description.as_deref().unwrap_or_default();
        if matches!(status, StatusCode::TIMEOUT | StatusCode::NOT_FOUND) {
            self.pending = 0;
        } else if description != "Batch Completed" {
            let lane = self.lane.token();
            tracing::debug!(queue = %self.queue.queue, lane, %status, description, "a pull request ended");
            self.paused_until = now + REFUSAL_PAUSE;
            // The consumer has no leader, was deleted, or moves.
            self.must_declare = true;
        }
    }

    /// Time at which outstanding requests count as lost.
    pub(super) fn silent_from(&self) -> Option<Instant> {
        (self.outstanding > 0).then_some(self.last_heard + SILENCE)
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silent_from().is_some_and(|at| now >= at)
    }

    /// True if the consumer must be looked up and may be now.
    pub(super) fn can_declare(&self, now: Instant) -> bool {
        self.must_declare && now >= self.paused_until
    }

    /// Drops outstanding requests, which were lost in an outage.
    pub(super) fn drop_requests(&mut self) {
        self.queue.session.outages.note_end();
        self.outstanding = 0;
        self.pending = 0;
        self.must_declare = true;
    }

    /// Puts all messages up to sequence `stored` in doubt.
    pub(super) fn doubt(&mut self, stored: u64) {
        self.doubt = Doubt::all(stored);
    }

    /// Notes that the consumer is there.
    pub(super) fn declared(&mut self, consumer: &Info) {
        self.doubt.narrow(self.newest, consumer);
        self.must_declare = false;
    }

    /// Joins the turns of the listener. True if the lane has a ready message and was not among
    /// them.
    pub(super) fn join_turns(&mut self) -> bool {
        let joins = !self.in_turns && !self.ready.is_empty();
        self.in_turns |= joins;
        joins
    }

    pub(super) fn leave_turns(&mut self) {
        self.in_turns = false;
    }

    /// Hands out the oldest message. Skips messages whose leases have expired: they come again,
    /// here or elsewhere.
    pub(super) fn hand_out(&mut self, now: Instant) -> Option<Delivery> {
        let ack_wait = self.queue.ack_wait.get();
        loop {
            let buffered = self.ready.pop_front()?;
            if now < buffered.leased + ack_wait {
                return Some(self.delivery(buffered));
            }
        }
    }

    fn delivery(&self, buffered: Buffered) -> Delivery {
        let Buffered { id, body, reply, delivery, resent, .. } = buffered;
        let is_doubtful = resent || self.doubt.covers(&delivery);
        let deliveries = if is_doubtful { delivery.deliveries.max(2) } else { delivery.deliveries };
        let (context, queue) = (Arc::clone(&self.queue), self.queue.queue.clone());
        let receipt = NatsReceipt { context, id: id.clone(), reply, sequence: delivery.sequence };
        Delivery { id, queue, body, deliveries, receipt: Arc::new(receipt) }
    }

    /// Removes the message that would be handed out last, to give it back.
    pub(super) fn release_last(&mut self, now: Instant) -> Option<Release> {
        let last = self.early.pop().or_else(|| self.ready.pop_back())?;
        Some(last.into_release(now))
    }

    /// Drops all messages and returns their number.
    pub(super) fn drop_messages(&mut self) -> usize {
        self.ready.drain(..).chain(self.early.drain(..)).count()
    }

    /// Time at which the next lease of an early message must be extended.
    pub(super) fn next_extension(&self) -> Option<Instant> {
        let third = self.queue.ack_wait.get() / 3;
        self.early.iter().map(|buffered| buffered.leased + third).min()
    }

    /// Reply subjects of the leases that must be extended now. They count as extended.
    pub(super) fn leases_to_extend(&mut self, now: Instant) -> impl Iterator<Item = Subject> + '_ {
        let third = self.queue.ack_wait.get() / 3;
        let due = move |buffered: &&mut Buffered| now >= buffered.leased + third;
        self.ready.iter_mut().chain(&mut self.early).filter(due).map(move |buffered| {
            buffered.leased = now;
            buffered.reply.clone()
        })
    }
}

/// Time until a message is due. Cut to the longest delay that is not scheduled: more can only be a
/// difference between two clocks.
fn time_left(headers: &HeaderMap) -> Duration {
    not_before(headers).map_or(Duration::ZERO, Timestamp::until).min(SHORTEST_SCHEDULE)
}
