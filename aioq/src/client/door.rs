//! The one door to the broker: each message of a client passes here.

mod bulk;
mod unique;

use std::future::Future;
use std::time::Duration;

pub(super) use self::bulk::{Outage, SentBulk};
use super::hooks::Sent;
use crate::backend::Backend;
use crate::broker::{BrokerInfo, Expect, Kicked};
use crate::dependencies::{Blocked, Dependencies, check_parents};
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{Fault, point};
use crate::message::{Envelope, Message, Name, check_labels, check_queue_name, check_task_name};
use crate::store::{JobStore, Retention, Stored};
use crate::time::check_time;

/// A checked message.
enum Admitted {
    /// Its job is new if the broker finds this to hold.
    New(Expect),
    /// Its job existed before, in this queue.
    Existing(Name),
}

/// The one door to the broker: checks a message, seals it, sends it.
pub(super) struct Door {
    backend: Backend,
    /// True if the broker is part of this process: then it is always there, and answers without a
    /// deadline.
    in_process: bool,
    max_payload_bytes: usize,
    /// Largest message that the broker accepts.
    max_body_bytes: usize,
    deadline: Duration,
    retention: Retention,
    /// Id of the process that connected.
    process: u32,
}

/// Largest number of bytes that later attempts add to a message: attempt, due time, base revision.
const ROOM_FOR_ATTEMPTS_BYTES: usize = 512;

