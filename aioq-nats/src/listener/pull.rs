//! State of a listener and the loop of its `next`: [`PullState`].
//!
//! `next` repeats four steps until it has deliveries: receive, recover, request, hand out.
//! [`maintain`] and [`stop`] work on the same state while `next` does not run.
//!
//! [`maintain`]: PullState::maintain
//! [`stop`]: PullState::stop

mod recovery;
mod release;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aioq::broker::{Delivery, Demand};
use aioq::{Error, Result};
use async_nats::{Message, Subscriber};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::fairness::{order, requests};
use super::lane::{LaneBuffer, Release};
use super::suspend::Suspensions;
use crate::error::not_started;
use crate::link::Health;
use crate::receipt::QueueContext;
use crate::session::Session;
use crate::wire::lane::Lane;
use crate::wire::subject::MessageSubject;

/// Longest wait for a message before the state is checked.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Buffers and requests of a listener, for all its queues.
pub(super) struct PullState {
    session: Arc<Session>,
    lanes: Vec<LaneBuffer>,
    /// Lane by `<queue>.<lane>` in the subjects of messages.
    by_tokens: HashMap<String, usize>,
    /// Messages and statuses of all lanes come to `<inbox>.<index of the lane>`.
    inbox: String,
    subscription: Subscriber,
    /// Number of messages received on this inbox.
    received: u64,
    health: watch::Receiver<Health>,
    /// Number of breaks of the connection handled so far.
    handled_breaks: u64,
    /// Messages to give back at once.
    releases: Vec<Release>,
    /// Lanes with ready messages, in the order of their turns.
    turns: [VecDeque<usize>; Lane::ALL.len()],
    /// Number of messages handed out so far. Decides which lane is next.
    picks: usize,
    /// Number of messages that the worker wants to have ready.
    prefetch: usize,
    /// True if a failure to declare a consumer was logged since the last success.
    failure_logged: bool,
    /// Denial of pull requests, to be returned by `next`.
    denied: Option<Error>,
    suspensions: Arc<Suspensions>,
    /// Number of suspensions handled so far.
    handled_suspensions: u64,
}

impl PullState {
    pub(super) async fn open(
        session: Arc<Session>,
        queues: &[Arc<QueueContext>],
        suspensions: Arc<Suspensions>,
    ) -> Result<Self> {
        let lanes: Vec<_> = queues
            .iter()
            .flat_map(|queue| Lane::ALL.map(|lane| LaneBuffer::new(Arc::clone(queue), lane)))
            .collect();
        let by_tokens = lanes.iter().enumerate().map(|(index, lane)| (lane.tokens(), index)).collect();
        let health = session.link.health();
        let handled_breaks = health.borrow().breaks;
        let inbox = session.link.new_inbox();
        let subscription = session.link.subscribe(format!("{inbox}.*")).await?;
        Ok(Self {
            session,
            lanes,
            by_tokens,
            inbox,
            subscription,
            received: 0,
            health,
            handled_breaks,
            releases: Vec::new(),
            turns: Default::default(),
            picks: 0,
            prefetch: 0,
            failure_logged: false,
            denied: None,
            suspensions,
            handled_suspensions: 0,
        })
    }

    /// Next deliveries. Cancel safe: messages stay buffered until the moment they are returned.
    pub(super) async fn next(&mut self, demand: Demand) -> Result<Vec<Delivery>> {
        self.prefetch = demand.prefetch;
        loop {
            self.collect();
            if self.needs_recovery() {
                self.recover().await;
            }
            // Waiting for messages that may not be requested would look like an idle queue.
            if let Some(error) = self.denied.take() {
                return Err(error);
            }
            self.send_due_acks().await;
            self.request(demand).await;
            // No await from here to the return: a dropped future must not lose these deliveries.
            let deliveries = self.hand_out(demand.now.max(1));
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            self.wait().await?;
        }
    }

    /// Number of messages that the worker wants to have ready.
    pub(super) fn prefetch(&self) -> usize {
        self.prefetch
    }

    fn ready(&self) -> usize {
        self.lanes.iter().map(LaneBuffer::ready).sum()
    }

    /// Buffers the messages that have arrived, without waiting.
    fn collect(&mut self) {
        let now = Instant::now();
        while let Some(Some(message)) = self.subscription.next().now_or_never() {
            self.receive(message, now);
        }
        for index in 0..self.lanes.len() {
            self.lanes[index].move_due(now);
            self.join_turns(index);
        }
    }

    fn join_turns(&mut self, index: usize) {
        if self.lanes[index].join_turns() {
            self.turns[self.lanes[index].lane as usize].push_back(index);
        }
    }

