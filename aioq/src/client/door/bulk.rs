//! Bulk kicks: batches of messages, each batch handed to the broker at once.

use std::collections::HashSet;
use std::future::Future;

use futures_util::stream::{self, StreamExt as _};

use super::{Admitted, Door};
use crate::broker::{Expect, Kicked};
use crate::client::children::Placed;
use crate::client::hooks::Sent;
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{Fault, point};
use crate::message::{Envelope, JobId, Message};
use crate::sync::Lock;

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

/// A bulk kick: what is not passed on yet of its results.
#[derive(Default)]
pub(in crate::client) struct SentBulk {
    /// The results, in order. From the first child on they are kept until all are known.
    pub(in crate::client) fates: Vec<Result<Sent>>,
    /// Messages that wait for others, which are not sent yet. Until then such a job counts as new.
    pub(in crate::client) children: Vec<Placed>,
    /// The kind of an outage: the broker is away.
    pub(in crate::client) away: Option<ErrorKind>,
}

impl SentBulk {
    /// Puts a message aside that waits for others.
    pub(in crate::client) fn put_aside(&mut self, child: Message) {
        let stand_in = Sent::new(child.id.clone(), child.queue.clone());
        self.children.push((self.fates.len(), child));
        self.fates.push(Ok(stand_in));
    }
}

/// The outage of a bulk kick, once there is one: nothing more is sent then.
pub(in crate::client) struct Outage(Lock<Option<ErrorKind>>);

impl Outage {
    /// `away` is the kind of an outage that is known.
    pub(in crate::client) fn new(away: Option<ErrorKind>) -> Self {
        Self(Lock::new(away))
    }

    /// Sends a message, unless there is an outage.
    pub(in crate::client) async fn unless<T>(
        &self,
        id: &JobId,
        send: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let known = *self.0.lock();
        let fate = match known {
            Some(kind) => Err(unsent(kind).with_id(id.clone())),
            None => send.await,
        };
        let mut away = self.0.lock();
        *away = away.or_else(|| outage(&fate));
        fate
    }

    /// The kind of the outage, if there was one.
    pub(in crate::client) fn into_kind(self) -> Option<ErrorKind> {
        self.0.into_inner()
    }
}

impl Door {
    /// Sends many messages, and passes the result of each to `each`, in order. Messages that are
    /// errors already keep their place. Those that wait for others are put aside, and from then on
    /// all results.
    ///
    /// After an outage nothing more is sent: one deadline holds for all messages together.
    pub(in crate::client) async fn send_all(
        &self,
        mut messages: impl Iterator<Item = Result<Message>>,
        mut each: impl FnMut(Result<Sent>),
    ) -> SentBulk {
        let mut bulk = SentBulk::default();
        loop {
            let kept = bulk.fates.len();
            self.send_some(messages.by_ref().take(BULK), &mut bulk).await;
            let was_last = bulk.fates.len() - kept < BULK;
            if bulk.children.is_empty() {
                bulk.fates.drain(..).for_each(&mut each);
            }
            if was_last {
                return bulk;
            }
        }
    }

    /// Sends one batch, unless the broker is away.
    async fn send_some(&self, messages: impl Iterator<Item = Result<Message>>, bulk: &mut SentBulk) {
        let (mut batch, mut unique) = (Batch::default(), Vec::new());
        // Messages are made and sealed one by one: an open message is larger than a sealed one.
        for message in messages {
            let place = bulk.fates.len();
            let fate = match (message, bulk.away) {
                (Ok(message), Some(kind)) => Err(unsent(kind).with_id(message.id)),
                (Ok(message), None) if message.ties.is_none() => self.prepare(message, place, &mut batch),
                (Ok(message), None) if message.parent_wait().is_some() => {
                    bulk.put_aside(message);
                    continue;
                }
                (Ok(message), None) if message.unique().is_some() => {
                    let sent = Sent::new(message.id.clone(), message.queue.clone());
                    unique.push((place, message));
                    Ok(sent)
                }
                (Ok(message), None) => self.prepare(message, place, &mut batch),
                (Err(error), _) => Err(error),
            };
            bulk.away = bulk.away.or_else(|| outage(&fate));
            bulk.fates.push(fate);
        }
        let (fates, mut away) = (&mut bulk.fates, bulk.away);
        if !batch.lookups.is_empty() {
            away = Box::pin(self.look_up(&mut batch, fates)).await.or(away);
        }
        away = self.kick_batch(batch, fates, away).await.or(away);
        if !unique.is_empty() {
            away = Box::pin(self.send_each_unique(unique, fates, away)).await;
        }
        bulk.away = away;
    }

    /// Looks for earlier jobs under the chosen ids of a batch. Returns the kind of an outage.
    async fn look_up(&self, batch: &mut Batch, fates: &mut [Result<Sent>]) -> Option<ErrorKind> {
        let gone = Outage::new(None);
        let lookups = std::mem::take(&mut batch.lookups).into_iter().map(async |(index, mut message)| {
            let id = message.id.clone();
            let admitted = gone.unless(&id, self.admit(&mut message)).await;
            let sealed = admitted.and_then(|admitted| match admitted {
                Admitted::New(expect) => Ok(Ok((self.seal(&message)?, expect))),
                Admitted::Existing(queue) => Ok(Err(queue)),
            });
            (index, sealed.map_err(|error| error.with_id(id.clone())), id)
        });
        let mut looked_up = stream::iter(lookups).buffered(LOOKUPS_AT_ONCE);
        while let Some((index, sealed, id)) = looked_up.next().await {
            match sealed {
                Ok(Ok((envelope, expect))) => batch.sealed.push((index, envelope, expect)),
                Ok(Err(queue)) => fates[index] = Ok(Sent::existing(id, queue)),
                Err(error) => fates[index] = Err(error),
            }
        }
        batch.sealed.sort_by_key(|(index, ..)| *index);
        drop(looked_up);
        gone.into_kind()
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
        let gone = Outage::new(away);
        while !messages.is_empty() {
            let mut keys = HashSet::new();
            let (first, later): (Vec<_>, Vec<_>) = messages
                .into_iter()
                .partition(|(_, message)| keys.insert(message.unique().map(|tie| tie.key.clone())));
            let sends = first.into_iter().map(async |(index, message)| {
                let id = message.id.clone();
                (index, gone.unless(&id, self.send(message)).await)
            });
            let mut sent = stream::iter(sends).buffer_unordered(LOOKUPS_AT_ONCE);
            while let Some((index, fate)) = sent.next().await {
                fates[index] = fate;
            }
            drop(sent);
            messages = later;
        }
        gone.into_kind()
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
