//! Messages of jobs: [`NatsBroker`].

mod depth;
mod inspect;
mod overdue;

use std::sync::Arc;

use aioq::broker::{
    Broker, BrokerInfo, Expect, Finding, Kicked, Listener, Page, QueueDepth, Queued, QueuedFilter,
    Subscription, Waiting,
};
use aioq::message::{Envelope, check_queue_name};
use aioq::{Error, JobId, Result};
use async_trait::async_trait;
use futures_util::future::{join, ready, try_join_all};
use futures_util::stream::{self, BoxStream, StreamExt};

use self::depth::depth;
use crate::api::get::{last, last_from_leader};
use crate::api::page::Listing;
use crate::api::purge::{CONCURRENT_REMOVALS, delete};
use crate::connection::{Connection, ConnectionHandle};
use crate::doctor::examine;
use crate::error::not_started;
use crate::kick::{bulk, check_envelope, kick};
use crate::listener::NatsListener;
use crate::session::Session;
use crate::setup::queues;

/// Number of queues whose depths are read at a time. Each takes about eight requests, and a server
/// drops requests when too many wait.
const CONCURRENT_DEPTHS: usize = 32;

/// Moves messages through the stream `<PREFIX>_JOBS`.
///
/// Within one lane (priorities 0 to 3, 4 to 6, 7 to 9) messages are delivered first in, first out.
///
/// A kick whose confirmation is lost is sent again under the same id. If a worker has run and acked
/// the job in between, the job runs a second time; its record, written once, shows the first run.
pub struct NatsBroker(ConnectionHandle);

impl NatsBroker {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self(ConnectionHandle::new(connection))
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
        check_envelope(&session, &envelope)?;
        let kick = kick(&session, &envelope, expect, 0, session.deadline());
        if session.queues.claim(&envelope.queue) {
            join(kick, queues::register(&session, &envelope.queue)).await.0
        } else {
            kick.await
        }
    }

    async fn kick_all(&self, envelopes: Vec<(Envelope, Expect)>) -> Vec<Result<Kicked>> {
        let Ok(session) = self.0.session() else {
            return envelopes.iter().map(|_| Err(not_started())).collect();
        };
        let kicks = bulk::kick_all(&session, &envelopes);
        let new_queues = claim_queues(&session, &envelopes);
        if new_queues.is_empty() {
            kicks.await
        } else {
            join(kicks, queues::register_all(&session, new_queues)).await.0
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
        let (stream, timeout) = (&session.names.jobs, session.options.deadline);
        let listing = Listing { link: &session.link, timeout, stream, filter: &filter };
        let found = listing.page(page).await?;
        // The stream holds only messages of jobs, so this skips none.
        Ok(found.into_iter().filter_map(inspect::queued).collect())
    }

    async fn remove(&self, messages: &[Queued]) -> Vec<Result<bool>> {
        let Ok(session) = self.0.session() else {
            return messages.iter().map(|_| Err(not_started())).collect();
        };
        let removals = (0..messages.len()).map(|index| remove(&session, &messages[index]));
        stream::iter(removals).buffered(CONCURRENT_REMOVALS).collect().await
    }

    async fn queues(&self) -> Result<Vec<String>> {
        queues::list(&*self.0.session()?).await
    }

    async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        let session = self.0.session()?;
        let mut depths = Vec::with_capacity(queues.len());
        for queues in queues.chunks(CONCURRENT_DEPTHS) {
            depths.extend(try_join_all(queues.iter().map(|queue| depth(&session, queue))).await?);
        }
        Ok(depths)
    }

    async fn watch(&self) -> Result<BoxStream<'static, Queued>> {
        let session = self.0.session()?;
        let ended = self.0.ended();
        // Three subscriptions, because one wildcard for all three states would match records, too.
        let subjects = [Waiting::Ready, Waiting::Scheduled, Waiting::Retrying]
            .map(|waiting| session.names.messages(Some(waiting), None));
        let deadline = session.deadline();
        let subscriptions = subjects.map(|subject| session.link.subscribe_now(subject, deadline));
        let subscriptions = try_join_all(subscriptions).await?;
        let messages = stream::select_all(subscriptions).take_until(session.link.broken()).take_until(ended);
        Ok(messages.filter_map(|message| ready(inspect::on_its_way(message))).boxed())
    }

    async fn recover_overdue(&self) -> Result<u64> {
        overdue::recover(&*self.0.session()?).await
    }

    async fn examine(&self) -> Result<Vec<Finding>> {
        examine(&*self.0.session()?).await
    }
}

/// Claims the registration of the queues that these envelopes are the first to use.
fn claim_queues<'a>(session: &Session, envelopes: &'a [(Envelope, Expect)]) -> Vec<&'a str> {
    let queues = envelopes.iter().map(|(envelope, _)| envelope.queue.as_str());
    // Most envelopes have the queue of the one before.
    let mut last = "";
    queues
        .filter(|queue| {
            let changed = *queue != std::mem::replace(&mut last, queue);
            changed && check_queue_name(queue).is_ok() && session.queues.claim(queue)
        })
        .collect()
}

async fn remove(session: &Session, message: &Queued) -> Result<bool> {
    // Sequence 0: the message was seen on its way to the stream and has no sequence yet.
    if message.revision == 0 {
        return Ok(false);
    }
    let removed = async {
        let (stream, deadline) = (&session.names.jobs, session.deadline());
        if !delete(&session.link, deadline, stream, message.revision).await? {
            return Ok(false);
        }
        // A replaced message stays until its ack arrives. If a successor exists, this was not the
        // current one.
        let filter = session.names.messages_of(&message.id);
        Ok(last_from_leader(&session.link, deadline, stream, &filter).await?.is_none())
    };
    removed.await.map_err(|error: Error| error.with_id(message.id.clone()))
}
