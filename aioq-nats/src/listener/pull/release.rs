//! Acks that a listener sends itself: extensions of leases, and messages given back.

use aioq::Result;
use async_nats::Subject;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::PullState;
use crate::error::broken;
use crate::link::Link;
use crate::listener::lane::{LaneBuffer, Release};
use crate::receipt::{EXTEND, nak};
use crate::wire::lane::Lane;

/// Acks to send.
#[derive(Default)]
pub(in crate::listener) struct DueAcks {
    release: Vec<Release>,
    extend: Vec<Subject>,
}

impl DueAcks {
    /// Sends the acks. A failure means that the connection is closed: the messages come again
    /// anyway.
    pub(in crate::listener) async fn send(self, link: &Link) {
        for Release { reply, delay } in self.release {
            let _ = link.publish(reply, nak(delay)).await;
        }
        for reply in self.extend {
            let _ = link.publish(reply, EXTEND).await;
        }
    }
}

impl PullState {
    /// Gives back messages that cannot be buffered, and extends leases of early ones.
    pub(super) async fn send_due_acks(&mut self) {
        let now = Instant::now();
        while let Some(Release { reply, delay }) = self.releases.last() {
            // A failure means that the connection is closed: the message comes again elsewhere.
            let _ = self.session.link.publish(reply.clone(), nak(*delay)).await;
            self.releases.pop();
        }
        let next = self.lanes.iter().filter_map(LaneBuffer::next_extension).min();
        if next.is_none_or(|next| next > now) {
            return;
        }
        let due: Vec<_> = self.lanes.iter_mut().flat_map(|lane| lane.leases_to_extend(now)).collect();
        for reply in due {
            let _ = self.session.link.publish(reply, EXTEND).await;
        }
    }

    /// Acks to send while `next` does not run. Gives back messages beyond `keep`, the last ones
    /// first.
    pub(in crate::listener) fn maintain(&mut self, keep: Option<usize>) -> DueAcks {
        self.collect();
        if self.was_suspended() {
            // Neither given back nor extended. The next call of `next` completes the recovery.
            self.drop_messages();
        }
        let now = Instant::now();
        let buffered: usize = self.lanes.iter().map(LaneBuffer::len).sum();
        let surplus = keep.map_or(0, |keep| buffered.saturating_sub(keep));
        let mut release = std::mem::take(&mut self.releases);
        release.extend((0..surplus).filter_map(|_| self.release_last(now)));
        let extend = self.lanes.iter_mut().flat_map(|lane| lane.leases_to_extend(now)).collect();
        DueAcks { release, extend }
    }

    /// Removes the message that would be handed out last, to give it back.
    fn release_last(&mut self, now: Instant) -> Option<Release> {
        [Lane::Low, Lane::Normal, Lane::High].iter().find_map(|lane| {
            let mut buffers = self.lanes.iter_mut().rev().filter(|buffer| buffer.lane == *lane);
            buffers.find_map(|buffer| buffer.release_last(now))
        })
    }

    /// Ends the subscription and gives back all messages.
    pub(in crate::listener) async fn stop(mut self) -> Result<()> {
        let deadline = self.session.deadline();
        let is_same_connection = self.health.borrow().breaks == self.handled_breaks;
        if !self.health.borrow().down && is_same_connection {
            // Messages that do not arrive in time come again to other workers.
            let _ = timeout_at(deadline.at, self.drain()).await;
        }
        self.collect();
        if self.was_suspended() {
            self.drop_messages();
        }
        let now = Instant::now();
        while let Some(Release { reply, delay }) = self.releases.pop().or_else(|| self.release_last(now)) {
            self.session.link.publish(reply, nak(delay)).await?;
        }
        self.session.link.round_trip(deadline).await
    }

    /// Ends the subscription without losing a message on its way.
    ///
    /// Unsubscribing at once would drop such messages. So the subscription is set to end after a
    /// number of messages larger than the server can have sent, and this listener sends the missing
    /// ones to its own inbox. Then the client and the server end the subscription at the same
    /// message.
    async fn drain(&mut self) -> Result<()> {
        let outstanding: usize = self.lanes.iter().map(LaneBuffer::outstanding).sum();
        // Each request may bring its messages, a status and some heartbeats.
        let fillers = 2 * outstanding + 8 * self.lanes.len() + 64;
        self.collect();
        let last = self.received + fillers as u64;
        let ended = self.subscription.unsubscribe_after(last).await;
        ended.map_err(|error| broken("the connection is closed").with_source(error))?;
        let filler: Subject = format!("{}.filler", self.inbox).into();
        for _ in 0..fillers {
            self.session.link.publish(filler.clone(), Bytes::new()).await?;
        }
        while let Some(message) = self.subscription.next().await {
            self.receive(message, Instant::now());
        }
        Ok(())
    }
}
