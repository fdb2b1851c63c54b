//! Kicks, and their uniqueness.

use std::time::Duration;

use bytes::Bytes;

use crate::backend::Backend;
use crate::broker::{Expect, Kicked};
use crate::error::ErrorKind;
use crate::message::Envelope;
use crate::testing::conformance::kit::{
    LONG, SHORT, ack, at_once, envelope, ids, kick, later, listen, listen_to, ok, refused, until,
};
use crate::time::Timestamp;

/// Maximum size of a body in the cases.
const LARGE: usize = 8 * 1024 * 1024;

/// The id, the queue and the body arrive as they were kicked, as a first delivery.
pub async fn a_message_arrives_as_it_was_kicked(backend: &Backend) {
    let body: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    kick(backend, Envelope::new("id".into(), "q", body.clone())).await;
    let delivery = listen(backend, "q", LONG).await.one().await;
    assert_eq!(delivery.id.as_str(), "id");
    assert_eq!(&*delivery.queue, "q");
    assert_eq!(delivery.body, body);
    assert_eq!(delivery.deliveries, 1);
    ack(&delivery).await;
}

/// Queues need not exist when a listener starts, and a kick wakes a waiting listener.
pub async fn a_waiting_listener_gets_what_is_kicked_later(backend: &Backend) {
    let mut ear = listen(backend, "q", LONG).await;
    for id in ["1", "2", "3"] {
        let kicked = async {
            // Gives the listener time to wait. Without that the case is only weaker.
            tokio::task::yield_now().await;
            kick(backend, envelope("q", id)).await;
        };
        let (delivery, ()) = tokio::join!(ear.one(), kicked);
        assert_eq!(delivery.id.as_str(), id);
        ack(&delivery).await;
    }
}

/// A kick under the id of a ready message is `Existing`, for any queue, and changes nothing.
pub async fn a_second_kick_under_an_id_adds_nothing(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    adds_nothing(backend, "1").await;
    let mut ear = listen_to(backend, &["q", "other"], LONG).await;
    let delivery = ear.one().await;
    assert_eq!((&*delivery.queue, &delivery.body), ("q", &Bytes::from("body of 1")));
    ear.nothing_for(SHORT, "there is one message").await;
}

/// A kick under the id of a held message is `Existing`.
pub async fn an_id_is_taken_while_its_message_is_held(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let mut ear = listen_to(backend, &["q", "other"], LONG).await;
    let delivery = ear.one().await;
    adds_nothing(backend, "1").await;
    ack(&delivery).await;
    ear.nothing_for(SHORT, "the only message was acked").await;
}

/// A kick under the id of a delayed message is `Existing`.
pub async fn an_id_is_taken_while_its_message_waits_for_its_time(backend: &Backend) {
    kick(backend, later("q", "far", Duration::from_secs(3600))).await;
    kick(backend, later("q", "near", Duration::from_millis(700))).await;
    adds_nothing(backend, "far").await;
    adds_nothing(backend, "near").await;
    let mut ear = listen_to(backend, &["q", "other"], LONG).await;
    assert_eq!(ear.one().await.id.as_str(), "near");
    adds_nothing(backend, "near").await;
    ear.nothing_for(SHORT, "the other message is an hour away").await;
}

/// Kicks other messages under an id that is taken.
async fn adds_nothing(backend: &Backend, id: &str) {
    for queue in ["q", "other"] {
        let second = Envelope::new(id.into(), queue, "another body");
        let kicked = ok(backend.broker().kick(second, Expect::Absent).await, "a second kick");
        assert_eq!(kicked, Kicked::Existing, "`{id}` is in the broker, kicked again to `{queue}`");
    }
}

/// After its message is acked, an id can be kicked again, also to another queue.
pub async fn an_id_is_free_again_after_the_ack(backend: &Backend) {
    let mut ear = listen_to(backend, &["q", "other"], LONG).await;
    for queue in ["q", "q", "other", "q"] {
        // An ack that has returned may still be on its way.
        until("the id to be free", async || {
            let kicked = backend.broker().kick(envelope(queue, "1"), Expect::Absent).await;
            (ok(kicked, "a kick") == Kicked::New).then_some(())
        })
        .await;
        let delivery = ear.one().await;
        assert_eq!((&*delivery.queue, delivery.deliveries), (queue, 1));
        ack(&delivery).await;
    }
}

/// A second kick of one envelope, as after a lost confirmation, adds no message.
pub async fn a_repeated_kick_makes_no_second_message(backend: &Backend) {
    for _ in 0..3 {
        ok(backend.broker().kick(envelope("q", "1"), Expect::Any).await, "a repeated kick");
        let delayed = later("q", "2", Duration::from_millis(500));
        ok(backend.broker().kick(delayed, Expect::Any).await, "a repeated kick for later");
    }
    let mut ear = listen(backend, "q", LONG).await;
    assert_eq!(ids(&ear.some(2).await), ["1", "2"]);
    ear.nothing_for(SHORT, "each was one message").await;
}

