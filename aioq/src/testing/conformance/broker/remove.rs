//! Removal of messages by clients that do not hold them.

use std::time::Duration;

use crate::backend::Backend;
use crate::broker::{Delivery, Expect, Kicked, Queued, QueuedFilter, Replaced};
use crate::message::Envelope;
use crate::testing::conformance::kit::{
    LONG, SHORT, ack, at_once, envelope, find, ids, kick, later, listed, listen, ok, remove, until,
};

async fn is_gone(backend: &Backend, id: &str) {
    assert!(ok(backend.broker().find(&id.into()).await, "find").is_none(), "`{id}` was removed");
    assert!(
        !listed(backend, QueuedFilter::new()).await.iter().any(|listed| listed == id),
        "`{id}` was removed"
    );
}

/// A removed message is not found, listed, counted or delivered, and its neighbours stay in order.
/// A second removal finds nothing.
pub async fn a_removed_message_is_gone(backend: &Backend) {
    for id in ["1", "2", "3"] {
        kick(backend, envelope("q", id)).await;
    }
    let message = find(backend, "2").await;
    assert!(remove(backend, &message).await, "it was there");
    is_gone(backend, "2").await;
    assert!(!remove(backend, &message).await, "it was removed already");
    until("two to be counted", async || {
        let depths = ok(backend.broker().depths(&["q".to_owned()]).await, "depths");
        (depths[0].ready == 2).then_some(())
    })
    .await;
    let mut ear = listen(backend, "q", LONG).await;
    assert_eq!(ids(&ear.some(2).await), ["1", "3"]);
    ear.nothing_for(Duration::from_millis(300), "the other one was removed").await;
}

/// A removed delayed message is not delivered at its time. Its id is free.
pub async fn a_removed_delayed_message_never_comes(backend: &Backend) {
    let mut ear = listen(backend, "q", LONG).await;
    kick(backend, later("q", "removed", Duration::from_millis(1500))).await;
    kick(backend, later("q", "kicked anew", Duration::from_millis(1500))).await;
    kick(backend, later("q", "kept", Duration::from_millis(1800))).await;
    for id in ["removed", "kicked anew"] {
        assert!(remove(backend, &find(backend, id).await).await, "it was there");
        is_gone(backend, id).await;
    }
    kick(backend, later("q", "kicked anew", Duration::from_millis(2200))).await;
    assert_eq!(ids(&ear.some(2).await), ["kept", "kicked anew"]);
    ear.nothing_for(Duration::from_millis(300), "the other ones were removed").await;
}

/// A held message can be removed. Its holder is not notified; no operation of the holder brings the
/// message back, or touches a later one of that id, which is free at once.
pub async fn a_removed_message_is_out_of_its_holders_hands(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let mut ear = listen(backend, "q", LONG).await;
    let held = ear.one().await;
    assert!(remove(backend, &find(backend, "1").await).await, "it is there while it is held");
    is_gone(backend, "1").await;
    is_lost(backend, &held).await;
    is_gone(backend, "1").await;

    kick(backend, Envelope::new("1".into(), "q", "a later one")).await;
    is_lost(backend, &held).await;
    let later = ear.one().await;
    assert_eq!((&*later.body, later.deliveries), (b"a later one".as_slice(), 1));
    is_lost(backend, &held).await;
    assert!(ok(later.receipt.is_newest().await, "is_newest"), "the later one is still there");
    assert_eq!(find(backend, "1").await.body, "a later one");
    ack(&later).await;
    ear.nothing_for(SHORT, "there was nothing but the later one").await;
}

/// The holder of a removed message has no message, whatever it tries.
async fn is_lost(backend: &Backend, delivery: &Delivery) {
    let intruder = Envelope { attempt: 2, ..Envelope::new(delivery.id.clone(), "q", "intruder") };
    assert_eq!(ok(delivery.receipt.replace(intruder).await, "replace"), Replaced::Lost);
    let before = ok(backend.broker().find(&delivery.id).await, "find").map(|found| found.revision);
    // The broker may report that there is no message, or not.
    _ = delivery.receipt.extend().await;
    _ = delivery.receipt.release(Duration::ZERO).await;
    _ = delivery.receipt.ack().await;
    assert!(!ok(delivery.receipt.is_newest().await, "is_newest"), "the message was removed");
    let after = ok(backend.broker().find(&delivery.id).await, "find").map(|found| found.revision);
    assert_eq!(before, after, "a holder of nothing changes nothing");
}

