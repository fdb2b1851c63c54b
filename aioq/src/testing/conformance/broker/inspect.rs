//! The views of a broker besides lists: `find`, `queues` and `depths`.

use std::time::Duration;

use crate::backend::Backend;
use crate::broker::{Expect, QueueDepth, Queued, Replaced};
use crate::message::Envelope;
use crate::testing::conformance::kit::{
    CLOCK_SLACK, LONG, ack, envelope, ids, kick, later, listen, listen_to, ok, until,
};
use crate::time::Timestamp;

/// A delay that no case waits for.
const HOUR: Duration = Duration::from_secs(3600);

async fn find(backend: &Backend, id: &str) -> Option<Queued> {
    ok(backend.broker().find(&id.into()).await, "find")
}

/// A message is found by its id from the return of its kick until its ack.
pub async fn what_is_in_the_broker_is_found(backend: &Backend) {
    assert!(find(backend, "1").await.is_none(), "nothing was kicked yet");
    kick(backend, envelope("q", "1")).await;
    kick(backend, envelope("q", "2")).await;
    for held in [false, true] {
        let mut ear = listen(backend, "q", LONG).await;
        if held {
            let delivery = ear.one().await;
            assert_eq!(delivery.id.as_str(), "1");
        }
        let found = find(backend, "1").await.expect("it is in the broker");
        assert_eq!((found.id.as_str(), found.queue.as_str()), ("1", "q"));
        assert_eq!(found.body, "body of 1");
        assert!(found.ready, "it does not wait for its time");
    }
    let mut ear = listen(backend, "q", LONG).await;
    let delivery = ear.one().await;
    assert_eq!(delivery.id.as_str(), "2");
    ack(&delivery).await;
    until("the acked message to be gone", async || find(backend, "2").await.is_none().then_some(())).await;
    assert!(find(backend, "1").await.is_some(), "the other message is still there");
}

/// A delayed message is found with `ready: false`, and with `ready: true` from its time on.
pub async fn a_delayed_message_is_found_as_not_ready(backend: &Backend) {
    kick(backend, later("q", "1", Duration::from_millis(1500))).await;
    let found = find(backend, "1").await.expect("it is in the broker");
    assert_eq!((found.queue.as_str(), &*found.body), ("q", b"body of 1".as_slice()));
    assert!(!found.ready, "it waits for its time");
    until("the message to be ready", async || {
        let found = find(backend, "1").await.expect("it does not vanish on its way");
        found.ready.then_some(())
    })
    .await;
    let delivery = listen(backend, "q", LONG).await.one().await;
    assert_eq!(delivery.id.as_str(), "1");
}

/// `depths` returns for each given queue, in that order, the numbers of ready, held and delayed
/// messages.
pub async fn depths_count_what_is_ready_held_and_delayed(backend: &Backend) {
    let queues = ["q", "unused", "other"].map(str::to_owned);
    let depths = async || {
        let depths = ok(backend.broker().depths(&queues).await, "depths");
        depths.into_iter().map(numbers).collect::<Vec<_>>()
    };
    let reach = async |wanted: [(u64, u64, u64); 3]| {
        let named = queues.iter().cloned().zip(wanted).collect::<Vec<_>>();
        until(&format!("depths of {named:?}"), async || (depths().await == named).then_some(())).await;
    };
    reach([(0, 0, 0), (0, 0, 0), (0, 0, 0)]).await;
    for id in ["1", "2", "3"] {
        kick(backend, envelope("q", id)).await;
    }
    kick(backend, later("q", "hour", HOUR)).await;
    kick(backend, envelope("other", "4")).await;
    reach([(3, 0, 1), (0, 0, 0), (1, 0, 0)]).await;

    let mut ear = listen(backend, "q", LONG).await;
    let held = ear.some(2).await;
    reach([(1, 2, 1), (0, 0, 0), (1, 0, 0)]).await;
    ack(&held[0]).await;
    reach([(1, 1, 1), (0, 0, 0), (1, 0, 0)]).await;
    ok(held[1].receipt.replace(later("q", held[1].id.as_str(), LONG)).await, "replace");
    reach([(1, 0, 2), (0, 0, 0), (1, 0, 0)]).await;
    // Delayed at first, ready at last.
    kick(backend, later("q", "soon", Duration::from_millis(1200))).await;
    reach([(2, 0, 2), (0, 0, 0), (1, 0, 0)]).await;
}

fn numbers(depth: QueueDepth) -> (String, (u64, u64, u64)) {
    (depth.queue, (depth.ready, depth.held, depth.scheduled))
}

