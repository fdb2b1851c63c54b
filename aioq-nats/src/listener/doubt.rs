//! Messages that may have been delivered before although the server calls them new: [`Doubt`].
//!
//! A server writes its deliveries down ten times a second. After a crash it has forgotten the last
//! ones, and delivers those messages as if for the first time.

use crate::setup::consumers::Info;
use crate::wire::ack_subject::AckSubject;

/// Number of deliveries of one consumer that a crashed server may have forgotten: more than a
/// consumer delivers in several tenths of a second.
const FORGOTTEN: u64 = 8_192;

/// Messages of one lane in doubt. None by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Doubt {
    /// Newest sequence that can be in doubt. Later messages were stored after the crash.
    stored: u64,
    /// Sequence up to which all messages are in doubt: this listener received it, or the consumer
    /// delivered it.
    delivered: u64,
    /// Number of the consumer's delivery up to which deliveries are in doubt, as the server may
    /// have forgotten earlier ones to any worker.
    deliveries: u64,
}

impl Doubt {
    /// Puts everything up to sequence `stored` in doubt.
    pub(super) fn all(stored: u64) -> Self {
        Self { stored, delivered: stored, deliveries: u64::MAX }
    }

    /// Narrows the doubt after a crash, by the newest sequence received here and the state of the
    /// consumer.
    pub(super) fn narrow(&mut self, newest_received: u64, consumer: &Info) {
        // A consumer without deliveries may be a new one, which knows nothing.
        if self.deliveries == u64::MAX && consumer.deliveries > 0 {
            self.delivered = self.stored.min(newest_received.max(consumer.delivered));
            self.deliveries = consumer.deliveries.saturating_add(FORGOTTEN);
        }
    }

    /// True if the delivery is in doubt.
    pub(super) fn covers(&self, delivery: &AckSubject) -> bool {
        let may_be_forgotten = delivery.consumer_sequence <= self.deliveries;
        delivery.sequence <= self.delivered || (may_be_forgotten && delivery.sequence <= self.stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_restart_only_messages_that_may_have_been_delivered_are_in_doubt() {
        let delivery = |sequence, consumer_sequence| AckSubject {
            deliveries: 1,
            sequence,
            consumer_sequence,
            pending: 0,
        };
        let consumer = Info::of;
        let mut doubt = Doubt::default();
        assert!(!doubt.covers(&delivery(1, 1)));
        doubt = Doubt::all(1_000_000);
        assert!(doubt.covers(&delivery(1_000_000, 900_000)) && !doubt.covers(&delivery(1_000_001, 1)));
        // A new consumer gives no information.
        doubt.narrow(70, &consumer(0, 0));
        assert_eq!(doubt, Doubt::all(1_000_000));
        doubt.narrow(70, &consumer(50, 100));
        // Messages that came here, messages that others may have got, and the rest of the backlog.
        assert!(doubt.covers(&delivery(70, 100 + FORGOTTEN + 1)));
        assert!(doubt.covers(&delivery(90_000, 100 + FORGOTTEN)));
        assert!(!doubt.covers(&delivery(90_000, 101 + FORGOTTEN)));
        // Later the consumer has delivered more. Those deliveries are not in doubt.
        doubt.narrow(70, &consumer(500_000, 500_000));
        assert!(!doubt.covers(&delivery(400_000, 400_000)));
    }
}
