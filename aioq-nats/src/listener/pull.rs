//! What a listener has asked for and received, and the loop that does it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aioq::broker::{Delivery, Demand};
use aioq::{Error, Result};
use async_nats::{Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::fairness::{order, requests};
use super::lane::{LaneIntake, Return};
use super::suspend::Sleeps;
use crate::connection::Session;
use crate::error::not_started;
use crate::link::Health;
use crate::receipt::{Source, nak};
use crate::setup::consumers;
use crate::setup::streams;
use crate::wire::subject::{Lane, Place};

/// All that a listener holds, for all its queues.
pub(super) struct Intake {
    session: Arc<Session>,
    lanes: Vec<LaneIntake>,
    /// Lanes by the tokens of queue and lane in the subjects of messages.
    by_tokens: HashMap<String, usize>,
    /// Messages and statuses for all lanes come to `<inbox>.<index of the lane>`.
    inbox: String,
    subscription: Subscriber,
    /// How much has come to this inbox.
    received: u64,
    health: watch::Receiver<Health>,
    /// The breaks of the connection that have been dealt with.
    breaks: u64,
    /// What came too early in too large a number, to be given back.
    returns: Vec<Return>,
    /// The lanes of each class that hold something, in the order of their turns.
    turns: [VecDeque<usize>; Lane::ALL.len()],
    /// How many messages were handed out; decides which class is next.
    picks: usize,
    /// What the worker last wanted held ready.
    prefetch: usize,
    troubled: bool,
    /// The server does not permit to ask for messages any more.
    denied: Option<Error>,
    sleeps: Arc<Sleeps>,
    /// How many sleeps have been dealt with.
    slept: u64,
}

impl Intake {
    pub(super) async fn open(
        session: Arc<Session>,
        sources: Vec<Arc<Source>>,
        sleeps: Arc<Sleeps>,
    ) -> Result<Self> {
        let lanes: Vec<_> = sources
            .iter()
            .flat_map(|source| Lane::ALL.map(|class| LaneIntake::new(Arc::clone(source), class)))
            .collect();
        let by_tokens = lanes.iter().enumerate().map(|(index, lane)| (lane.tokens(), index)).collect();
        let health = session.link.health();
        let breaks = health.borrow().breaks;
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
            breaks,
            returns: Vec::new(),
            turns: Default::default(),
            picks: 0,
            prefetch: 0,
            troubled: false,
            denied: None,
            sleeps,
            slept: 0,
        })
    }

    /// The next deliveries. Cancel safe: what has come stays here until the last moment.
    pub(super) async fn next(&mut self, demand: Demand) -> Result<Vec<Delivery>> {
        self.prefetch = demand.prefetch;
        loop {
            self.collect();
            if self.needs_care() {
                self.recover().await;
            }
            // To wait for what the server does not permit to ask for would look like an idle queue.
            if let Some(error) = self.denied.take() {
                return Err(error);
            }
            self.tell().await;
            self.ask(demand).await;
            // No await from here on: nobody could lose these.
            let deliveries = self.hand_out(demand.now.max(1));
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            self.wait().await?;
        }
    }

    fn held(&self) -> usize {
        self.lanes.iter().map(LaneIntake::held).sum()
    }

    /// Takes in what has come, without waiting.
    pub(super) fn collect(&mut self) {
        let now = Instant::now();
        while let Some(Some(message)) = self.subscription.next().now_or_never() {
            self.receive(message, now);
        }
        for index in 0..self.lanes.len() {
            self.lanes[index].admit_due(now);
            self.line_up(index);
        }
    }

    /// Puts a lane in line that holds something.
    fn line_up(&mut self, index: usize) {
        if self.lanes[index].lines_up() {
            self.turns[self.lanes[index].class as usize].push_back(index);
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
        let Some(place) = Place::of(&message.subject) else { return };
        let tokens = tokens(&message.subject, &place);
        match self.by_tokens.get(tokens) {
            Some(&index) => {
                self.returns.extend(self.lanes[index].receive(message, now));
                self.line_up(index);
            }
            None => tracing::debug!(subject = %message.subject, "a message of no queue that is listened to"),
        }
    }

    /// Tells the server what came too early in too large a number, and what is kept for a little longer.
    async fn tell(&mut self) {
        let now = Instant::now();
        while let Some(Return { reply, delay }) = self.returns.last() {
            // A failure is a closed connection: it comes again elsewhere.
            let _ = self.session.link.publish(reply.clone(), nak(*delay)).await;
            self.returns.pop();
        }
        let due: Vec<_> = match self.lanes.iter().filter_map(LaneIntake::next_lease).min() {
            Some(first) if first <= now => {
                self.lanes.iter_mut().flat_map(|lane| lane.due_leases(now)).collect()
            }
            _ => return,
        };
        for reply in due {
            let _ = self.session.link.publish(reply, Bytes::from_static(b"+WPI")).await;
        }
    }

    /// Asks the lanes for what the worker wants beyond what is here.
    async fn ask(&mut self, demand: Demand) {
        let now = Instant::now();
        if self.health.borrow().down {
            return;
        }
        let stands: Vec<_> = self.lanes.iter().map(LaneIntake::stand).collect();
        for (index, batch) in requests(&stands, demand, self.picks).into_iter().enumerate() {
            let Some((subject, body)) = self.lanes[index].request(batch, now) else { continue };
            let inbox = format!("{}.{index}", self.inbox);
            let sent = self.session.link.client().publish_with_reply(subject, inbox, body).await;
            if sent.is_ok() {
                self.lanes[index].note_asked(batch, now);
            }
        }
    }

    /// Up to `most` messages, in the order of lanes and of arrival.
    fn hand_out(&mut self, most: usize) -> Vec<Delivery> {
        let (now, mut owing) = (Instant::now(), [None; Lane::ALL.len()]);
        let mut deliveries = Vec::with_capacity(most.min(self.held()));
        while deliveries.len() < most {
            match self.pick(now, &mut owing) {
                Some(delivery) => deliveries.push(delivery),
                None => break,
            }
        }
        deliveries
    }

    /// The next message to hand out. `owing` remembers which classes owe something.
    fn pick(&mut self, now: Instant, owing: &mut [Option<bool>]) -> Option<Delivery> {
        for class in order(self.picks) {
            let owes = &mut owing[class as usize];
            if let Some(delivery) = self.pick_of(class, now) {
                self.picks = self.picks.wrapping_add(1);
                // Its lane may hold nothing more.
                *owes = None;
                return Some(delivery);
            }
            // What should come any moment is not overtaken by what is behind it.
            let lanes = &self.lanes;
            let owes =
                *owes.get_or_insert_with(|| lanes.iter().any(|lane| lane.class == class && lane.owes(now)));
            if owes {
                return None;
            }
        }
        None
    }

    /// The next message of a class; queues take turns.
    fn pick_of(&mut self, class: Lane, now: Instant) -> Option<Delivery> {
        loop {
            let index = self.turns[class as usize].pop_front()?;
            let lane = &mut self.lanes[index];
            lane.leaves_line();
            let delivery = lane.hand_out(now);
            self.line_up(index);
            if delivery.is_some() {
                return delivery;
            }
        }
    }

    /// Waits until something comes, the connection changes, or a lane must be looked after.
    async fn wait(&mut self) -> Result<()> {
        let wake = self.next_look();
        tokio::select! {
            message = self.subscription.next() => match message {
                Some(message) => self.receive(message, Instant::now()),
                None => return Err(not_started()),
            },
            changed = self.health.changed() => changed.map_err(|_| not_started())?,
            () = sleep_until(wake) => {}
        }
        Ok(())
    }

    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let silent = self.lanes.iter().filter_map(LaneIntake::silent_from);
        let paused = self.lanes.iter().filter(|lane| lane.asked() == 0).map(|lane| lane.not_before.max(now));
        let due = self.lanes.iter().filter_map(LaneIntake::next_due);
        let leases = self.lanes.iter().filter_map(LaneIntake::next_lease);
        // Something is here that waits for what should come before it.
        let overtaken = (self.held() > 0).then(|| now + Duration::from_millis(1));
        let look =
            silent.chain(paused.filter(|at| *at > now)).chain(due).chain(leases).chain(overtaken).min();
        look.unwrap_or_else(|| now + Duration::from_secs(30))
    }

    /// Whether something broke that can be mended now.
    fn needs_care(&self) -> bool {
        let (health, now) = (*self.health.borrow(), Instant::now());
        let mends = health.breaks != self.breaks || self.lanes.iter().any(|lane| lane.needs_care(now));
        (!health.down && mends) || self.sleeps() != self.slept
    }

    /// How often the process was asleep for so long that a lease may have passed.
    fn sleeps(&self) -> u64 {
        let shortest = self.lanes.iter().map(|lane| lane.source().ack_wait.get()).min();
        self.sleeps.longer_than(shortest.unwrap_or_default() / 2)
    }

    /// Forgets what came before or during a sleep. Others may have it by now, so it is neither run, nor extended,
    /// nor given back; what nobody has comes again.
    async fn wake_up(&mut self) {
        let slept = self.sleeps();
        // What the server sent meanwhile is in the socket, and does not tell since when. Nothing comes through a
        // connection that has broken.
        let all_is_here =
            self.health.borrow().down || self.session.link.round_trip(self.session.deadline()).await.is_ok();
        self.collect();
        let forgotten = self.forget_held();
        tracing::debug!(forgotten, "the process was asleep: what it had fetched is left to others");
        if all_is_here {
            self.slept = slept;
        }
    }

    fn forget_held(&mut self) -> usize {
        self.returns.clear();
        self.lanes.iter_mut().map(LaneIntake::forget_held).sum()
    }

    /// Looks after what broke: the connection, the inbox, consumers. Leaves for later what cannot be done now.
    async fn recover(&mut self) {
        if self.sleeps() != self.slept {
            self.wake_up().await;
        }
        let now = Instant::now();
        for lane in &mut self.lanes {
            if lane.is_silent(now) {
                lane.forget_requests();
                self.denied = self.denied.take().or(self.session.link.check_publish(lane.requests()).err());
            }
        }
        let health = *self.health.borrow_and_update();
        if health.down {
            return;
        }
        if health.breaks != self.breaks {
            self.open_inbox(health.breaks).await;
        }
        for index in 0..self.lanes.len() {
            if self.lanes[index].unsure && now >= self.lanes[index].not_before {
                self.declare(index).await;
            }
        }
    }

    /// Starts over on a new connection: requests and what was under way went down with the old one.
    ///
    /// A server that crashed may have forgotten deliveries and acks that it had not written, and then delivers
    /// those messages as if for the first time; so what it stored before now counts as delivered before, until the
    /// consumer tells how far it had come.
    async fn open_inbox(&mut self, breaks: u64) {
        let stored = streams::last_sequence(&self.session, &self.session.names.jobs).await;
        let Ok(stored) = stored else { return };
        self.lanes.iter_mut().for_each(|lane| lane.doubt(stored));
        let inbox = self.session.link.new_inbox();
        if let Ok(subscription) = self.session.link.subscribe(format!("{inbox}.*")).await {
            self.collect();
            (self.inbox, self.subscription, self.received, self.breaks) = (inbox, subscription, 0, breaks);
            self.lanes.iter_mut().for_each(LaneIntake::forget_requests);
        }
    }

    async fn declare(&mut self, index: usize) {
        let lane = &self.lanes[index];
        let (source, class) = (Arc::clone(lane.source()), lane.class);
        let declared = consumers::declare(&self.session, &source.queue, class, source.ack_wait.get()).await;
        let lane = &mut self.lanes[index];
        match declared {
            Ok(found) => {
                lane.found(&found);
                lane.unsure = false;
                self.troubled = false;
                // What was said while it could not be asked was not heard.
                source.session.absence.ends();
            }
            Err(error) => {
                lane.not_before = Instant::now() + Duration::from_secs(1);
                if !std::mem::replace(&mut self.troubled, true) {
                    tracing::warn!(%error, queue = %source.queue, "cannot receive for now, trying on");
                }
            }
        }
    }

    /// How much it may hold ready.
    pub(super) fn prefetch(&self) -> usize {
        self.prefetch
    }

    /// For the keeper, while nobody calls `next`: what to give back, if it may keep only so much, and what to
    /// extend.
    pub(super) fn look_after(&mut self, keep: Option<usize>) -> Upkeep {
        self.collect();
        if self.sleeps() != self.slept {
            // Neither given back nor extended; `next` does the rest.
            self.forget_held();
        }
        let now = Instant::now();
        let kept: usize = self.lanes.iter().map(LaneIntake::kept).sum();
        let surplus = keep.map_or(0, |keep| kept.saturating_sub(keep));
        let mut give_back = std::mem::take(&mut self.returns);
        give_back.extend((0..surplus).filter_map(|_| self.take_back(now)));
        let extend = self.lanes.iter_mut().flat_map(|lane| lane.due_leases(now)).collect();
        Upkeep { give_back, extend }
    }

    /// The message that would be handed out last.
    fn take_back(&mut self, now: Instant) -> Option<Return> {
        let classes = [Lane::Low, Lane::Normal, Lane::High];
        classes.iter().find_map(|class| {
            let mut lanes = self.lanes.iter_mut().rev().filter(|lane| lane.class == *class);
            lanes.find_map(|lane| lane.take_back(now))
        })
    }

    /// Receives nothing more, and gives back what is here.
    pub(super) async fn stop(mut self) -> Result<()> {
        let deadline = self.session.deadline();
        if !self.health.borrow().down && self.health.borrow().breaks == self.breaks {
            // What does not come in time comes again to somebody else.
            let _ = timeout_at(deadline.at, self.drain()).await;
        }
        self.collect();
        if self.sleeps() != self.slept {
            self.forget_held();
        }
        let now = Instant::now();
        while let Some(Return { reply, delay }) = self.returns.pop().or_else(|| self.take_back(now)) {
            self.session.link.publish(reply, nak(delay)).await?;
        }
        self.session.link.round_trip(deadline).await
    }

    /// Ends the subscription so that nothing is lost between the server and here.
    ///
    /// To unsubscribe at once would drop what is under way. So the subscription is made to end after a number
    /// of messages that is beyond all that can have been sent, and the missing ones are sent from here: both
    /// sides then end it at the same message.
    async fn drain(&mut self) -> Result<()> {
        let asked: usize = self.lanes.iter().map(LaneIntake::asked).sum();
        // Each request may bring its messages, a status and some heartbeats.
        let fillers = 2 * asked + 8 * self.lanes.len() + 64;
        self.collect();
        let last = self.received + fillers as u64;
        let ended = self.subscription.unsubscribe_after(last).await;
        ended.map_err(|error| crate::error::broken("the connection is closed").with_source(error))?;
        let filler: Subject = format!("{}.filler", self.inbox).into();
        for _ in 0..fillers {
            self.session.link.publish(filler.clone(), Bytes::new()).await?;
        }
        while let Some(message) = self.subscription.next().await {
            self.receive(message, Instant::now());
        }
        Ok(())
    }
}

/// What the keeper has to tell the server.
pub(super) struct Upkeep {
    pub(super) give_back: Vec<Return>,
    pub(super) extend: Vec<Subject>,
}

/// `<queue>.<lane>` of a message's subject.
fn tokens<'a>(subject: &'a str, place: &Place<'a>) -> &'a str {
    let end = subject.len() - place.id.len() - 1;
    let start = end - place.lane.len() - place.queue.len() - 1;
    &subject[start..end]
}
