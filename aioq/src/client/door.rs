//! The one door to the broker: each message of a client passes here.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use super::hooks::Sent;

use crate::backend::Backend;
use crate::broker::{BrokerInfo, Expect, Kicked};
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{Fault, point};
use crate::message::{
    Envelope, JobId, Message, Name, UniqueKey, UniqueTie, check_labels, check_queue_name, check_task_name,
};
use crate::store::{JobStore, Stored};
use crate::sync::Lock;
use crate::time::check_time;
use crate::unique::{Claimed, Keys, Triggered};

/// A checked message.
enum Admitted {
    /// Its job is new if the broker finds this to hold.
    New(Expect),
    /// Its job existed before, in this queue.
    Existing(Name),
}

/// Number of messages of a bulk kick that are sent at a time.
const BULK: usize = 16_384;

/// Number of messages of a bulk kick whose ids or keys are looked for at a time.
const LOOKUPS_AT_ONCE: usize = 64;

/// The messages of one batch of a bulk kick, with the places of their results.
#[derive(Default)]
struct Batch {
    sealed: Vec<(usize, Envelope, Expect)>,
    /// Messages under chosen ids.
    lookups: Vec<(usize, Message)>,
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
    ) -> Self {
        let BrokerInfo { in_process, max_body_bytes, .. } = *info;
        Self { backend, in_process, max_payload_bytes, max_body_bytes, deadline, process: std::process::id() }
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

    /// Takes the unique key of a message, then sends it. If another job holds the key, that job is
    /// the result.
    async fn send_unique(&self, tie: UniqueTie, message: Message, expect: Expect) -> Result<Sent> {
        let keys = Keys::new(&self.backend, self.deadline);
        if let Some((pause, longest)) = tie.terms.debounce {
            // Refuses a message that is too large, before it is written into the entry.
            self.seal(&message)?;
            let triggered = self.confirmed(keys.trigger(&tie, &message, pause, longest)).await;
            return match triggered.map_err(|error| error.with_id(message.id.clone()))? {
                Triggered::New => Ok(Sent::new(message.id, message.queue)),
                Triggered::Joined(holder) => Ok(Sent::existing(holder.id, holder.queue)),
            };
        }
        let envelope = self.seal(&message)?;
        let claimed = self.confirmed(keys.take(&tie, &message)).await;
        let taken = match claimed.map_err(|error| error.with_id(message.id.clone()))? {
            Claimed::Held(holder) => return Ok(Sent::existing(holder.id, holder.queue)),
            Claimed::Taken(taken) => taken,
        };
        let sent = Sent::new(message.id.clone(), message.queue.clone());
        let kicked = self.kick(envelope, sent, expect).await;
        let was_not_kicked = match &kicked {
            Ok(sent) => sent.existing && self.has_another_key(&message.id, &tie.key).await,
            // After an outage the job may be there and run: the next kick of the key asks for it.
            Err(error) => !error.is_outage(),
        };
        if was_not_kicked {
            let given_back = self.confirmed(keys.give_back(&tie.key, &taken)).await;
            if let Err(error) = given_back {
                tracing::debug!(key = %tie.key, %error, "the key of a job that was not kicked stays for a second");
            }
        }
        kicked
    }

    /// True if a job is known to have no unique key, or another one. A kick that was sent twice, or
    /// beside another one under its id, finds a job that has the key.
    async fn has_another_key(&self, id: &JobId, key: &UniqueKey) -> bool {
        if let Ok(Some(queued)) = self.confirmed(self.backend.broker.find(id)).await {
            let is_other = |found: Message| found.unique().is_none_or(|tie| tie.key != *key);
            return Message::open(&queued.body).is_ok_and(is_other);
        }
        let Some(jobs) = &self.backend.jobs else { return false };
        let stored = self.confirmed(jobs.get(id)).await;
        matches!(stored, Ok(Some(stored)) if stored.record.unique_key.as_ref() != Some(key))
    }

    /// Sends many messages, and passes the result of each to `each`, in order. Messages that are
    /// errors already keep their place.
    ///
    /// After an outage nothing more is sent: one deadline holds for all messages together.
    pub(super) async fn send_all(
        &self,
        mut messages: impl Iterator<Item = Result<Message>>,
        mut each: impl FnMut(Result<Sent>),
    ) {
        let (mut fates, mut away) = (Vec::new(), None);
        loop {
            away = self.send_some(messages.by_ref().take(BULK), &mut fates, away).await;
            let was_last = fates.len() < BULK;
            fates.drain(..).for_each(&mut each);
            if was_last {
                return;
            }
        }
    }

    /// Sends one batch, unless the broker is `away`. Returns the kind of its outage, if any.
    async fn send_some(
        &self,
        messages: impl Iterator<Item = Result<Message>>,
        fates: &mut Vec<Result<Sent>>,
        mut away: Option<ErrorKind>,
    ) -> Option<ErrorKind> {
        let (mut batch, mut unique) = (Batch::default(), Vec::new());
        // Messages are made and sealed one by one: an open message is larger than a sealed one.
        for message in messages {
            let fate = match (message, away) {
                (Ok(message), None) if message.unique().is_some() => {
                    let sent = Sent::new(message.id.clone(), message.queue.clone());
                    unique.push((fates.len(), message));
                    Ok(sent)
                }
                (Ok(message), None) => self.prepare(message, fates.len(), &mut batch),
                (Ok(message), Some(kind)) => Err(unsent(kind).with_id(message.id)),
                (Err(error), _) => Err(error),
            };
            away = away.or_else(|| outage(&fate));
            fates.push(fate);
        }
        if !batch.lookups.is_empty() {
            away = Box::pin(self.look_up(&mut batch, fates)).await.or(away);
        }
        away = self.kick_batch(batch, fates, away).await.or(away);
        if unique.is_empty() { away } else { Box::pin(self.send_each_unique(unique, fates, away)).await }
    }

    /// Looks for earlier jobs under the chosen ids of a batch. Returns the kind of an outage.
    async fn look_up(&self, batch: &mut Batch, fates: &mut [Result<Sent>]) -> Option<ErrorKind> {
        let gone = Lock::new(None);
        let lookups = std::mem::take(&mut batch.lookups).into_iter().map(async |(index, mut message)| {
            let away = *gone.lock();
            let admitted = match away {
                Some(kind) => Err(unsent(kind)),
                None => self.admit(&mut message).await,
            };
            let sealed = admitted.and_then(|admitted| match admitted {
                Admitted::New(expect) => Ok(Ok((self.seal(&message)?, expect))),
                Admitted::Existing(queue) => Ok(Err(queue)),
            });
            (index, sealed.map_err(|error| error.with_id(message.id.clone())), message.id)
        });
        let mut looked_up = stream::iter(lookups).buffered(LOOKUPS_AT_ONCE);
        while let Some((index, sealed, id)) = looked_up.next().await {
            {
                let mut gone = gone.lock();
                *gone = gone.or_else(|| outage(&sealed));
            }
            match sealed {
                Ok(Ok((envelope, expect))) => batch.sealed.push((index, envelope, expect)),
                Ok(Err(queue)) => fates[index] = Ok(Sent::existing(id, queue)),
                Err(error) => fates[index] = Err(error),
            }
        }
        batch.sealed.sort_by_key(|(index, ..)| *index);
        drop(looked_up);
        gone.into_inner()
    }

    /// Hands the sealed messages of a batch to the broker. Returns the kind of an outage.
    async fn kick_batch(
        &self,
        batch: Batch,
        fates: &mut [Result<Sent>],
        mut away: Option<ErrorKind>,
    ) -> Option<ErrorKind> {
        if batch.sealed.is_empty() {
            return away;
        }
        let (expected, envelopes): (Vec<_>, Vec<_>) = batch
            .sealed
            .into_iter()
            .map(|(index, envelope, expect)| ((index, expect), (envelope, expect)))
            .unzip();
        point(Fault::Kicking);
        let kicked = match away {
            None => self.confirmed(async { Ok(self.backend.broker.kick_all(envelopes).await) }).await,
            Some(kind) => Err(unsent(kind)),
        };
        point(Fault::Kicked);
        let mut kicked = kicked.map(Vec::into_iter).map_err(|error| error.kind());
        for (index, expect) in expected {
            let fate = match &mut kicked {
                Ok(kicked) => kicked.next().unwrap_or_else(forgotten),
                Err(kind) => Err(unsent(*kind)),
            };
            away = outage(&fate);
            let Ok(sent) = &mut fates[index] else { continue };
            match fate {
                Ok(Kicked::New) => {}
                Ok(Kicked::Existing) => {
                    fates[index] = Ok(self.found(sent.clone(), expect).await);
                }
                Err(error) => fates[index] = Err(error.with_id(sent.id.clone())),
            }
        }
        away
    }

    /// Sends the messages of a batch that have unique keys, many at a time. Of two with one key,
    /// the earlier one comes first.
    async fn send_each_unique(
        &self,
        mut messages: Vec<(usize, Message)>,
        fates: &mut [Result<Sent>],
        away: Option<ErrorKind>,
    ) -> Option<ErrorKind> {
        let gone = Lock::new(away);
        while !messages.is_empty() {
            let mut keys = HashSet::new();
            let (first, later): (Vec<_>, Vec<_>) = messages
                .into_iter()
                .partition(|(_, message)| keys.insert(message.unique().map(|tie| tie.key.clone())));
            let sends = first.into_iter().map(async |(index, message)| {
                let away = *gone.lock();
                match away {
                    Some(kind) => (index, Err(unsent(kind).with_id(message.id))),
                    None => (index, self.send(message).await),
                }
            });
            let mut sent = stream::iter(sends).buffer_unordered(LOOKUPS_AT_ONCE);
            while let Some((index, fate)) = sent.next().await {
                let mut gone = gone.lock();
                *gone = gone.or_else(|| outage(&fate));
                fates[index] = fate;
            }
            drop(sent);
            messages = later;
        }
        gone.into_inner()
    }

    /// Checks and seals one message of a batch, or notes that an earlier job must be looked for.
    /// `index` is the place of its result. Until the broker answers, the job counts as new.
    fn prepare(&self, message: Message, index: usize, batch: &mut Batch) -> Result<Sent> {
        let sent = Sent::new(message.id.clone(), message.queue.clone());
        if message.supersedes.is_some() {
            batch.lookups.push((index, message));
        } else {
            let checked = self.check_kick(&message).map_err(|error| error.with_id(message.id.clone()));
            checked?;
            batch.sealed.push((index, self.seal(&message)?, Expect::Any));
        }
        Ok(sent)
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
        let envelope = message.seal();
        let (bytes, limit) =
            (envelope.body.len(), self.max_body_bytes.saturating_sub(ROOM_FOR_ATTEMPTS_BYTES));
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

/// The kind of an error by which the broker is away.
fn outage<T>(fate: &Result<T>) -> Option<ErrorKind> {
    fate.as_ref().err().filter(|error| error.is_outage()).map(Error::kind)
}

/// Error of a message that was not sent after an outage.
fn unsent(kind: ErrorKind) -> Error {
    Error::new(kind, "not sent: the broker did not take the messages before it; kick it again")
}

fn forgotten() -> Result<Kicked> {
    Err(Error::new(ErrorKind::Backend, "the broker returned no result for a message"))
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
        let door = Door::new(backend, &info, 1024, deadline);
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