/// Of many concurrent kicks under an id exactly one is `New`; repeated hundreds of times.
pub async fn racing_kicks_under_one_id_make_one_message(backend: &Backend) {
    const RACES: usize = 100;
    for race in 0..RACES {
        let id = format!("race-{race}");
        let kicks = ["q", "other", "q", "other"].map(|queue| {
            let (broker, envelope) = (backend.broker().clone(), envelope(queue, &id));
            async move { ok(broker.kick(envelope, Expect::Absent).await, "a kick") }
        });
        let fates = at_once(kicks).await;
        let new = fates.iter().filter(|fate| **fate == Kicked::New).count();
        assert_eq!(new, 1, "four kicks under one id: {fates:?}");
    }
    let mut ear = listen_to(backend, &["q", "other"], LONG).await;
    let mut came = ear.some(RACES).await;
    came.sort_by(|a, b| a.id.cmp(&b.id));
    came.dedup_by(|a, b| a.id == b.id);
    assert_eq!(came.len(), RACES, "one message for each id");
    ear.nothing_for(Duration::from_millis(300), "each id had one message").await;
}

/// `kick_all` returns for each envelope, in order, whether it is new.
pub async fn a_bulk_kick_tells_each_fate_in_order(backend: &Backend) {
    kick(backend, envelope("q", "there")).await;
    let bulk = ["a", "there", "b", "a", "c"].map(|id| (envelope("q", id), Expect::Absent));
    let fates = backend.broker().kick_all(bulk.to_vec()).await;
    let fates: Vec<Kicked> = fates.into_iter().map(|fate| ok(fate, "a bulk kick")).collect();
    use Kicked::{Existing, New};
    // The two `a` may be sent concurrently: one of them is new.
    assert!(
        fates == [New, Existing, New, Existing, New] || fates == [Existing, Existing, New, New, New],
        "{fates:?}"
    );
    let mut ear = listen(backend, "q", LONG).await;
    let mut came = ids(&ear.some(4).await).join(" ");
    assert_eq!(came.split_off(0).split(' ').collect::<std::collections::BTreeSet<_>>().len(), 4);
    let none = backend.broker().kick_all(Vec::new()).await;
    assert!(none.is_empty(), "no envelopes, no fates");
}

/// One call kicks a thousand messages to several queues, some delayed.
pub async fn a_bulk_kick_arrives_whole(backend: &Backend) {
    const MESSAGES: usize = 1000;
    let bulk = (0..MESSAGES).map(|index| {
        let (queue, id) = (["a", "b", "c"][index % 3], format!("m-{index}"));
        let envelope = match index % 100 {
            0 => later(queue, &id, Duration::from_millis(800)),
            _ => envelope(queue, &id),
        };
        (envelope, Expect::Any)
    });
    let fates = backend.broker().kick_all(bulk.collect()).await;
    assert_eq!(fates.len(), MESSAGES);
    assert!(fates.into_iter().all(|fate| ok(fate, "a bulk kick") == Kicked::New));
    let mut ear = listen_to(backend, &["a", "b", "c"], LONG).await;
    let came = ear.some(MESSAGES).await;
    let different: std::collections::BTreeSet<&str> = ids(&came).into_iter().collect();
    assert_eq!(different.len(), MESSAGES);
}

/// A body of `max_body_bytes`, at most 8 MiB, arrives complete.
pub async fn a_body_of_the_largest_size_arrives(backend: &Backend) {
    let size = backend.broker().info().max_body_bytes.min(LARGE);
    let body: Bytes = (0..size).map(|index| (index % 251) as u8).collect();
    kick(backend, Envelope::new("large".into(), "q", body.clone())).await;
    let delivery = listen(backend, "q", LONG).await.one().await;
    assert!(delivery.body == body, "{size} bytes became {}", delivery.body.len());
    ack(&delivery).await;
}

/// A larger body than `max_body_bytes` is refused as `TooLarge`, and nothing is sent. Passes for a
/// broker without a limit.
pub async fn a_body_over_the_limit_is_refused(backend: &Backend) {
    let limit = backend.broker().info().max_body_bytes;
    if limit > 64 * LARGE {
        return;
    }
    let large = || Envelope::new("large".into(), "q", vec![0; limit + 1]);
    let kicked = backend.broker().kick(large(), Expect::Absent).await;
    assert_eq!(refused(kicked, "a kick over the limit"), ErrorKind::TooLarge);
    let bulk = vec![(large(), Expect::Absent), (envelope("q", "small"), Expect::Absent)];
    let mut fates = backend.broker().kick_all(bulk).await;
    assert_eq!(fates.pop().map(|fate| ok(fate, "the other one")), Some(Kicked::New));
    let fate = fates.pop().map(|fate| refused(fate, "a bulk kick over the limit"));
    assert_eq!(fate, Some(ErrorKind::TooLarge));
    let mut ear = listen(backend, "q", LONG).await;
    assert_eq!(ear.one().await.id.as_str(), "small");
    ear.nothing_for(Duration::from_millis(300), "nothing was sent").await;
}

/// A broker delivers an expired message, so that a worker can record it.
pub async fn a_message_past_its_expiry_is_delivered(backend: &Backend) {
    let past = Timestamp::from_micros(Timestamp::now().as_micros() - 1_000_000);
    kick(backend, Envelope { expires_at: Some(past), ..envelope("q", "past") }).await;
    let soon = Timestamp::now() + Duration::from_millis(100);
    let delay = Some(Timestamp::now() + Duration::from_millis(700));
    kick(backend, Envelope { expires_at: Some(soon), not_before: delay, ..envelope("q", "later") }).await;
    assert_eq!(ids(&listen(backend, "q", LONG).await.some(2).await), ["past", "later"]);
}
