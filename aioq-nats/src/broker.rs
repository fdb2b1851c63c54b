//! Messages in and a look at them: [`NatsBroker`].

pub(crate) mod depth;
pub(crate) mod inspect;
pub(crate) mod overdue;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aioq::broker::{
    Broker, BrokerInfo, Expect, Finding, Kicked, Listener, Page, QueueDepth, Queued, QueuedFilter,
    Subscription, Waiting,
};
use aioq::check_queue_name;
use aioq::{Envelope, Error, ErrorKind, JobId, Result};
use async_trait::async_trait;
use futures_util::future::{join, ready, try_join_all};
use futures_util::stream::{self, BoxStream, FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use crate::api::page::Listing;
use crate::api::publish::{Written, publish, read_ack};
use crate::api::{delete, last, last_of_leader};
use crate::broker::depth::depth;
use crate::connection::{Connection, Part, Session};
use crate::doctor::examine;
use crate::error::not_started;
use crate::kick::Kick;
use crate::link::{Deadline, Fault, Reply};
use crate::listener::NatsListener;
use crate::setup::queues;

/// How many messages of one `kick_all` may be unconfirmed at a time.
const WINDOW: usize = 4096;

/// How many messages are removed at a time: the server drops requests where too many wait.
pub(crate) const REMOVALS: usize = 512;

/// How many queues are looked at at a time.
const DEPTHS: usize = 32;

/// Moves messages through the stream `<PREFIX>_JOBS`.
///
/// Within one lane (priorities 0 to 3, 4 to 6, 7 to 9) messages are delivered first in, first out.
///
/// A kick whose confirmation is lost is sent again under the same id. Should a worker have run the job and
/// acked it in between, it runs a second time; its record, written once, shows the first.
pub struct NatsBroker(Part);

impl NatsBroker {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self(Part::new(connection))
    }
}

#[async_trait]
impl Broker for NatsBroker {
    fn info(&self) -> BrokerInfo {
        BrokerInfo::new("nats", self.0.address()).max_body_bytes(self.0.max_body_bytes())
    }

    async fn startup(&self) -> Result<()> {
        self.0.startup().await
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.shutdown().await
    }

    async fn kick(&self, envelope: Envelope, expect: Expect) -> Result<Kicked> {
        let session = self.0.session()?;
        check(&session, &envelope)?;
        let kick = finish_kick(&session, &envelope, expect, 0, session.deadline());
        match session.queues.claim(&envelope.queue) {
            true => join(kick, queues::write(&session, &envelope.queue)).await.0,
            false => kick.await,
        }
    }

    async fn kick_all(&self, envelopes: Vec<(Envelope, Expect)>) -> Vec<Result<Kicked>> {
        match self.0.session() {
            Ok(session) => {
                let kicks = kick_all(&session, &envelopes);
                match new_queues(&session, &envelopes) {
                    new if new.is_empty() => kicks.await,
                    new => join(kicks, queues::write_all(&session, new)).await.0,
                }
            }
            Err(_) => envelopes.iter().map(|_| Err(not_started())).collect(),
        }
    }

    async fn listen(&self, subscription: Subscription) -> Result<Box<dyn Listener>> {
        let session = self.0.session()?;
        Ok(Box::new(NatsListener::open(session, subscription).await?))
    }

    async fn find(&self, id: &JobId) -> Result<Option<Queued>> {
        let session = self.0.session()?;
        let filter = session.names.messages_of(id);
        let found = last(&session.link, session.deadline(), &session.names.jobs, &filter).await?;
        Ok(found.and_then(inspect::queued))
    }

    async fn list(&self, filter: &QueuedFilter, page: Page) -> Result<Vec<Queued>> {
        let session = self.0.session()?;
        let filter = session.names.messages(filter.waiting, filter.queue.as_deref());
        let listing = Listing { session: &session, stream: &session.names.jobs, filter: &filter };
        let found = listing.page(page).await?;
        // The stream holds nothing but messages of jobs, so none is left out.
        Ok(found.into_iter().filter_map(inspect::queued).collect())
    }

    async fn remove(&self, messages: &[Queued]) -> Vec<Result<bool>> {
        let Ok(session) = self.0.session() else {
            return messages.iter().map(|_| Err(not_started())).collect();
        };
        let removals = (0..messages.len()).map(|index| remove(&session, &messages[index]));
        stream::iter(removals).buffered(REMOVALS).collect().await
    }

