//! Replacement of a message by its successor: retry, snooze.

use std::time::Duration;

use crate::backend::Backend;
use crate::broker::{Delivery, Expect, Kicked, Replaced};
use crate::message::Envelope;
use crate::testing::conformance::kit::{
    CLOCK_SLACK, LONG, SHORT, ack, at_once, envelope, kick, listen, ok, until,
};
use crate::time::Timestamp;

/// Delay of a delivery that counts as late.
const LATE: Duration = Duration::from_secs(3);

/// The second attempt of a job.
fn successor(id: &str) -> Envelope {
    Envelope { attempt: 2, ..Envelope::new(id.into(), "q", "successor") }
}

async fn replace(delivery: &Delivery, next: Envelope) -> Replaced {
    ok(delivery.receipt.replace(next).await, "replace")
}

/// After a replace the successor is delivered once, as a first delivery, and its predecessor never
/// again.
pub async fn a_successor_takes_the_place_of_its_message(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let mut ear = listen(backend, "q", SHORT).await;
    // The second delivery, so that the successor's count has to restart.
    drop(ear.one().await);
    let delivery = ear.one().await;
    assert_eq!(delivery.deliveries, 2);
    assert_eq!(replace(&delivery, successor("1")).await, Replaced::Done);
    let next = ear.one().await;
    assert_eq!((&*next.body, next.deliveries), (b"successor".as_slice(), 1));
    assert_eq!(next.id.as_str(), "1");
    ack(&next).await;
    ear.nothing_for(2 * SHORT, "the message was replaced, and the successor acked").await;
}

/// A successor with a `not_before` is delivered at that time, and keeps the id until then, even
/// past the end of its predecessor's lease.
pub async fn a_successor_waits_for_its_time(backend: &Backend) {
    let mut ear = listen(backend, "q", SHORT).await;
    for (id, delay) in [("short", Duration::from_millis(300)), ("long", Duration::from_millis(2200))] {
        kick(backend, envelope("q", id)).await;
        let delivery = ear.one().await;
        let at = Timestamp::now() + delay;
        let next = Envelope { not_before: Some(at), ..successor(id) };
        assert_eq!(replace(&delivery, next).await, Replaced::Done);
        let again = backend.broker().kick(envelope("q", id), Expect::Absent).await;
        assert_eq!(ok(again, "a kick"), Kicked::Existing, "the successor waits under that id");
        let next = ear.one().await;
        assert!(Timestamp::now() + CLOCK_SLACK >= at, "{:?} too early", at.until());
        assert_eq!((&*next.body, next.deliveries), (b"successor".as_slice(), 1));
        ack(&next).await;
    }
}

/// A first delivery is replaced by the same attempt for later. That comes at its time, as a first
/// delivery.
pub async fn a_delivery_can_be_put_off(backend: &Backend) {
    let mut ear = listen(backend, "q", LONG).await;
    for (id, delay) in [("short", Duration::from_millis(200)), ("long", Duration::from_millis(1500))] {
        kick(backend, envelope("q", id)).await;
        let delivery = ear.one().await;
        assert_eq!(delivery.deliveries, 1);
        let at = Timestamp::now() + delay;
        let later = Envelope { not_before: Some(at), ..Envelope::new(id.into(), "q", "put off") };
        assert_eq!(replace(&delivery, later).await, Replaced::Done);
        let again = ear.one().await;
        assert!(Timestamp::now() + CLOCK_SLACK >= at, "{:?} too early", at.until());
        let late = Timestamp::now().since(at);
        assert!(late < LATE, "`{id}` came {late:?} too late");
        assert_eq!((again.id.as_str(), &*again.body, again.deliveries), (id, b"put off".as_slice(), 1));
        ack(&again).await;
    }
    ear.nothing_for(Duration::from_millis(300), "all were acked").await;
}

