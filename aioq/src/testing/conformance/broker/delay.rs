//! Delayed messages.

use std::time::Duration;

use crate::backend::Backend;
use crate::message::Envelope;
use crate::testing::conformance::kit::{
    CLOCK_SLACK, LONG, SHORT, ack, envelope, ids, kick, later, listen, ok, soon, until, with_priority,
};
use crate::time::Timestamp;

/// A message with a `not_before` is delivered once, at that time, for delays under and over a
/// second.
pub async fn a_delayed_message_comes_at_its_time(backend: &Backend) {
    let mut ear = listen(backend, "q", LONG).await;
    for millis in [0, 40, 250, 999, 1000, 1700] {
        let id = format!("after-{millis}");
        let at = Timestamp::now() + Duration::from_millis(millis);
        kick(backend, Envelope { not_before: Some(at), ..envelope("q", &id) }).await;
        let delivery = ear.one().await;
        assert!(Timestamp::now() + CLOCK_SLACK >= at, "{id} came {:?} too early", at.until());
        assert_eq!((delivery.id.as_str(), delivery.deliveries >= 1), (id.as_str(), true));
        ack(&delivery).await;
    }
    ear.nothing_for(SHORT, "all were acked").await;
}

/// A `not_before` in the past is no delay.
pub async fn a_time_that_has_passed_delays_nothing(backend: &Backend) {
    for (id, micros) in [("year 1970", 0), ("an hour ago", Timestamp::now().as_micros() - 3_600_000_000)] {
        let past = Some(Timestamp::from_micros(micros));
        kick(backend, Envelope { not_before: past, ..envelope("q", id) }).await;
    }
    assert_eq!(ids(&listen(backend, "q", LONG).await.some(2).await), ["year 1970", "an hour ago"]);
}

/// Delayed messages, kicked in any order, are delivered in the order of their times, also to a
/// listener that already waits for a later one. A message that is delayed by a year is not
/// delivered.
pub async fn delays_end_in_the_order_of_their_times(backend: &Backend) {
    let mut ear = listen(backend, "q", LONG).await;
    kick(backend, later("q", "in a year", Duration::from_secs(365 * 24 * 3600))).await;
    let kicked = async {
        for (id, millis) in [("third", 3000), ("first", 1200), ("second", 2100)] {
            kick(backend, later("q", id, Duration::from_millis(millis))).await;
        }
    };
    let (first, ()) = tokio::join!(ear.one(), kicked);
    let rest = ear.some(2).await;
    assert_eq!((first.id.as_str(), ids(&rest)), ("first", vec!["second", "third"]));
    ear.nothing_for(Duration::from_millis(300), "the last one is due in a year").await;
}

/// At its time a delayed message comes before waiting ones of lower priority.
pub async fn a_delayed_message_keeps_its_priority(backend: &Backend) {
    for index in 0..4 {
        kick(backend, with_priority("q", &format!("low-{index}"), 9)).await;
    }
    let at = Timestamp::now() + Duration::from_millis(1200);
    kick(backend, Envelope { not_before: Some(at), ..with_priority("q", "high", 0) }).await;
    until("the delayed message to be ready", async || {
        let found = ok(backend.broker().find(&"high".into()).await, "find");
        found.expect("it waits in the broker").ready.then_some(())
    })
    .await;
    let mut ear = listen(backend, "q", LONG).await;
    let mut came = Vec::new();
    for _ in 0..5 {
        let delivery = soon("a delivery", ear.one()).await;
        ack(&delivery).await;
        came.push(delivery);
    }
    assert!(ids(&came)[..2].contains(&"high"), "{:?}", ids(&came));
}
