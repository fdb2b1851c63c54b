//! The example backend on redb keeps every promise of the three seams.

#![allow(clippy::unwrap_used)]
#![allow(unreachable_pub, reason = "a program has no outside")]

#[path = "../examples/custom_backend/backend.rs"]
mod backend;
#[path = "../examples/custom_backend/broker.rs"]
mod broker;
#[path = "../examples/custom_backend/file.rs"]
mod file;
#[path = "../examples/custom_backend/jobs.rs"]
mod jobs;
#[path = "../examples/custom_backend/kv.rs"]
mod kv;
#[path = "../examples/custom_backend/listener.rs"]
mod listener;
#[path = "../examples/custom_backend/messages.rs"]
mod messages;
#[path = "../examples/custom_backend/page.rs"]
mod page;
#[path = "../examples/custom_backend/watch.rs"]
mod watch;

use aioq::Backend;
use aioq::broker::{Demand, Expect, Subscription};
use aioq::message::Envelope;
use tempfile::TempDir;

async fn fresh() -> (Backend, TempDir) {
    let directory = TempDir::new().expect("a temporary directory");
    (Backend::from(backend::Redb::new(directory.path().join("jobs.redb"))), directory)
}

#[tokio::test]
async fn what_was_confirmed_survives_the_process() {
    let (backend, directory) = fresh().await;
    backend.broker().startup().await.expect("startup");
    let envelope = Envelope::new("1".into(), "q", "body");
    backend.broker().kick(envelope, Expect::Absent).await.expect("a kick");
    let mut listener = backend.broker().listen(Subscription::new(["q"])).await.expect("listen");
    let held = listener.next(Demand { now: 1, prefetch: 0 }).await.expect("next");
    assert_eq!(held[0].deliveries, 1);
    // As a crash leaves it: held, and nobody there to ack.
    backend.broker().shutdown().await.expect("shutdown");
    drop((held, listener, backend));

    let backend = Backend::from(backend::Redb::new(directory.path().join("jobs.redb")));
    backend.broker().startup().await.expect("another startup");
    let depths = backend.broker().depths(&["q".to_owned()]).await.expect("depths");
    assert_eq!((depths[0].ready, depths[0].held), (0, 1));
}

mod conformance {
    aioq::conformance_suite!(super::fresh);
}