/// A message delayed for a later attempt counts as `retrying`, and one delayed for its first
/// attempt as `scheduled`, also after a snooze.
pub async fn depths_tell_retries_from_first_attempts(backend: &Backend) {
    let retry = |id: &str| Envelope { attempt: 2, ..later("q", id, HOUR) };
    for id in ["retried", "put off", "waits"] {
        kick(backend, envelope("q", id)).await;
    }
    kick(backend, Envelope { attempt: 3, ..later("q", "kicked as a retry", HOUR) }).await;
    kick(backend, Envelope { attempt: 3, ..envelope("q", "a retry that is due") }).await;
    let mut ear = listen(backend, "q", LONG).await;
    let held = ear.some(2).await;
    assert_eq!(ids(&held), ["retried", "put off"]);
    for (delivery, next) in held.iter().zip([retry("retried"), later("q", "put off", HOUR)]) {
        assert_eq!(ok(delivery.receipt.replace(next).await, "replace"), Replaced::Done);
    }
    until("two retries and one first attempt to wait for their time", async || {
        let depth = depth(backend, "q").await;
        ((depth.ready, depth.held, depth.scheduled, depth.retrying) == (2, 0, 1, 2)).then_some(())
    })
    .await;
}

async fn depth(backend: &Backend, queue: &str) -> QueueDepth {
    ok(backend.broker().depths(&[queue.to_owned()]).await, "depths").remove(0)
}

/// `oldest` is about the time at which the longest waiting ready message was kicked or became due.
/// Held and delayed messages do not count.
pub async fn depths_tell_since_when_the_oldest_is_ready(backend: &Backend) {
    assert_eq!(depth(backend, "q").await.oldest, None, "there is nothing");
    kick(backend, later("q", "in an hour", HOUR)).await;
    assert_eq!(depth(backend, "q").await.oldest, None, "nothing is ready");

    let before = Timestamp::now();
    kick(backend, envelope("q", "1")).await;
    let after = Timestamp::now();
    let due = Timestamp::now() + Duration::from_millis(1500);
    kick(backend, Envelope { not_before: Some(due), ..envelope("q", "2") }).await;
    oldest_is_within(backend, 1, before, after).await;
    until("the delayed message to be ready", async || (depth(backend, "q").await.ready == 2).then_some(()))
        .await;
    oldest_is_within(backend, 2, before, after).await;

    let mut ear = listen(backend, "q", LONG).await;
    assert_eq!(ear.one().await.id.as_str(), "1");
    oldest_is_within(backend, 1, due, Timestamp::now()).await;
    assert_eq!(ear.one().await.id.as_str(), "2");
    until("no message to be ready", async || depth(backend, "q").await.oldest.is_none().then_some(())).await;
}

/// Waits until that many messages are ready. `oldest` is then between these two times, roughly.
async fn oldest_is_within(backend: &Backend, ready: u64, from: Timestamp, to: Timestamp) {
    let oldest = until(&format!("{ready} to be ready, and the oldest"), async || {
        let depth = depth(backend, "q").await;
        depth.oldest.filter(|_| depth.ready == ready)
    })
    .await;
    let within = oldest + CLOCK_SLACK >= from && oldest <= to + CLOCK_SLACK;
    assert!(within, "{oldest} is not between {from} and {to}");
}

/// A queue that was kicked to, delayed or not, or listened to, is in `queues`, even when it is
/// empty. Queues are ordered by name.
pub async fn queues_are_those_that_were_used(backend: &Backend) {
    let queues = async |wanted: &[&str]| {
        until(&format!("the queues {wanted:?}"), async || {
            (ok(backend.broker().queues().await, "queues") == wanted).then_some(())
        })
        .await;
    };
    queues(&[]).await;
    kick(backend, envelope("m", "1")).await;
    queues(&["m"]).await;
    kick(backend, later("z", "2", HOUR)).await;
    let bulk = ["B", "m.1", "m"].map(|queue| (envelope(queue, &format!("bulk {queue}")), Expect::Any));
    for fate in backend.broker().kick_all(bulk.to_vec()).await {
        ok(fate, "a bulk kick");
    }
    let mut ear = listen_to(backend, &["a", "m"], LONG).await;
    queues(&["B", "a", "m", "m.1", "z"]).await;

    for delivery in ear.some(2).await {
        ack(&delivery).await;
    }
    ear.stop().await;
    until("the queue to be empty", async || {
        (depth(backend, "m").await == QueueDepth::new("m")).then_some(())
    })
    .await;
    queues(&["B", "a", "m", "m.1", "z"]).await;
}
