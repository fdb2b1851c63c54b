//! Listeners: they get the messages of their queues, none lost or doubled.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::backend::Backend;
use crate::broker::{Demand, Expect};
use crate::testing::conformance::kit::{
    Ear, LONG, SHORT, ack, at_once, envelope, ids, kick, listen, listen_to, ok, soon, tally,
};

/// A listener gets only the messages of its own queue.
pub async fn queues_are_separate(backend: &Backend) {
    kick(backend, envelope("a", "1")).await;
    kick(backend, envelope("b", "2")).await;
    let (mut a, mut b) = (listen(backend, "a", LONG).await, listen(backend, "b", LONG).await);
    let (from_a, from_b) = (a.one().await, b.one().await);
    assert_eq!((from_a.id.as_str(), from_b.id.as_str()), ("1", "2"));
    let quiet = Duration::from_millis(500);
    tokio::join!(a.nothing_for(quiet, "`a` had one"), b.nothing_for(quiet, "`b` had one"));
}

/// One listener gets the messages of all its queues, each with the name of its queue.
pub async fn a_listener_serves_several_queues(backend: &Backend) {
    let queues = ["a", "b", "c", "d", "e", "f"];
    let mut ear = listen_to(backend, &queues, LONG).await;
    for round in 0..3 {
        for queue in queues {
            kick(backend, envelope(queue, &format!("{queue}-{round}"))).await;
        }
        kick(backend, envelope("not mine", &format!("x-{round}"))).await;
        for delivery in ear.some(queues.len()).await {
            assert_eq!(delivery.id.as_str(), format!("{}-{round}", delivery.queue));
            ack(&delivery).await;
        }
    }
    ear.nothing_for(Duration::from_millis(300), "the other messages are of another queue").await;
}

/// `next` returns at most `demand.now` deliveries. The rest stays for other listeners.
pub async fn a_listener_gets_no_more_than_it_asked_for(backend: &Backend) {
    for index in 0..30 {
        kick(backend, envelope("q", &index.to_string())).await;
    }
    let mut first = listen(backend, "q", LONG).await;
    let mut second = listen(backend, "q", LONG).await;
    let mut taken = 0;
    for now in [1, 3, 7] {
        // Asserts the count.
        taken += first.next(Demand { now, prefetch: 0 }).await.len();
    }
    assert_eq!(second.some(30 - taken).await.len(), 30 - taken);
}

/// Several listeners get each of many messages exactly once, while they are being kicked.
pub async fn listeners_share_a_queue_without_doubles(backend: &Backend) {
    const MESSAGES: usize = 600;
    let (done, mut finished) = mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for (now, prefetch) in [(1, 0), (5, 10), (20, 0), (3, 3)] {
        let (mut ear, done) = (listen(backend, "q", LONG).await, done.clone());
        workers.push(tokio::spawn(async move {
            while !done.is_closed() {
                let next = ok(ear.0.next(Demand { now, prefetch }).await, "next");
                for delivery in next {
                    ack(&delivery).await;
                    // Closed once all have arrived.
                    _ = done.send(delivery);
                }
            }
        }));
    }
    let kicks = (0..MESSAGES).map(|index| kick(backend, envelope("q", &format!("m-{index}"))));
    at_once(kicks).await;

    let mut came = Vec::new();
    while came.len() < MESSAGES {
        came.extend(soon("all messages", finished.recv()).await);
    }
    while let Ok(Some(more)) = timeout(Duration::from_millis(300), finished.recv()).await {
        came.push(more);
    }
    workers.iter().for_each(|worker| worker.abort());
    let doubles: Vec<_> = tally(ids(&came)).into_iter().filter(|(_, times)| *times > 1).collect();
    assert_eq!((came.len(), doubles), (MESSAGES, Vec::new()));
}

/// `stop` releases at once the prefetched messages. The messages that it handed out stay held.
pub async fn stop_gives_back_what_was_prefetched(backend: &Backend) {
    const MESSAGES: usize = 40;
    for index in 0..MESSAGES {
        kick(backend, envelope("q", &format!("m-{index}"))).await;
    }
    let mut first = listen(backend, "q", LONG).await;
    let mut held = first.next(Demand { now: 2, prefetch: 20 }).await;
    held.extend(first.next(Demand { now: 2, prefetch: 20 }).await);
    first.stop().await;

    let start = Instant::now();
    let mut second = listen(backend, "q", LONG).await;
    let rest = second.some(MESSAGES - held.len()).await;
    assert!(start.elapsed() < LONG / 2, "given back at once, not when the lease ended");
    let all = tally(ids(&held).into_iter().chain(ids(&rest)));
    assert_eq!(all.len(), MESSAGES, "each message came once");
    second.nothing_for(Duration::from_millis(300), "the rest is held by the first").await;
    for delivery in &held {
        ack(delivery).await;
    }
}

