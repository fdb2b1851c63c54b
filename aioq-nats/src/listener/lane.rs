//! One lane of one queue, as a listener sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aioq::JobId;
use aioq::broker::Delivery;
use async_nats::{Message, StatusCode, Subject};
use bytes::Bytes;
use tokio::time::Instant;

use super::share::Stand;
use crate::api::number;
use crate::delivered::Delivered;
use crate::receipt::{NatsReceipt, Source};
use crate::subject::{Lane, Place, consumer_name};

/// How long a request for a few messages waits at the server.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a request for many messages that are known to be there waits: no longer than it takes to see that
/// other workers took them.
const BULK_PATIENCE: Duration = Duration::from_secs(1);

/// How often the server says that it still knows of a request.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// A lane that was asked and says nothing for this long is asked anew.
const SILENCE: Duration = Duration::from_secs(7);

/// How long to wait after a refusal.
const PAUSE: Duration = Duration::from_millis(500);

/// A message that has come and has not been handed out.
struct Held {
    id: JobId,
    body: Bytes,
    reply: Subject,
    delivered: Delivered,
    /// When its lease began or was extended.
    leased: Instant,
}

pub(super) struct LaneIntake {
    source: Arc<Source>,
    pub(super) class: Lane,
    /// Where requests go.
    requests: Subject,
    held: VecDeque<Held>,
    asked: usize,
    pending: usize,
    /// The last sign of life since something was asked.
    heard: Instant,
    /// Not to be asked before.
    pub(super) not_before: Instant,
    /// Its consumer must be looked up, and declared if it is gone.
    pub(super) unsure: bool,
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
            asked: 0,
            pending: 0,
            heard: now,
            not_before: now,
            unsure: false,
        }
    }

    pub(super) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// What its messages' subjects say between the kind and the id: queue and lane.
    pub(super) fn tokens(&self) -> String {
        format!("{}.{}", crate::token::escape(&self.source.queue), self.class.token())
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
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
        let body = match self.pending > self.asked + batch {
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
        self.heard = now;
    }

    /// Takes in a message.
    pub(super) fn receive(&mut self, message: Message, now: Instant) {
        self.heard = now;
        self.asked = self.asked.saturating_sub(1);
        let Some(reply) = message.reply else { return };
        let (Some(delivered), Some(place)) = (Delivered::read(&reply), Place::of(&message.subject)) else {
            return;
        };
        self.pending = usize::try_from(delivered.pending).unwrap_or(usize::MAX);
        // A message under an id that aioq cannot have written is handed out too: somebody must record it.
        let id = place.job_id().unwrap_or_else(|| place.id.into());
        self.held.push_back(Held { id, body: message.payload, reply, delivered, leased: now });
    }

    /// Takes in what the server says about a request.
    pub(super) fn receive_status(&mut self, status: StatusCode, message: &Message, now: Instant) {
        self.heard = now;
        if status == StatusCode::IDLE_HEARTBEAT {
            return;
        }
        // How much of the request was left; a request that was refused at once is not accounted for.
        let left = message.headers.as_ref().and_then(|headers| number(headers, "Nats-Pending-Messages"));
        let left = left.map_or(self.asked, |left| usize::try_from(left).unwrap_or(usize::MAX));
        self.asked = self.asked.saturating_sub(left);
        let passed = matches!(status, StatusCode::TIMEOUT | StatusCode::NOT_FOUND);
        if passed {
            self.pending = 0;
        } else {
            let why = message.description.as_deref().unwrap_or_default();
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

    /// Forgets the requests that are under way: they are lost.
    pub(super) fn forget_requests(&mut self) {
        self.asked = 0;
        self.pending = 0;
        self.unsure = true;
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
        let Held { id, body, reply, delivered, .. } = held;
        let source = Arc::clone(&self.source);
        let receipt = NatsReceipt { source, id: id.clone(), reply, sequence: delivered.sequence };
        let (queue, deliveries) = (Arc::clone(&self.source.queue), delivered.deliveries);
        Delivery { id, queue, body, deliveries, receipt: Arc::new(receipt) }
    }

    /// Takes back the message that came last, to give it back.
    pub(super) fn take_back(&mut self) -> Option<Subject> {
        self.held.pop_back().map(|held| held.reply)
    }

    /// The leases that are due to be extended; they count as extended from now on.
    pub(super) fn due_leases(&mut self, now: Instant) -> impl Iterator<Item = Subject> + '_ {
        let third = self.source.ack_wait.get() / 3;
        let due = move |held: &&mut Held| now >= held.leased + third;
        self.held.iter_mut().filter(due).map(move |held| {
            held.leased = now;
            held.reply.clone()
        })
    }
}
