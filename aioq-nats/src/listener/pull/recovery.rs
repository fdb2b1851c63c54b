//! Recovery of a listener: from suspensions, silence, breaks of the connection, and missing
//! consumers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::PullState;
use crate::api::get::last_sequence;
use crate::listener::lane::LaneBuffer;
use crate::setup::consumers;

/// Pause after a failure to declare a consumer.
const DECLARE_PAUSE: Duration = Duration::from_secs(1);

impl PullState {
    /// True if something failed that can be repaired now.
    pub(super) fn needs_recovery(&self) -> bool {
        let (health, now) = (*self.health.borrow(), Instant::now());
        let needs_server = health.breaks != self.handled_breaks
            || self.lanes.iter().any(|lane| lane.is_silent(now) || lane.can_declare(now));
        (!health.down && needs_server) || self.was_suspended()
    }

    /// Repairs what can be repaired now and leaves the rest for later calls.
    pub(super) async fn recover(&mut self) {
        if self.was_suspended() {
            self.drop_after_suspension().await;
        }
        let now = Instant::now();
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_silent(now)) {
            lane.drop_requests();
            self.denied = self.denied.take().or(self.session.link.check_publish(lane.requests()).err());
        }
        let health = *self.health.borrow_and_update();
        if health.down {
            return;
        }
        if health.breaks != self.handled_breaks {
            self.reopen_inbox(health.breaks).await;
        }
        for index in 0..self.lanes.len() {
            if self.lanes[index].can_declare(now) {
                self.declare(index).await;
            }
        }
    }

    /// True if a suspension was so long that leases may have expired, and is not handled yet.
    pub(super) fn was_suspended(&self) -> bool {
        self.suspensions() != self.handled_suspensions
    }

    /// Number of suspensions so far that were longer than half of the shortest lease.
    fn suspensions(&self) -> u64 {
        let shortest = self.lanes.iter().map(|lane| lane.queue().ack_wait.get()).min();
        self.suspensions.check(shortest.unwrap_or_default() / 2)
    }

    /// Drops all messages received before or during a suspension.
    ///
    /// Other workers may have them by now. So they are neither run nor extended nor given back;
    /// those that no worker has come again.
    async fn drop_after_suspension(&mut self) {
        let suspensions = self.suspensions();
        // Messages sent during the suspension are in the socket and do not tell their age. A round
        // trip brings them all in. After a break of the connection none are left.
        let have_all_arrived =
            self.health.borrow().down || self.session.link.round_trip(self.session.deadline()).await.is_ok();
        self.collect();
        let dropped = self.drop_messages();
        tracing::debug!(
            dropped,
            "the process was suspended; dropped prefetched messages, other workers get them"
        );
        if have_all_arrived {
            self.handled_suspensions = suspensions;
        }
    }

    pub(super) fn drop_messages(&mut self) -> usize {
        self.releases.clear();
        self.lanes.iter_mut().map(LaneBuffer::drop_messages).sum()
    }

    /// Opens a new inbox after a reconnect. Requests and messages on the old connection are lost.
    ///
    /// A crashed server may have forgotten its last deliveries and acks, and then delivers those
    /// messages as if for the first time. So all messages stored until now are in doubt, until the
    /// state of the consumer narrows that down.
    async fn reopen_inbox(&mut self, breaks: u64) {
        let (session, deadline) = (&self.session, self.session.deadline());
        let stored = last_sequence(&session.link, deadline, &session.names.jobs).await;
        let Ok(stored) = stored else { return };
        self.lanes.iter_mut().for_each(|lane| lane.doubt(stored));
        let inbox = self.session.link.new_inbox();
        if let Ok(subscription) = self.session.link.subscribe(format!("{inbox}.*")).await {
            self.collect();
            (self.inbox, self.subscription, self.received) = (inbox, subscription, 0);
            self.handled_breaks = breaks;
            self.lanes.iter_mut().for_each(LaneBuffer::drop_requests);
        }
    }

    /// Looks up the consumer of a lane and declares it if it is gone.
    async fn declare(&mut self, index: usize) {
        let lane = &self.lanes[index];
        let (queue, priority) = (Arc::clone(lane.queue()), lane.lane);
        let declared = consumers::declare(&self.session, &queue.queue, priority, queue.ack_wait.get()).await;
        let lane = &mut self.lanes[index];
        match declared {
            Ok(consumer) => {
                lane.declared(&consumer);
                self.failure_logged = false;
                // The server was away for as long as no request could be sent.
                self.session.outages.note_end();
            }
            Err(error) => {
                lane.paused_until = Instant::now() + DECLARE_PAUSE;
                if !std::mem::replace(&mut self.failure_logged, true) {
                    tracing::warn!(%error, queue = %queue.queue, "cannot receive from the queue, retrying");
                }
            }
        }
    }
}
