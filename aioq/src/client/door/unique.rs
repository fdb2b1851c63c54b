//! Kicks of messages with a unique key.

use super::Door;
use crate::broker::Expect;
use crate::client::hooks::Sent;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Message, UniqueKey, UniqueTie};
use crate::unique::{Claimed, Keys, Triggered};

impl Door {
    /// Takes the unique key of a message, then sends it. If another job holds the key, that job is
    /// the result.
    pub(super) async fn send_unique(&self, tie: UniqueTie, message: Message, expect: Expect) -> Result<Sent> {
        let keys = Keys::new(&self.backend, self.deadline);
        let waits_for_parents = message.parent_wait().is_some();
        if let Some((pause, longest)) = tie.terms.debounce {
            if waits_for_parents {
                let why =
                    "a debounced job cannot wait for others; give it a key of its own with `.unique_key(..)`";
                return Err(Error::new(ErrorKind::InvalidArgument, why).with_id(message.id));
            }
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
        let kicked = if waits_for_parents {
            Box::pin(self.block(&message)).await
        } else {
            self.kick(envelope, sent, expect).await
        };
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
}