    fn receive(&mut self, message: Message, now: Instant) {
        self.received += 1;
        if let Some(status) = message.status {
            let index = message.subject.rsplit('.').next().and_then(|index| index.parse::<usize>().ok());
            if let Some(lane) = index.and_then(|index| self.lanes.get_mut(index)) {
                lane.receive_status(status, &message, now);
            }
            return;
        }
        let Some(subject) = MessageSubject::parse(&message.subject) else { return };
        match self.by_tokens.get(tokens(&message.subject, &subject)) {
            Some(&index) => {
                self.releases.extend(self.lanes[index].receive(message, now));
                self.join_turns(index);
            }
            None => tracing::debug!(subject = %message.subject, "a message of a queue of no listener"),
        }
    }

    /// Requests the messages that the worker wants beyond those buffered and outstanding.
    async fn request(&mut self, demand: Demand) {
        let now = Instant::now();
        if self.health.borrow().down {
            return;
        }
        let stats: Vec<_> = self.lanes.iter().map(LaneBuffer::stats).collect();
        for (index, batch) in requests(&stats, demand, self.picks).into_iter().enumerate() {
            let Some((subject, body)) = self.lanes[index].request(batch, now) else { continue };
            let inbox = format!("{}.{index}", self.inbox);
            let sent = self.session.link.client().publish_with_reply(subject, inbox, body).await;
            if sent.is_ok() {
                self.lanes[index].note_requested(batch, now);
            }
        }
    }

    /// Up to `limit` messages, in the order of lanes and of arrival.
    fn hand_out(&mut self, limit: usize) -> Vec<Delivery> {
        let (now, mut expecting) = (Instant::now(), [None; Lane::ALL.len()]);
        let mut deliveries = Vec::with_capacity(limit.min(self.ready()));
        while deliveries.len() < limit {
            match self.pick(now, &mut expecting) {
                Some(delivery) => deliveries.push(delivery),
                None => break,
            }
        }
        deliveries
    }

    /// Next message to hand out. `expecting` caches which lanes expect a message.
    fn pick(&mut self, now: Instant, expecting: &mut [Option<bool>]) -> Option<Delivery> {
        for lane in order(self.picks) {
            let expecting = &mut expecting[lane as usize];
            if let Some(delivery) = self.pick_from(lane, now) {
                self.picks = self.picks.wrapping_add(1);
                // The lane may be empty now.
                *expecting = None;
                return Some(delivery);
            }
            // A message that should come any moment is not overtaken by one of a lower lane.
            let lanes = &self.lanes;
            let expects = || lanes.iter().any(|buffer| buffer.lane == lane && buffer.expects_message(now));
            if *expecting.get_or_insert_with(expects) {
                return None;
            }
        }
        None
    }

    /// Next message of a lane. Its queues take turns.
    fn pick_from(&mut self, lane: Lane, now: Instant) -> Option<Delivery> {
        loop {
            let index = self.turns[lane as usize].pop_front()?;
            let buffer = &mut self.lanes[index];
            buffer.leave_turns();
            let delivery = buffer.hand_out(now);
            self.join_turns(index);
            if delivery.is_some() {
                return delivery;
            }
        }
    }

    /// Waits for a message, a change of the connection, or the next time to act.
    async fn wait(&mut self) -> Result<()> {
        let wakeup = self.next_wakeup();
        tokio::select! {
            message = self.subscription.next() => match message {
                Some(message) => self.receive(message, Instant::now()),
                None => return Err(not_started()),
            },
            changed = self.health.changed() => changed.map_err(|_| not_started())?,
            () = sleep_until(wakeup) => {}
        }
        Ok(())
    }

    fn next_wakeup(&self) -> Instant {
        let now = Instant::now();
        let lanes = || self.lanes.iter();
        let silent = lanes().filter_map(LaneBuffer::silent_from);
        let idle = lanes().filter(|lane| lane.outstanding() == 0);
        let paused = idle.map(|lane| lane.paused_until).filter(|until| *until > now);
        let due = lanes().filter_map(LaneBuffer::next_due);
        let extensions = lanes().filter_map(LaneBuffer::next_extension);
        // A buffered message waits for one of a higher lane that should come any moment: look again
        // in 1 ms.
        let overtaken = (self.ready() > 0).then(|| now + Duration::from_millis(1));
        let next = silent.chain(paused).chain(due).chain(extensions).chain(overtaken).min();
        next.unwrap_or(now + LONGEST_WAIT)
    }
}

/// `<queue>.<lane>` of a message's subject.
fn tokens<'a>(subject: &'a str, parsed: &MessageSubject<'a>) -> &'a str {
    let end = subject.len() - parsed.id.len() - 1;
    let start = end - parsed.lane.len() - parsed.queue.len() - 1;
    &subject[start..end]
}