impl Door {
    pub(super) fn new(
        backend: Backend,
        info: &BrokerInfo,
        max_payload_bytes: usize,
        deadline: Duration,
        retention: Retention,
    ) -> Self {
        let BrokerInfo { in_process, max_body_bytes, .. } = *info;
        let process = std::process::id();
        Self { backend, in_process, max_payload_bytes, max_body_bytes, deadline, retention, process }
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    pub(super) fn in_process(&self) -> bool {
        self.in_process
    }

    pub(super) fn max_payload_bytes(&self) -> usize {
        self.max_payload_bytes
    }

    pub(super) fn retention(&self) -> &Retention {
        &self.retention
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Sends a message.
    pub(super) async fn send(&self, mut message: Message) -> Result<Sent> {
        let admitted = self.admit(&mut message).await;
        match admitted.map_err(|error| error.with_id(message.id.clone()))? {
            Admitted::Existing(queue) => Ok(Sent::existing(message.id, queue)),
            Admitted::New(expect) => match message.unique().cloned() {
                // Boxed to keep the common future small.
                Some(tie) => Box::pin(self.send_unique(tie, message, expect)).await,
                None if message.parent_wait().is_some() => Box::pin(self.block(&message)).await,
                None => {
                    let envelope = self.seal(&message)?;
                    let sent = Sent::new(message.id, message.queue);
                    self.kick(envelope, sent, expect).await
                }
            },
        }
    }

    /// Hands a sealed message to the broker.
    async fn kick(&self, envelope: Envelope, sent: Sent, expect: Expect) -> Result<Sent> {
        point(Fault::Kicking);
        let kicked = self.confirmed(self.backend.broker.kick(envelope, expect)).await;
        point(Fault::Kicked);
        match kicked {
            Ok(Kicked::New) => Ok(sent),
            Ok(Kicked::Existing) => Ok(self.found(sent, expect).await),
            Err(error) => Err(error.with_id(sent.id)),
        }
    }

    /// Sends a message whose job waits for parents: as a blocked record.
    async fn block(&self, message: &Message) -> Result<Sent> {
        let id = || message.id.clone();
        let sealed = self.seal(message)?.body;
        let dependencies = Dependencies::new(&self.backend, &self.retention, self.max_payload_bytes);
        let blocked = self.confirmed(dependencies.block(message, sealed)).await;
        match blocked.map_err(|error| error.with_id(id()))? {
            Blocked::New => Ok(Sent::new(id(), message.queue.clone())),
            Blocked::Existing(queue) => Ok(Sent::existing(id(), queue)),
        }
    }

    /// Refuses to work in a process that was forked from the one that connected: the tasks and
    /// threads of the connection do not exist there.
    pub(super) fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        let why = "this process was forked after the client had connected: fork first, then connect in each process";
        Err(Error::new(ErrorKind::NotStarted, why))
    }

    /// Refuses a message that could not be sent, as it is now, with so many bytes more.
    pub(super) fn check_sealed(&self, message: &Message, room: usize) -> Result<()> {
        let sealed = self.check_kick(message).and_then(|()| self.seal_with_room(message, room));
        sealed.map(drop).map_err(|error| error.with_id(message.id.clone()))
    }

    fn check_kick(&self, message: &Message) -> Result<()> {
        if !self.in_process {
            self.check_process()?;
        }
        self.check(message)
    }

    /// Checks a message and looks for an earlier job of its id. If that job was removed, the
    /// message is made to come after its record.
    async fn admit(&self, message: &mut Message) -> Result<Admitted> {
        self.check_kick(message)?;
        let Some(base) = message.supersedes else { return Ok(Admitted::New(Expect::Any)) };
        let Some(jobs) = &self.backend.jobs else { return Ok(Admitted::New(Expect::Absent)) };
        Ok(match self.confirmed(jobs.get(&message.id)).await? {
            Some(removed) if base == 0 && removed.record.is_removed() => {
                message.supersedes = Some(self.make_way(&**jobs, &removed, message).await?);
                Admitted::New(Expect::Absent)
            }
            Some(stored) if stored.revision != base => Admitted::Existing(stored.record.queue),
            None if base != 0 => Admitted::Existing(message.queue.clone()),
            _ => Admitted::New(Expect::Absent),
        })
    }

    /// The job that existed before, in the queue that it is in.
    async fn found(&self, mut sent: Sent, expect: Expect) -> Sent {
        sent.existing = true;
        if expect != Expect::Any {
            // The handle watches this queue for the end of the job. A miss costs no result: waiting
            // also reads.
            if let Ok(Some(queued)) = self.confirmed(self.backend.broker.find(&sent.id)).await {
                sent.queue = queued.queue.into();
            } else if let Some(jobs) = &self.backend.jobs
                && let Ok(Some(stored)) = self.confirmed(jobs.get(&sent.id)).await
            {
                sent.queue = stored.record.queue;
            }
        }
        sent
    }

    /// Finds the base revision of a message under the id of a removed job.
    ///
    /// All records of an id are in one queue. If the placeholder of the removed job is in another
    /// queue, it is deleted.
    async fn make_way(&self, jobs: &dyn JobStore, removed: &Stored, message: &Message) -> Result<u64> {
        if removed.record.queue == message.queue {
            return Ok(removed.revision);
        }
        let gone = self.confirmed(async { Ok(jobs.remove(std::slice::from_ref(removed)).await) }).await;
        let gone = gone.and_then(|gone| gone.into_iter().try_for_each(|gone| gone.map(drop)));
        gone.map(|()| 0).map_err(|error| error.with_id(message.id.clone()))
    }

    fn check(&self, message: &Message) -> Result<()> {
        message.id.check()?;
        if let Some(run_at) = message.run_at {
            // Checked again: a hook may have set it.
            check_time("the time to run at", run_at, self.backend.now())?;
        }
        check_queue_name(&message.queue)?;
        check_task_name(&message.task)?;
        check_labels(&message.labels)?;
        if message.ties.is_some() {
            check_parents(message)?;
        }
        let (bytes, limit) = (message.arguments.len(), self.max_payload_bytes);
        if bytes <= limit {
            return Ok(());
        }
        let why = format!(
            "the arguments have {bytes} bytes, the limit is {limit}: pass a reference to the data instead"
        );
        Err(Error::new(ErrorKind::TooLarge, why))
    }

    /// Seals a message. Refuses one that leaves no room for what later attempts add.
    fn seal(&self, message: &Message) -> Result<Envelope> {
        self.seal_with_room(message, 0)
    }

    fn seal_with_room(&self, message: &Message, room: usize) -> Result<Envelope> {
        let envelope = message.seal();
        let room = ROOM_FOR_ATTEMPTS_BYTES + room;
        let (bytes, limit) = (envelope.body.len(), self.max_body_bytes.saturating_sub(room));
        if bytes <= limit {
            return Ok(envelope);
        }
        let labels = bytes.saturating_sub(message.arguments.len());
        let why = format!(
            "the message has {bytes} bytes, {labels} of them for labels and names; the limit is {limit}: \
             pass a reference to the data instead"
        );
        Err(Error::new(ErrorKind::TooLarge, why).with_id(message.id.clone()))
    }

    /// Backstop for brokers without a deadline of their own.
    async fn confirmed<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        if self.in_process {
            return request.await;
        }
        let patience = self.deadline * 2;
        tokio::time::timeout(patience, request).await.unwrap_or_else(|_| {
            let why = format!("the broker did not answer within {}", humantime::format_duration(patience));
            Err(Error::new(ErrorKind::Deadline, why))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec::{Arguments, Codec};
    use crate::memory::Memory;

    #[tokio::test(start_paused = true)]
    async fn a_forked_process_is_refused_at_once() {
        let deadline = Duration::from_secs(5);
        let info = BrokerInfo::new("nats", "nats://nobody");
        let backend = Backend::from(Memory::new());
        backend.startup().await.unwrap();
        let door = Door::new(backend, &info, 1024, deadline, Retention::default());
        let begun = tokio::time::Instant::now();
        let message =
            || Message::new("1".into(), "task", Arguments::from_json(Codec::MessagePack, "{}").unwrap());
        assert!(!door.send(message()).await.unwrap().existing);
        // As a child of this process sees it.
        let child = Door { process: std::process::id() + 1, ..door };
        let mut kicks = vec![child.send(message()).await];
        child.send_all([Ok(message())].into_iter(), |sent| kicks.push(sent)).await;
        for refused in kicks.into_iter().map(Result::err).chain([child.check_process().err()]) {
            let refused = refused.unwrap();
            assert_eq!(refused.kind(), ErrorKind::NotStarted);
            assert!(refused.to_string().contains("fork first"), "{refused}");
        }
        assert!(begun.elapsed() < deadline);
    }
}
