//! Receipt of a delivery, with which the worker acks, extends, releases or replaces it:
//! [`NatsReceipt`].

use std::sync::Arc;
use std::time::Duration;

use aioq::__private::{Fault, point};
use aioq::broker::{Receipt, Replaced};
use aioq::message::{Envelope, Name};
use aioq::time::MAX_SPAN;
use aioq::{Error, ErrorKind, JobId, Result, Timestamp};
use async_nats::Subject;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join;
use tokio::time::timeout_at;

use crate::api::get::last_from_leader;
use crate::api::publish::publish;
use crate::error::too_late;
use crate::kick::{check_envelope, message, waiting};
use crate::link::{Link, Outgoing};
use crate::session::Session;
use crate::session::ack_waits::AckWait;
use crate::setup::queues;
use crate::wire::ack_subject::stored_at;
use crate::wire::headers::expecting_in;

/// Common context of all deliveries of one queue.
pub(crate) struct QueueContext {
    pub(crate) session: Arc<Session>,
    /// Connection with its own thread, so that a body that blocks its thread loses no lease.
    pub(crate) lease: Arc<Link>,
    pub(crate) queue: Name,
    pub(crate) ack_wait: AckWait,
}

/// Limits of the time after an outage within which other workers extend their leases. All workers
/// reconnect within a few seconds.
const MIN_GRACE: Duration = Duration::from_secs(3);
const MAX_GRACE: Duration = Duration::from_secs(10);

/// Gives a message back with no delay.
const NAK: Bytes = Bytes::from_static(b"-NAK");

/// Extends a lease.
pub(crate) const EXTEND: Bytes = Bytes::from_static(b"+WPI");

/// Receipt of one delivery.
pub(crate) struct NatsReceipt {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) id: JobId,
    /// Subject for the acks of this delivery.
    pub(crate) reply: Subject,
    /// Sequence of the message in the stream.
    pub(crate) sequence: u64,
}

impl NatsReceipt {
    /// Sends an ack without waiting for a confirmation.
    async fn send_ack(&self, ack: Bytes) -> Result<()> {
        let session = &self.context.session;
        let deadline = session.deadline();
        let sent = timeout_at(deadline.at, session.link.publish(self.reply.clone(), ack)).await;
        let sent = sent.unwrap_or_else(|_| Err(too_late(session.link.address(), deadline.span)));
        sent.map_err(|error| self.with_id(error))
    }

    fn with_id(&self, error: Error) -> Error {
        error.with_id(self.id.clone())
    }

    /// Filter for all messages of the job. All its writers use the same one, which is cheaper for
    /// the server.
    fn filter(&self, next_queue: &str) -> String {
        let names = &self.context.session.names;
        if *next_queue == *self.context.queue {
            names.messages_in(next_queue, &self.id)
        } else {
            names.messages_of(&self.id)
        }
    }

    async fn put_successor(&self, next: &Envelope) -> Result<Replaced> {
        let session = &self.context.session;
        let (names, deadline, filter) = (&session.names, session.deadline(), self.filter(&next.queue));
        let waiting = waiting(next);
        let outgoing = |_| message(names, next, waiting, expecting_in(filter.clone(), self.sequence));
        let written = publish(&session.link, deadline, 0, outgoing).await?;
        match written.answer {
            Ok(_) => Ok(Replaced::Done),
            Err(refusal) if !refusal.is_conflict() => Err(refusal.into()),
            Err(_) if !written.resent => Ok(Replaced::Lost),
            // The conflict may be the successor itself, whose first confirmation was lost.
            Err(_) => {
                let newest = last_from_leader(&session.link, deadline, &names.jobs, &filter).await?;
                let ours = |(sequence, body)| sequence > self.sequence && body == next.body;
                Ok(if newest.is_some_and(ours) { Replaced::Done } else { Replaced::Lost })
            }
        }
    }
}

#[async_trait]
impl Receipt for NatsReceipt {
    fn ack_wait(&self) -> Duration {
        self.context.ack_wait.get()
    }

    async fn ack(&self) -> Result<()> {
        self.send_ack(Bytes::from_static(b"+ACK")).await
    }

    async fn release(&self, delay: Duration) -> Result<()> {
        self.send_ack(nak(delay)).await
    }

    async fn extend(&self) -> Result<()> {
        let link = &self.context.lease;
        // A request with an answer: the worker must know that its lease holds.
        let extend = |_| Outgoing::new(self.reply.as_str(), EXTEND);
        let extended = link.ask(self.context.session.deadline(), extend).await;
        extended.map(|_| ()).map_err(|error| self.with_id(error))
    }

    async fn replace(&self, next: Envelope) -> Result<Replaced> {
        if next.id != self.id {
            let message = format!("job `{}` cannot replace a message of another job", next.id);
            return Err(self.with_id(Error::new(ErrorKind::InvalidArgument, message)));
        }
        check_envelope(&self.context.session, &next)?;
        let put = self.put_successor(&next);
        let session = &self.context.session;
        let is_new_queue = *next.queue != *self.context.queue && session.queues.claim(&next.queue);
        let replaced =
            if is_new_queue { join(put, queues::register(session, &next.queue)).await.0 } else { put.await };
        let replaced = replaced.map_err(|error| self.with_id(error))?;
        if replaced == Replaced::Done {
            point(Fault::Replaced);
            self.ack().await?;
        }
        Ok(replaced)
    }

    fn ready_since(&self) -> Option<Timestamp> {
        stored_at(&self.reply)
    }

    fn holder_unheard(&self) -> Option<Duration> {
        let span = self.ack_wait().clamp(MIN_GRACE, MAX_GRACE);
        self.context.session.outages.ended_within(span).then_some(span / 3)
    }

    async fn is_newest(&self) -> Result<bool> {
        let session = &self.context.session;
        let filter = self.filter(&self.context.queue);
        let newest = last_from_leader(&session.link, session.deadline(), &session.names.jobs, &filter).await;
        let newest = newest.map_err(|error| self.with_id(error))?;
        Ok(newest.is_some_and(|(sequence, _)| sequence == self.sequence))
    }
}

/// Ack that gives a message back, to be delivered again after `delay`.
pub(crate) fn nak(delay: Duration) -> Bytes {
    match delay.min(MAX_SPAN).as_nanos() {
        0 => NAK,
        nanos => format!("-NAK {{\"delay\":{nanos}}}").into(),
    }
}