/// After `stop`, `next` returns an empty list at once, even if there are messages. A second `stop`
/// changes nothing.
pub async fn a_stopped_listener_hands_out_nothing(backend: &Backend) {
    let mut ear = listen(backend, "q", LONG).await;
    kick(backend, envelope("q", "1")).await;
    ear.stop().await;
    ear.stop().await;
    for _ in 0..2 {
        let next = ear.0.next(Demand { now: 5, prefetch: 5 });
        assert_eq!(ids(&ok(soon("the end", next).await, "next")), Vec::<&str>::new());
    }
    assert_eq!(listen(backend, "q", LONG).await.one().await.id.as_str(), "1");
}

/// A delivery can be extended, acked, released and replaced after its listener is stopped and
/// dropped.
pub async fn what_was_handed_out_outlives_its_listener(backend: &Backend) {
    for id in ["acked", "released", "replaced"] {
        kick(backend, envelope("q", id)).await;
    }
    let mut first = listen(backend, "q", SHORT).await;
    let held = first.some(3).await;
    first.stop().await;
    drop(first);
    for delivery in &held {
        ok(delivery.receipt.extend().await, "extend");
    }
    ack(&held[0]).await;
    ok(held[1].receipt.release(Duration::ZERO).await, "release");
    ok(held[2].receipt.replace(envelope("q", "replaced")).await, "replace");
    let mut second = listen(backend, "q", SHORT).await;
    let mut came = second.some(2).await;
    came.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ids(&came), ["released", "replaced"]);
    for delivery in &came {
        ack(delivery).await;
    }
    second.nothing_for(2 * SHORT, "all were acked").await;
}

/// The prefetched messages of a dropped listener come back, at the latest at the end of their
/// leases.
pub async fn a_dropped_listener_loses_nothing(backend: &Backend) {
    const MESSAGES: usize = 20;
    for index in 0..MESSAGES {
        kick(backend, envelope("q", &format!("m-{index}"))).await;
    }
    let mut first = listen(backend, "q", SHORT).await;
    let held = first.next(Demand { now: 1, prefetch: 10 }).await;
    ack(&held[0]).await;
    drop(first);
    let mut second = listen(backend, "q", SHORT).await;
    let mut came = Vec::new();
    while came.len() + held.len() < MESSAGES {
        let delivery = second.one().await;
        ack(&delivery).await;
        came.push(delivery);
    }
    assert_eq!(tally(ids(&held).into_iter().chain(ids(&came))).len(), MESSAGES);
}

/// The future of `next` may be dropped at any point: a message that it did not return is not lost.
pub async fn giving_up_waiting_loses_nothing(backend: &Backend) {
    const MESSAGES: usize = 300;
    let mut ear = listen(backend, "q", LONG).await;
    let broker = backend.broker().clone();
    let kicks = tokio::spawn(async move {
        for index in 0..MESSAGES {
            let envelope = envelope("q", &format!("m-{index}"));
            ok(broker.kick(envelope, Expect::Absent).await, "a kick");
            if index % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let came = take_with_interruptions(&mut ear, MESSAGES).await;
    kicks.await.expect("all were kicked");
    assert_eq!(tally(came.iter().map(String::as_str)).len(), MESSAGES);
    assert_eq!(came.len(), MESSAGES, "none came twice");
    ear.nothing_for(Duration::from_millis(300), "all were acked").await;
}

async fn take_with_interruptions(ear: &mut Ear, count: usize) -> Vec<String> {
    let start = Instant::now();
    let mut came = Vec::new();
    for micros in (0..).map(|step| (step * 37) % 1000) {
        if came.len() >= count || start.elapsed() > super::super::PATIENCE {
            break;
        }
        let next = ear.0.next(Demand { now: 3, prefetch: 5 });
        let Ok(next) = timeout(Duration::from_micros(micros), next).await else { continue };
        for delivery in ok(next, "next") {
            ack(&delivery).await;
            came.push(delivery.id.to_string());
        }
    }
    came
}