/// A removed message does not come back when its lease ends.
pub async fn a_removed_message_is_not_delivered_again(backend: &Backend) {
    for id in ["removed", "kept"] {
        kick(backend, envelope("q", id)).await;
    }
    let mut ear = listen(backend, "q", SHORT).await;
    assert_eq!(ids(&ear.some(2).await), ["removed", "kept"]);
    assert!(remove(backend, &find(backend, "removed").await).await);
    let again = ear.one().await;
    assert_eq!((again.id.as_str(), again.deliveries), ("kept", 2));
    ack(&again).await;
    ear.nothing_for(2 * SHORT, "the other one was removed").await;
}

/// A client that read a message before it was replaced removes nothing, whether the successor is
/// ready or delayed.
pub async fn a_removal_spares_the_successor(backend: &Backend) {
    let mut ear = listen(backend, "q", LONG).await;
    for (id, delay) in [("ready", None), ("waits", Some(Duration::from_millis(1500)))] {
        kick(backend, envelope("q", id)).await;
        let (read, held) = (find(backend, id).await, ear.one().await);
        let next = Envelope { attempt: 2, ..Envelope::new(id.into(), "q", "successor") };
        let next = match delay {
            Some(delay) => Envelope { not_before: later("q", id, delay).not_before, ..next },
            None => next,
        };
        assert_eq!(ok(held.receipt.replace(next).await, "replace"), Replaced::Done);
        // The replaced message may still be on its way out.
        remove(backend, &read).await;
        let next = ear.one().await;
        assert_eq!((next.id.as_str(), &*next.body), (id, b"successor".as_slice()));
        assert!(!remove(backend, &read).await, "that message was replaced");
        assert!(remove(backend, &find(backend, id).await).await, "the successor is there");
    }
}

/// A client that read a message before it was acked removes nothing, even if its id was kicked
/// again.
pub async fn a_removal_spares_a_later_message_of_the_id(backend: &Backend) {
    let mut ear = listen(backend, "q", LONG).await;
    kick(backend, envelope("q", "1")).await;
    let read = find(backend, "1").await;
    ack(&ear.one().await).await;
    until("the id to be free", async || {
        let kicked = backend.broker().kick(envelope("q", "1"), Expect::Absent).await;
        (ok(kicked, "a kick") == Kicked::New).then_some(())
    })
    .await;
    assert!(!remove(backend, &read).await, "that message was acked");
    let later = ear.one().await;
    assert_eq!(later.id.as_str(), "1");
    ack(&later).await;
}

/// Many messages, ready, held or delayed, are removed by one call, which returns true for each that
/// was there, in order.
pub async fn a_bulk_removal_tells_each_fate_in_order(backend: &Backend) {
    let mut messages = Vec::new();
    for index in 0..100 {
        let (queue, id) = (["a", "b"][index % 2], format!("m-{index}"));
        let delay = Duration::from_secs(if index % 3 == 0 { 3600 } else { 0 });
        kick(backend, later(queue, &id, delay)).await;
        messages.push(find(backend, &id).await);
    }
    let held = listen(backend, "b", LONG).await.some(5).await;
    for index in [3, 50] {
        assert!(remove(backend, &messages[index]).await);
    }
    let never = Queued::new("never".into(), "a", "body".into(), true).position(1).revision(1);
    messages.insert(10, never);

    let fates = backend.broker().remove(&messages).await;
    let fates: Vec<bool> = fates.into_iter().map(|fate| ok(fate, "remove")).collect();
    let missing: Vec<usize> = (0..messages.len()).filter(|index| !fates[*index]).collect();
    assert_eq!((fates.len(), missing), (101, vec![3, 10, 51]));
    assert_eq!(listed(backend, QueuedFilter::new()).await, [""; 0]);
    is_lost(backend, &held[0]).await;
    assert!(backend.broker().remove(&[]).await.is_empty(), "no messages, no fates");
}

/// Of several concurrent removals of a message one finds it.
pub async fn of_racing_removals_one_finds_the_message(backend: &Backend) {
    for race in 0..50 {
        let id = format!("race-{race}");
        kick(backend, envelope("q", &id)).await;
        let message = find(backend, &id).await;
        let removals = (0..4).map(|_| {
            let (backend, message) = (backend.clone(), message.clone());
            async move { remove(&backend, &message).await }
        });
        let found = at_once(removals).await.into_iter().filter(|found| *found).count();
        assert_eq!(found, 1, "four removals of one message");
    }
    assert_eq!(listed(backend, QueuedFilter::new()).await, [""; 0]);
}
