//! The kick of a flow: jobs that wait for each other, none of which starts before all are known.

use std::collections::{HashMap, HashSet};

use futures_util::stream::{self, StreamExt as _};

use super::children::{Generations, Placed};
use super::hooks::Sent;
use super::{AT_ONCE, Client};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Message};
use crate::store::{Status, Stored};

impl Client {
    /// Sends the messages of a flow, and returns the jobs in the same order.
    ///
    /// The jobs that wait for others come first, parents before their children. The roots, which
    /// wait for nobody, come last: until then nothing runs. An id or a unique key may lead to a job
    /// that existed; the others of the flow then wait for that one.
    ///
    /// # Errors
    /// The first error. Before the first root is sent, the jobs that were blocked are removed
    /// again, as far as the backend answers; a worker fails the others after a minute. Afterwards,
    /// some jobs may run, and the same flow may be kicked again under the same ids.
    pub(crate) async fn send_flow(&self, mut messages: Vec<Message>) -> Result<Vec<Sent>> {
        tie_together(&mut messages)?;
        messages.iter().try_for_each(|message| self.0.door.check_sealed(message, 0))?;
        let count = messages.len();
        let (blocked, roots): (Vec<Placed>, Vec<Placed>) =
            messages.into_iter().enumerate().partition(|(_, message)| message.parent_wait().is_some());
        let mut kick = FlowKick { client: self, sent: vec![None; count], renamed: HashMap::new() };
        let waiting: Vec<JobId> = blocked.iter().map(|(_, message)| message.id.clone()).collect();
        if let Err(error) = kick.block_all(blocked).await {
            kick.take_back().await;
            return Err(error);
        }
        kick.kick_roots(roots).await?;
        kick.tie_again(&waiting).await?;
        Ok(kick.sent.into_iter().flatten().collect())
    }
}

/// Lets each job of a flow know that it is awaited, and each one that waits which of its parents
/// know that.
fn tie_together(messages: &mut [Message]) -> Result<()> {
    let of_flow: HashSet<JobId> = messages.iter().map(|message| message.id.clone()).collect();
    let parents = messages.iter().flat_map(Message::parents);
    let awaited: HashSet<JobId> = parents.filter(|parent| of_flow.contains(*parent)).cloned().collect();
    for message in messages {
        let is_awaited = awaited.contains(&message.id);
        if is_awaited && message.parent_wait().is_none() && message.unique().is_some() {
            let why = format!(
                "the unique task `{}` cannot begin a flow: kick it by itself, then go on from its handle",
                message.task
            );
            return Err(Error::new(ErrorKind::InvalidArgument, why).with_id(message.id.clone()));
        }
        if !is_awaited && message.parent_wait().is_none() {
            continue;
        }
        let ties = message.ties_mut();
        ties.awaited |= is_awaited;
        if let Some(wait) = &mut ties.wait {
            wait.in_flow = ties.parents.iter().filter(|parent| of_flow.contains(*parent)).cloned().collect();
        }
    }
    Ok(())
}

/// A flow that is being kicked.
struct FlowKick<'a> {
    client: &'a Client,
    /// The jobs so far, by the places of their messages.
    sent: Vec<Option<Sent>>,
    /// The jobs that existed and hold the unique keys of messages with other ids.
    renamed: HashMap<JobId, JobId>,
}

impl FlowKick<'_> {
    /// Sends the messages that wait for others, parents before their children.
    async fn block_all(&mut self, blocked: Vec<Placed>) -> Result<()> {
        let Generations { generations, cyclic } = Generations::of(blocked);
        if let Some((_, error)) = cyclic.into_iter().next() {
            return Err(error);
        }
        for mut generation in generations {
            if !self.renamed.is_empty() {
                generation.iter_mut().for_each(|(_, message)| self.rename_parents(message));
            }
            let client = self.client;
            let sends = generation.into_iter().map(async |(place, message)| {
                let id = message.id.clone();
                client.send(message).await.map(|sent| (place, id, sent))
            });
            let mut sends = stream::iter(sends).buffer_unordered(AT_ONCE);
            let mut failed = None;
            // All are waited for: those that are blocked after an error are taken back.
            while let Some(sent) = sends.next().await {
                match sent {
                    Ok((place, id, sent)) => {
                        if sent.id != id {
                            self.renamed.insert(id, sent.id.clone());
                        }
                        self.sent[place] = Some(sent);
                    }
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            drop(sends);
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lets a job wait for those that hold the keys of its parents.
    fn rename_parents(&self, message: &mut Message) {
        let Some(ties) = &mut message.ties else { return };
        for parent in &mut ties.parents {
            if let Some(holder) = self.renamed.get(parent) {
                *parent = holder.clone();
            }
        }
        if let Some(wait) = &mut ties.wait {
            wait.in_flow.retain(|parent| !self.renamed.contains_key(parent));
        }
    }

    /// Sends the messages that wait for nobody.
    async fn kick_roots(&mut self, roots: Vec<Placed>) -> Result<()> {
        let (places, messages): (Vec<usize>, Vec<Message>) = roots.into_iter().unzip();
        let (mut places, mut failed) = (places.into_iter(), None);
        let each = |sent: Result<Sent>| match (places.next(), sent) {
            (Some(place), Ok(sent)) => self.sent[place] = Some(sent),
            (_, Err(error)) => failed = failed.take().or(Some(error)),
            (None, Ok(_)) => {}
        };
        self.client.send_all(messages.into_iter().map(Ok), each).await;
        failed.map_or(Ok(()), Err)
    }

    /// Ties the jobs that wait to their parents again, if any job of the flow existed: such a
    /// parent may not know that it is awaited, or has ended.
    async fn tie_again(&self, waiting: &[JobId]) -> Result<()> {
        if self.sent.iter().flatten().all(|sent| !sent.existing) {
            return Ok(());
        }
        let dependencies = self.client.dependencies();
        let ties = (0..waiting.len()).map(|index| dependencies.tie_again(&waiting[index]));
        let mut ties = stream::iter(ties).buffer_unordered(AT_ONCE);
        while let Some(tied) = ties.next().await {
            tied?;
        }
        Ok(())
    }

    /// Removes the jobs that this kick has blocked. What cannot be removed is failed by the workers
    /// after a minute, because its parents were never kicked.
    async fn take_back(&self) {
        let Some(jobs) = self.client.backend().jobs() else { return };
        let new = self.sent.iter().flatten().filter(|sent| !sent.existing);
        let is_blocked = |stored: &Stored| stored.record.status == Status::Blocked;
        for sent in new {
            let found = match jobs.get(&sent.id).await {
                Ok(found) => found.filter(is_blocked),
                Err(error) if error.is_outage() => return,
                Err(_) => continue,
            };
            for removed in jobs.remove(found.as_slice()).await {
                if let Err(error) = removed {
                    tracing::debug!(id = %sent.id, %error, "a job of a flow that was not kicked stays for a minute");
                }
            }
        }
    }
}
