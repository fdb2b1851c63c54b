//! Names with any characters.

use crate::backend::Backend;
use crate::broker::{Expect, Kicked, Page, QueuedFilter};
use crate::message::MAX_NAME_BYTES;
use crate::testing::conformance::kit::{
    LONG, ODD_NAMES, ack, envelope, kick, later, list, listed, listen, ok, remove, until,
};

/// Messages of queues and ids with special characters, and of the maximum length, arrive and are
/// found unchanged.
pub async fn odd_names_arrive_as_they_are(backend: &Backend) {
    let longest = "ö.".repeat(MAX_NAME_BYTES / 3) + "xy";
    assert_eq!(longest.len(), MAX_NAME_BYTES);
    for name in ODD_NAMES.into_iter().chain([longest.as_str()]) {
        kick(backend, envelope(name, name)).await;
        let again = backend.broker().kick(envelope(name, name), Expect::Absent).await;
        assert_eq!(ok(again, "a second kick"), Kicked::Existing, "`{name}` is in the broker");
        let found = ok(backend.broker().find(&name.into()).await, "find").expect("it is in the broker");
        assert_eq!((found.id.as_str(), found.queue.as_str()), (name, name));
        let depths = async || ok(backend.broker().depths(&[name.to_owned()]).await, "depths");
        until("a depth of one", async || {
            let depths = depths().await;
            (depths[0].queue == name && depths[0].ready == 1).then_some(())
        })
        .await;

        let mut ear = listen(backend, name, LONG).await;
        let delivery = ear.one().await;
        assert_eq!((delivery.id.as_str(), &*delivery.queue), (name, name));
        ok(delivery.receipt.replace(later(name, name, std::time::Duration::from_millis(1))).await, "replace");
        let delivery = ear.one().await;
        assert_eq!((delivery.id.as_str(), &*delivery.queue), (name, name));
        ack(&delivery).await;
    }
}

/// Queues and ids with special characters are listed, counted and removed unchanged.
pub async fn odd_names_are_listed_as_they_are(backend: &Backend) {
    for name in ODD_NAMES {
        kick(backend, later(name, name, LONG)).await;
    }
    assert_eq!(listed(backend, QueuedFilter::new()).await, ODD_NAMES);
    let mut sorted = ODD_NAMES;
    sorted.sort_unstable();
    until("all queues", async || (ok(backend.broker().queues().await, "queues") == sorted).then_some(()))
        .await;
    for name in ODD_NAMES {
        let rows = list(backend, &QueuedFilter::new().queue(name), Page::newest(2)).await;
        assert_eq!(rows.len(), 1, "the messages of `{name}`");
        assert_eq!((rows[0].id.as_str(), rows[0].queue.as_str()), (name, name));
        assert!(remove(backend, &rows[0]).await, "`{name}` was there");
    }
    assert_eq!(listed(backend, QueuedFilter::new()).await, [""; 0]);
}

/// Different queues and ids stay different in any encoding of the backend.
pub async fn names_that_look_alike_are_not_mixed_up(backend: &Backend) {
    let pairs = [
        ("a", "b.c"),
        ("a.b", "c"),
        ("a=2Eb", "c."),
        ("a=2eb", "c=2E"),
        ("a b", "C."),
        ("A.B", "c_"),
        ("a_b", "c-"),
        ("a.b.", "c=5F"),
        ("*", "c*"),
        (">", "c>"),
    ];
    for (queue, id) in pairs {
        kick(backend, envelope(queue, id)).await;
    }
    for (queue, id) in pairs {
        assert_eq!(listed(backend, QueuedFilter::new().queue(queue)).await, [id]);
        let mut ear = listen(backend, queue, LONG).await;
        let delivery = ear.one().await;
        assert_eq!((delivery.id.as_str(), &*delivery.queue), (id, queue));
        ack(&delivery).await;
        ear.nothing_for(std::time::Duration::from_millis(100), "each queue has one message").await;
    }
}
