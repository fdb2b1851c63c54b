//! Bulk kicks: many messages in flight at a time.

use std::collections::VecDeque;
use std::time::Duration;

use aioq::Result;
use aioq::broker::{Expect, Kicked};
use aioq::message::Envelope;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::{Kick, check_envelope, kick};
use crate::api::publish::{Written, parse_ack};
use crate::link::{Deadline, Reply, Unanswered};
use crate::session::Session;

/// Number of messages of one bulk kick that may be unconfirmed at a time.
const WINDOW: usize = 4096;

/// Number of messages to send again at a time.
const CONCURRENT_REPEATS: usize = 256;

/// Kicks all envelopes, as fast as the stream confirms them. Returns one result for each.
pub(crate) async fn kick_all(session: &Session, envelopes: &[(Envelope, Expect)]) -> Vec<Result<Kicked>> {
    let mut bulk = Bulk::new(session, envelopes);
    bulk.send_all().await;
    bulk.repeat_unconfirmed().await;
    bulk.results.into_iter().map(|result| result.expect("every message has a result")).collect()
}

/// A bulk kick in progress.
struct Bulk<'a> {
    session: &'a Session,
    envelopes: &'a [(Envelope, Expect)],
    results: Vec<Option<Result<Kicked>>>,
    /// Time of the last confirmation, or of the start. Each confirmation starts the deadline anew.
    progress: Instant,
}

impl<'a> Bulk<'a> {
    fn new(session: &'a Session, envelopes: &'a [(Envelope, Expect)]) -> Self {
        let results = envelopes.iter().map(|_| None).collect();
        Self { session, envelopes, results, progress: Instant::now() }
    }

    fn span(&self) -> Duration {
        self.session.options.deadline
    }

    /// Limit for the first attempts: half of the deadline, so that time is left to repeat them.
    fn first_deadline(&self) -> Deadline {
        Deadline { at: self.progress + self.span() / 2, span: self.span() }
    }

    fn deadline(&self) -> Deadline {
        Deadline { at: self.progress + self.span(), span: self.span() }
    }

    /// Sends every message once and waits for the confirmations.
    async fn send_all(&mut self) {
        let mut sent = VecDeque::with_capacity(WINDOW.min(self.envelopes.len()));
        for (index, (envelope, _)) in self.envelopes.iter().enumerate() {
            if let Err(error) = check_envelope(self.session, envelope) {
                self.results[index] = Some(Err(error));
                continue;
            }
            if sent.len() == WINDOW
                && let Some((oldest, reply)) = sent.pop_front()
            {
                self.confirm(oldest, reply).await;
            }
            if let Some(reply) = self.send(index).await {
                sent.push_back((index, reply));
            }
        }
        for (index, reply) in sent {
            self.confirm(index, reply).await;
        }
    }

    /// Sends one message; `None` if it could not be sent. A server that confirms nothing gets no
    /// more messages.
    async fn send(&self, index: usize) -> Option<Reply> {
        let deadline = self.first_deadline();
        if deadline.has_passed() {
            return None;
        }
        self.session.link.until_up(deadline).await.ok()?;
        let outgoing = self.kick(index).outgoing(0);
        timeout_at(deadline.at, self.session.link.send(outgoing)).await.ok()?.ok()
    }

    fn kick(&self, index: usize) -> Kick<'a> {
        let (envelope, expect) = &self.envelopes[index];
        Kick::new(&self.session.names, envelope, *expect)
    }

    /// Waits for one confirmation. Leaves the result open if none comes, or if it is a passing
    /// refusal.
    async fn confirm(&mut self, index: usize, reply: Reply) {
        let message = match timeout_at(self.first_deadline().at, reply).await {
            Ok(Ok(message)) => message,
            Ok(Err(Unanswered::Denied(denied))) => return self.finish(index, Err(denied.into_error())),
            Ok(Err(_)) | Err(_) => return,
        };
        let Ok(answer) = parse_ack(&message) else { return };
        if answer.as_ref().is_err_and(crate::error::Refusal::is_passing) {
            return;
        }
        let written = Written { answer, resent: false };
        let result = self.kick(index).result(self.session, written, self.first_deadline()).await;
        self.finish(index, result);
    }

    fn finish(&mut self, index: usize, result: Result<Kicked>) {
        let (envelope, _) = &self.envelopes[index];
        self.progress = Instant::now();
        self.results[index] = Some(result.map_err(|error| error.with_id(envelope.id.clone())));
    }

    /// Sends the messages without a result again.
    async fn repeat_unconfirmed(&mut self) {
        let (session, envelopes) = (self.session, self.envelopes);
        let open: Vec<usize> =
            (0..self.results.len()).filter(|index| self.results[*index].is_none()).collect();
        for indices in open.chunks(CONCURRENT_REPEATS) {
            let deadline = self.deadline();
            let kicks = indices.iter().map(|index| async move {
                let (envelope, expect) = &envelopes[*index];
                (*index, kick(session, envelope, *expect, 1, deadline).await)
            });
            let mut kicks: FuturesUnordered<_> = kicks.collect();
            while let Some((index, result)) = kicks.next().await {
                if result.is_ok() {
                    self.progress = Instant::now();
                }
                self.results[index] = Some(result);
            }
        }
    }
}
