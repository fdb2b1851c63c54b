//! What a worker does with a delivery: [`NatsReceipt`].

use std::sync::Arc;
use std::time::Duration;

use aioq::__private::{Fault, point};
use aioq::broker::{Receipt, Replaced};
use aioq::{Envelope, Error, ErrorKind, JobId, MAX_SPAN, Name, Result, Timestamp};
use async_nats::Subject;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join;
use tokio::time::timeout_at;

use crate::api::last_of_leader;
use crate::api::publish::{expecting_in, publish};
use crate::broker::check;
use crate::connection::Session;
use crate::error::too_late;
use crate::kick::{seal, waiting};
use crate::link::{Link, Outgoing};
use crate::setup::ack_wait::AckWait;
use crate::setup::queues;
use crate::wire::ack_subject::stored_at;

/// What the deliveries of one queue have in common.
pub(crate) struct Source {
    pub(crate) session: Arc<Session>,
    /// Runs on its own thread, so that a body which blocks does not cost a lease.
    pub(crate) lease: Arc<Link>,
    pub(crate) queue: Name,
    pub(crate) ack_wait: AckWait,
}

/// How long after an absence of the server other workers may need to extend their leases.
const SHORTEST_HEARING: Duration = Duration::from_secs(3);
const LONGEST_HEARING: Duration = Duration::from_secs(10);

pub(crate) struct NatsReceipt {
    pub(crate) source: Arc<Source>,
    pub(crate) id: JobId,
    /// Where acks of this delivery go.
    pub(crate) reply: Subject,
    /// The message's sequence in the stream.
    pub(crate) sequence: u64,
}

impl NatsReceipt {
    async fn tell(&self, word: Bytes) -> Result<()> {
        let session = &self.source.session;
        let deadline = session.deadline();
        let told = timeout_at(deadline.at, session.link.publish(self.reply.clone(), word)).await;
        let told = told.unwrap_or_else(|_| Err(too_late(session.link.address(), deadline.span)));
        told.map_err(|error| self.about(error))
    }

    fn about(&self, error: Error) -> Error {
        error.with_id(self.id.clone())
    }

    /// All messages of the job, as every writer of it names them.
    fn filter(&self, next_queue: &str) -> String {
        let names = &self.source.session.names;
        match *next_queue == *self.source.queue {
            true => names.messages_in(next_queue, &self.id),
            false => names.messages_of(&self.id),
        }
    }

    async fn put_successor(&self, next: &Envelope) -> Result<Replaced> {
        let session = &self.source.session;
        let (names, deadline, filter) = (&session.names, session.deadline(), self.filter(&next.queue));
        let waiting = waiting(next);
        let outgoing = |_| seal(names, next, waiting, expecting_in(filter.clone(), self.sequence));
        let written = publish(&session.link, deadline, 0, outgoing).await?;
        match written.answer {
            Ok(_) => Ok(Replaced::Done),
            Err(refusal) if !refusal.is_conflict() => Err(refusal.into()),
            Err(_) if !written.resent => Ok(Replaced::Lost),
            // The newest message may be the successor itself, whose first confirmation was lost.
            Err(_) => {
                let newest = last_of_leader(&session.link, deadline, &names.jobs, &filter).await?;
                let ours = |(sequence, body)| sequence > self.sequence && body == next.body;
                Ok(if newest.is_some_and(ours) { Replaced::Done } else { Replaced::Lost })
            }
        }
    }
}

#[async_trait]
impl Receipt for NatsReceipt {
    fn ack_wait(&self) -> Duration {
        self.source.ack_wait.get()
    }

    async fn ack(&self) -> Result<()> {
        self.tell(Bytes::from_static(b"+ACK")).await
    }

    async fn release(&self, delay: Duration) -> Result<()> {
        self.tell(nak(delay)).await
    }

    async fn extend(&self) -> Result<()> {
        let link = &self.source.lease;
        // Confirmed: a worker must know that its lease holds.
        let word = |_| Outgoing::new(self.reply.as_str(), Bytes::from_static(b"+WPI"));
        let asked = link.ask(self.source.session.deadline(), word).await;
        asked.map(|_| ()).map_err(|error| self.about(error))
    }

    async fn replace(&self, next: Envelope) -> Result<Replaced> {
        if next.id != self.id {
            let message = format!("job `{}` cannot take the place of another", next.id);
            return Err(self.about(Error::new(ErrorKind::InvalidArgument, message)));
        }
        check(&self.source.session, &next)?;
        let put = self.put_successor(&next);
        let session = &self.source.session;
        let replaced = match *next.queue != *self.source.queue && session.queues.claim(&next.queue) {
            true => join(put, queues::write(session, &next.queue)).await.0,
            false => put.await,
        };
        let replaced = replaced.map_err(|error| self.about(error))?;
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
        // All workers reconnect within a few seconds, and extend their leases at once.
        let span = self.ack_wait().clamp(SHORTEST_HEARING, LONGEST_HEARING);
        self.source.session.absence.ended_within(span).then_some(span / 3)
    }

    async fn is_newest(&self) -> Result<bool> {
        let session = &self.source.session;
        let filter = self.filter(&self.source.queue);
        let newest = last_of_leader(&session.link, session.deadline(), &session.names.jobs, &filter).await;
        let newest = newest.map_err(|error| self.about(error))?;
        Ok(newest.is_some_and(|(sequence, _)| sequence == self.sequence))
    }
}

/// The word that gives a message back, to be delivered again after `delay`.
pub(crate) fn nak(delay: Duration) -> Bytes {
    match delay.min(MAX_SPAN).as_nanos() {
        0 => Bytes::from_static(b"-NAK"),
        nanos => format!("-NAK {{\"delay\":{nanos}}}").into(),
    }
}