    async fn queues(&self) -> Result<Vec<String>> {
        queues::list(&*self.0.session()?).await
    }

    async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        let session = self.0.session()?;
        // A server drops requests where too many wait, and each of these makes about eight.
        let mut depths = Vec::with_capacity(queues.len());
        for queues in queues.chunks(DEPTHS) {
            depths.extend(try_join_all(queues.iter().map(|queue| depth(&session, queue))).await?);
        }
        Ok(depths)
    }

    async fn watch(&self) -> Result<BoxStream<'static, Queued>> {
        let session = self.0.session()?;
        let ended = self.0.ended();
        // One wildcard for the three would cover records, too.
        let subjects = [Waiting::Ready, Waiting::Scheduled, Waiting::Retrying]
            .map(|waiting| session.names.messages(Some(waiting), None));
        let deadline = session.deadline();
        let subscriptions = subjects.map(|subject| session.link.subscribe_now(subject, deadline));
        let subscriptions = try_join_all(subscriptions).await?;
        let messages = stream::select_all(subscriptions).take_until(session.link.broken()).take_until(ended);
        Ok(messages.filter_map(|message| ready(inspect::kicked(message))).boxed())
    }

    async fn recover_overdue(&self) -> Result<u64> {
        overdue::recover(&*self.0.session()?).await
    }

    async fn examine(&self) -> Result<Vec<Finding>> {
        examine(&*self.0.session()?).await
    }
}

pub(crate) fn check(session: &Session, envelope: &Envelope) -> Result<()> {
    envelope.id.check()?;
    check_queue_name(&envelope.queue).map_err(|error| error.with_id(envelope.id.clone()))?;
    let (bytes, most) = (envelope.body.len(), session.max_body_bytes());
    if bytes <= most {
        return Ok(());
    }
    let message = format!("the message has {bytes} bytes, the limit is {most}");
    Err(Error::new(ErrorKind::TooLarge, message).with_id(envelope.id.clone()))
}

/// The queues that these envelopes are the first to use, as far as this process knows.
fn new_queues<'a>(session: &Session, envelopes: &'a [(Envelope, Expect)]) -> Vec<&'a str> {
    let queues = envelopes.iter().map(|(envelope, _)| envelope.queue.as_str());
    // Most follow one of the same queue.
    let mut last = "";
    queues
        .filter(|queue| {
            let changed = *queue != std::mem::replace(&mut last, queue);
            changed && check_queue_name(queue).is_ok() && session.queues.claim(queue)
        })
        .collect()
}

async fn remove(session: &Session, message: &Queued) -> Result<bool> {
    // No message has the sequence 0: this one was seen on its way to the stream.
    if message.revision == 0 {
        return Ok(false);
    }
    let removed = async {
        let (stream, deadline) = (&session.names.jobs, session.deadline());
        if !delete(&session.link, deadline, stream, message.revision).await? {
            return Ok(false);
        }
        // One that was replaced stays until the ack behind its successor has arrived: it was not current.
        let filter = session.names.messages_of(&message.id);
        Ok(last_of_leader(&session.link, deadline, stream, &filter).await?.is_none())
    };
    removed.await.map_err(|error: Error| error.with_id(message.id.clone()))
}

/// Kicks, starting with try `attempt`, until `deadline`.
async fn finish_kick(
    session: &Session,
    envelope: &Envelope,
    expect: Expect,
    attempt: u32,
    deadline: Deadline,
) -> Result<Kicked> {
    let kick = Kick::new(&session.names, envelope, expect);
    let kicked = async {
        let written = publish(&session.link, deadline, attempt, |attempt| kick.outgoing(attempt)).await?;
        settle(session, &kick, written, deadline).await
    };
    kicked.await.map_err(|error: Error| error.with_id(envelope.id.clone()))
}

async fn settle(session: &Session, kick: &Kick<'_>, written: Written, deadline: Deadline) -> Result<Kicked> {
    match written.answer {
        Ok(_) => Ok(Kicked::New),
        Err(refusal) if !refusal.is_conflict() => Err(refusal.into()),
        Err(_) if !written.resent => Ok(Kicked::Existing),
        // What is there may be what an earlier try of this call put there.
        Err(_) => kick.is_there(session, deadline).await.map(|ours| match ours {
            true => Kicked::New,
            false => Kicked::Existing,
        }),
    }
}