/// A worker whose lease has ended gets `Lost` after the new holder replaced the message. Its ack,
/// release and extend do not touch the successor.
pub async fn a_replaced_delivery_can_do_nothing_more(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let mut ear = listen(backend, "q", SHORT).await;
    let stale = ear.one().await;
    let fresh = ear.one().await;
    assert_eq!((stale.deliveries, fresh.deliveries), (1, 2));
    assert_eq!(replace(&fresh, successor("1")).await, Replaced::Done);
    let intruder = Envelope::new("1".into(), "q", "intruder");
    assert_eq!(replace(&stale, intruder).await, Replaced::Lost);
    ack(&stale).await;
    // The broker may report that there is no message, or not.
    _ = stale.receipt.extend().await;
    _ = stale.receipt.release(Duration::ZERO).await;
    let next = ear.one().await;
    assert_eq!((&*next.body, next.deliveries), (b"successor".as_slice(), 1));
    ack(&stale).await;
    assert!(ok(backend.broker().find(&"1".into()).await, "find").is_some(), "the successor is held");
    ack(&next).await;
    ear.nothing_for(2 * SHORT, "there was one successor").await;
}

/// Of two concurrent replacements of a delivery one is `Done`, and there is one successor.
pub async fn of_two_replacements_one_wins(backend: &Backend) {
    const RACES: usize = 50;
    let mut ear = listen(backend, "q", LONG).await;
    for race in 0..RACES {
        let id = format!("race-{race}");
        kick(backend, envelope("q", &id)).await;
        let receipt = ear.one().await.receipt;
        let racers = ["one", "two"].map(|body| {
            let (receipt, next) = (receipt.clone(), Envelope::new(id.as_str().into(), "q", body));
            async move { (body, ok(receipt.replace(next).await, "replace")) }
        });
        let fates = at_once(racers).await;
        let won: Vec<_> = fates.iter().filter(|(_, fate)| *fate == Replaced::Done).collect();
        assert_eq!(won.len(), 1, "two replacements of one delivery: {fates:?}");
        let next = ear.one().await;
        assert_eq!(next.body, won[0].0, "the successor is the winner's");
        ack(&next).await;
    }
    ear.nothing_for(Duration::from_millis(300), "each race had one successor").await;
}

/// `is_newest` is true for every delivery of the newest message, and false once that is replaced or
/// acked.
pub async fn a_replaced_delivery_is_not_the_newest(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let mut ear = listen(backend, "q", SHORT).await;
    let stale = ear.one().await;
    assert!(ok(stale.receipt.is_newest().await, "is_newest"), "the only message is the newest");
    let fresh = ear.one().await;
    for delivery in [&stale, &fresh] {
        assert!(ok(delivery.receipt.is_newest().await, "is_newest"), "a redelivery is the same message");
    }

    assert_eq!(replace(&fresh, successor("1")).await, Replaced::Done);
    for replaced in [&stale, &fresh] {
        assert!(!ok(replaced.receipt.is_newest().await, "is_newest"), "the message was replaced");
    }
    let next = ear.one().await;
    assert!(ok(next.receipt.is_newest().await, "is_newest"), "the successor is the newest");
    ack(&next).await;
    until("the acked message not to be the newest", async || {
        (!ok(next.receipt.is_newest().await, "is_newest")).then_some(())
    })
    .await;
}

/// The id is taken at every instant from the kick to the ack of the last successor.
pub async fn the_id_of_a_replaced_message_stays_taken(backend: &Backend) {
    const REPLACED: usize = 50;
    kick(backend, envelope("q", "1")).await;
    let mut ear = listen(backend, "q", LONG).await;
    let intrude = async {
        loop {
            let intruder = Envelope::new("1".into(), "q", "intruder");
            let kicked = ok(backend.broker().kick(intruder, Expect::Absent).await, "a kick");
            assert_eq!(kicked, Kicked::Existing, "the job is in the broker all the time");
            let found = ok(backend.broker().find(&"1".into()).await, "find");
            assert!(found.is_some(), "the job is in the broker all the time");
            tokio::task::yield_now().await;
        }
    };
    let move_on = async {
        for _ in 0..REPLACED {
            let delivery = ear.one().await;
            assert_ne!(delivery.body, "intruder");
            assert_eq!(replace(&delivery, successor("1")).await, Replaced::Done);
        }
        ear
    };
    tokio::select! {
        () = intrude => {}
        mut ear = move_on => ack(&ear.one().await).await,
    }
}
