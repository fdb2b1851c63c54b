//! The order of deliveries.

use crate::backend::Backend;
use crate::testing::conformance::kit::{LONG, ack, envelope, ids, kick, listen, with_priority};

/// Messages of priority 0 come before those of priority 9. A broker may let a small share of the
/// others through, so that they do not starve.
pub async fn high_priority_comes_before_low(backend: &Backend) {
    for index in 0..8 {
        kick(backend, with_priority("q", &format!("low-{index}"), 9)).await;
    }
    for index in 0..8 {
        kick(backend, with_priority("q", &format!("high-{index}"), 0)).await;
    }
    let mut ear = listen(backend, "q", LONG).await;
    let mut came = Vec::new();
    for _ in 0..16 {
        let delivery = ear.one().await;
        ack(&delivery).await;
        came.push(delivery);
    }
    let order = ids(&came);
    assert!(order[0].starts_with("high"), "{order:?}");
    let early = order[..8].iter().filter(|id| id.starts_with("high")).count();
    assert!(early >= 6, "of the first eight, at least six are high: {order:?}");
}

/// First in, first out within a queue and a priority.
pub async fn messages_of_one_priority_come_in_order(backend: &Backend) {
    let sent: Vec<String> = (0..200).map(|index| format!("m-{index}")).collect();
    for id in &sent {
        kick(backend, envelope("q", id)).await;
    }
    let mut ear = listen(backend, "q", LONG).await;
    let mut came = Vec::new();
    while came.len() < sent.len() {
        let delivery = ear.some(7.min(sent.len() - came.len())).await;
        came.extend(delivery);
    }
    assert_eq!(ids(&came), sent);
}