/// How long a bulk kick goes on: one deadline, which begins anew with each confirmation.
struct Progress {
    span: Duration,
    last: Instant,
}

impl Progress {
    fn new(session: &Session) -> Self {
        Self { span: session.options.deadline, last: Instant::now() }
    }

    fn confirmed(&mut self) {
        self.last = Instant::now();
    }

    /// Until when to wait for what was sent once.
    fn half(&self) -> Deadline {
        Deadline { at: self.last + self.span / 2, span: self.span }
    }

    /// Until when to send it again.
    fn deadline(&self) -> Deadline {
        Deadline { at: self.last + self.span, span: self.span }
    }
}

/// Sends all, then awaits all: as fast as the stream can confirm.
async fn kick_all(session: &Session, envelopes: &[(Envelope, Expect)]) -> Vec<Result<Kicked>> {
    let mut fates: Vec<Option<Result<Kicked>>> = Vec::new();
    fates.resize_with(envelopes.len(), || None);
    let mut progress = Progress::new(session);
    let mut sent = VecDeque::with_capacity(WINDOW.min(envelopes.len()));
    for (index, (envelope, expect)) in envelopes.iter().enumerate() {
        if let Err(error) = check(session, envelope) {
            fates[index] = Some(Err(error));
            continue;
        }
        if sent.len() == WINDOW
            && let Some(oldest) = sent.pop_front()
        {
            confirm(session, envelopes, oldest, &mut progress, &mut fates).await;
        }
        // Nothing more is sent to a server that confirms nothing; it is tried again below.
        if !progress.half().has_passed()
            && let Some(reply) = send(session, envelope, *expect, progress.half()).await
        {
            sent.push_back((index, reply));
        }
    }
    for oldest in sent {
        confirm(session, envelopes, oldest, &mut progress, &mut fates).await;
    }
    kick_rest(session, envelopes, progress, &mut fates).await;
    fates.into_iter().map(|fate| fate.expect("every message got its fate")).collect()
}

async fn send(session: &Session, envelope: &Envelope, expect: Expect, patience: Deadline) -> Option<Reply> {
    session.link.until_up(patience).await.ok()?;
    let outgoing = Kick::new(&session.names, envelope, expect).outgoing(0);
    timeout_at(patience.at, session.link.send(outgoing)).await.ok()?.ok()
}

/// Awaits the answer to one message; leaves its fate open if there is none, or none that says enough.
async fn confirm(
    session: &Session,
    envelopes: &[(Envelope, Expect)],
    (index, reply): (usize, Reply),
    progress: &mut Progress,
    fates: &mut [Option<Result<Kicked>>],
) {
    let (envelope, expect) = &envelopes[index];
    let message = match timeout_at(progress.half().at, reply).await {
        Ok(Ok(message)) => message,
        Ok(Err(Fault::Denied(denied))) => {
            fates[index] = Some(Err(denied.into_error().with_id(envelope.id.clone())));
            return progress.confirmed();
        }
        Ok(Err(_)) | Err(_) => return,
    };
    let Ok(answer) = read_ack(&message) else { return };
    if answer.as_ref().is_err_and(crate::error::Refusal::is_passing) {
        return;
    }
    progress.confirmed();
    let kick = Kick::new(&session.names, envelope, *expect);
    let fate = settle(session, &kick, Written { answer, resent: false }, progress.half()).await;
    fates[index] = Some(fate.map_err(|error| error.with_id(envelope.id.clone())));
}

/// Sends again what has no fate yet, many at a time.
async fn kick_rest(
    session: &Session,
    envelopes: &[(Envelope, Expect)],
    mut progress: Progress,
    fates: &mut [Option<Result<Kicked>>],
) {
    const AT_ONCE: usize = 256;
    let open: Vec<usize> = (0..fates.len()).filter(|index| fates[*index].is_none()).collect();
    for indices in open.chunks(AT_ONCE) {
        let deadline = progress.deadline();
        let kicks = indices.iter().map(|index| async move {
            let (envelope, expect) = &envelopes[*index];
            (*index, finish_kick(session, envelope, *expect, 1, deadline).await)
        });
        let mut kicks: FuturesUnordered<_> = kicks.collect();
        while let Some((index, fate)) = kicks.next().await {
            if fate.is_ok() {
                progress.confirmed();
            }
            fates[index] = Some(fate);
        }
    }
}
