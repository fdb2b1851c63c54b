//! Leases of deliveries.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::backend::Backend;
use crate::broker::{Expect, Kicked, Subscription};
use crate::testing::conformance::kit::{
    CLOCK_SLACK, Ear, LONG, SHORT, ack, envelope, ids, kick, listen, ok, until, with_priority,
};

/// A delivery that is neither acked, released nor extended comes back after `ack_wait`, with its
/// number of deliveries.
pub async fn a_delivery_that_nobody_finishes_comes_back(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let mut ear = listen(backend, "q", SHORT).await;
    let start = Instant::now();
    for ended_leases in 0..3 {
        let delivery = ear.one().await;
        assert_eq!((delivery.deliveries, &*delivery.body), (ended_leases + 1, b"body of 1".as_slice()));
        // Each lease began after `start`, and after the end of the lease before. The time at which
        // this task receives a delivery proves nothing: its lease may have begun long before.
        let (took, least) = (start.elapsed(), SHORT * ended_leases);
        let slack = 2 * CLOCK_SLACK * ended_leases;
        assert!(took + slack >= least, "{ended_leases} leases of {SHORT:?} ended after {took:?}");
    }
}

/// A delivery stays hidden from others while its holder extends it, and not longer.
pub async fn an_extended_delivery_stays_away(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let delivery = listen(backend, "q", SHORT).await.one().await;
    let mut ear = listen(backend, "q", SHORT).await;
    let extend = async {
        for _ in 0..9 {
            ok(delivery.receipt.extend().await, "extend");
            sleep(SHORT / 3).await;
        }
    };
    let (_, ()) = tokio::join!(extend, ear.nothing_for(3 * SHORT, "the holder extends"));
    assert_eq!(ear.one().await.deliveries, 2);
}

/// An acked message is not delivered again at the end of its lease, and not found.
pub async fn an_acked_message_never_returns(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let mut ear = listen(backend, "q", SHORT).await;
    let delivery = ear.one().await;
    ack(&delivery).await;
    ack(&delivery).await;
    ear.nothing_for(2 * SHORT, "the message was acked").await;
    let found = ok(backend.broker().find(&"1".into()).await, "find");
    assert!(found.is_none(), "the message was acked");
}

/// No operation of the holder of an acked message touches a later message under the same id.
pub async fn a_late_ack_leaves_a_later_message_of_the_id_alone(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let mut ear = listen(backend, "q", LONG).await;
    let old = ear.one().await;
    ack(&old).await;
    until("the id to be free", async || {
        let kicked = backend.broker().kick(envelope("q", "1"), Expect::Absent).await;
        (ok(kicked, "a kick") == Kicked::New).then_some(())
    })
    .await;
    ack(&old).await;
    let new = ear.one().await;
    assert_eq!(new.deliveries, 1);
    ack(&old).await;
    // These have no message any more. The broker may report that, or not.
    _ = old.receipt.release(Duration::ZERO).await;
    _ = old.receipt.extend().await;
    ear.nothing_for(SHORT, "the new message is held").await;
    assert!(ok(backend.broker().find(&"1".into()).await, "find").is_some(), "the new message is held");
    ack(&new).await;
}

/// A released message is available to others at once, with a higher count.
pub async fn a_released_message_comes_back_at_once(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let mut first = listen(backend, "q", LONG).await;
    let mut second = listen(backend, "q", LONG).await;
    for deliveries in [1, 3] {
        let delivery = first.one().await;
        assert_eq!(delivery.deliveries, deliveries);
        ok(delivery.receipt.release(Duration::ZERO).await, "release");
        let again = second.one().await;
        assert_eq!((again.deliveries, &*again.body), (deliveries + 1, b"body of 1".as_slice()));
        ok(again.receipt.release(Duration::ZERO).await, "release");
    }
}

/// A message released with a delay comes back after it, and not before.
pub async fn a_released_message_waits_for_its_delay(backend: &Backend) {
    let mut ear = listen(backend, "q", LONG).await;
    for (id, delay) in [("short", Duration::from_millis(300)), ("long", Duration::from_millis(1500))] {
        kick(backend, envelope("q", id)).await;
        let delivery = ear.one().await;
        let start = Instant::now();
        ok(delivery.receipt.release(delay).await, "release");
        let again = ear.one().await;
        let took = start.elapsed();
        assert!(took + CLOCK_SLACK >= delay, "released for {delay:?}, back after {took:?}");
        assert_eq!((again.id.as_str(), again.deliveries), (id, 2));
        ack(&again).await;
    }
}

/// A released message comes before those of lower priority again.
pub async fn a_released_message_keeps_its_priority(backend: &Backend) {
    kick(backend, with_priority("q", "high", 0)).await;
    let mut ear = listen(backend, "q", LONG).await;
    let high = ear.one().await;
    for index in 0..12 {
        kick(backend, with_priority("q", &format!("low-{index}"), 9)).await;
    }
    ok(high.receipt.release(Duration::ZERO).await, "release");
    let came = take_one_by_one(&mut ear, 13).await;
    // The release may arrive after the first deliveries. A message without its priority would be
    // last.
    assert!(came[..6].contains(&"high".to_owned()), "{came:?}");
}

async fn take_one_by_one(ear: &mut Ear, count: usize) -> Vec<String> {
    let mut came = Vec::new();
    for _ in 0..count {
        let delivery = ear.one().await;
        ack(&delivery).await;
        came.extend(ids(&[delivery]).into_iter().map(str::to_owned));
    }
    came
}

/// The first listener of a queue sets its lease. A listener without a lease of its own adopts it,
/// and each delivery reports it.
pub async fn the_first_listener_sets_the_lease_of_a_queue(backend: &Backend) {
    let wanted = Duration::from_secs(7);
    let first = listen(backend, "q", wanted).await;
    let adopts = ok(backend.broker().listen(Subscription::new(["q"])).await, "listen");
    kick(backend, envelope("q", "1")).await;
    drop(first);
    let delivery = Ear(adopts).one().await;
    assert_eq!(delivery.receipt.ack_wait(), wanted);
    ack(&delivery).await;
}
