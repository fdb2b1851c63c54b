//! What can be seen from outside: `find` and `depths`.

use std::time::Duration;

use crate::backend::Backend;
use crate::broker::{QueueDepth, Queued};
use crate::testing::conformance::kit::{LONG, ack, envelope, kick, later, listen, ok, until};

async fn find(backend: &Backend, id: &str) -> Option<Queued> {
    ok(backend.broker().find(&id.into()).await, "find")
}

/// A message is found by its id alone from the moment its kick returns until its ack.
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

/// A message that waits for its time is found with `ready: false`, and with `ready: true` once that has come.
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

/// `depths` tells for each queue asked for, in that order, what is ready, held and delayed.
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
    kick(backend, later("q", "hour", Duration::from_secs(3600))).await;
    kick(backend, envelope("other", "4")).await;
    reach([(3, 0, 1), (0, 0, 0), (1, 0, 0)]).await;

    let mut ear = listen(backend, "q", LONG).await;
    let held = ear.some(2).await;
    reach([(1, 2, 1), (0, 0, 0), (1, 0, 0)]).await;
    ack(&held[0]).await;
    reach([(1, 1, 1), (0, 0, 0), (1, 0, 0)]).await;
    ok(held[1].receipt.replace(later("q", held[1].id.as_str(), LONG)).await, "replace");
    reach([(1, 0, 2), (0, 0, 0), (1, 0, 0)]).await;
    // Delayed first, ready at last.
    kick(backend, later("q", "soon", Duration::from_millis(1200))).await;
    reach([(2, 0, 2), (0, 0, 0), (1, 0, 0)]).await;
}

fn numbers(depth: QueueDepth) -> (String, (u64, u64, u64)) {
    (depth.queue, (depth.ready, depth.held, depth.scheduled))
}
