//! What the NATS tests have in common.

use std::time::Duration;

use aioq::broker::{Delivery, Demand, Listener, Subscription};
use aioq::{Backend, Envelope};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, unique_prefix};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Names that mean something to NATS, or to those who escape them.
pub(crate) const ODD_NAMES: [&str; 10] =
    ["plain", "a.b", "..", "a b", "*", ">", "a.>", "=41", "%2E", "gr\u{f6}\u{df}e \u{1f980}"];

/// A started backend on the shared server, under a prefix of its own.
pub(crate) async fn backend() -> Backend {
    with_prefix().await.0
}

/// The same, with its prefix and the server's URL.
pub(crate) async fn with_prefix() -> (Backend, String, String) {
    let (prefix, url) = (unique_prefix(), NatsServer::shared().await.unwrap().url());
    let backend: Backend = Nats::new(&url).prefix(&prefix).into();
    start(&backend).await;
    (backend, prefix, url)
}

pub(crate) async fn start(backend: &Backend) {
    backend.broker().startup().await.unwrap();
    backend.jobs().unwrap().startup().await.unwrap();
    backend.kv().startup().await.unwrap();
}

/// Three servers that know each other.
pub(crate) async fn cluster() -> Vec<NatsServer> {
    NatsServer::cluster().await.unwrap()
}

pub(crate) fn envelope(id: &str, queue: &str) -> Envelope {
    Envelope::new(id.into(), queue, id.to_owned())
}

/// A listener with the patience of a test.
pub(crate) struct Worker {
    pub(crate) listener: Box<dyn Listener>,
}

impl Worker {
    pub(crate) async fn new(backend: &Backend, queues: &[&str]) -> Self {
        Self::with(backend, Subscription::new(queues.iter().copied())).await
    }

    pub(crate) async fn with(backend: &Backend, subscription: Subscription) -> Self {
        Self { listener: backend.broker().listen(subscription).await.unwrap() }
    }

    pub(crate) async fn take(&mut self, demand: Demand) -> Vec<Delivery> {
        let deliveries =
            timeout(PATIENCE, self.listener.next(demand)).await.expect("something comes").unwrap();
        assert!((1..=demand.now).contains(&deliveries.len()));
        deliveries
    }

    pub(crate) async fn one(&mut self) -> Delivery {
        self.take(Demand { now: 1, prefetch: 0 }).await.pop().unwrap()
    }
}

pub(crate) async fn next_one(backend: &Backend, queue: &str) -> Delivery {
    Worker::new(backend, &[queue]).await.one().await
}

/// Waits until a condition holds.
pub(crate) async fn until(condition: impl AsyncFn() -> bool) {
    until_within(PATIENCE, condition).await;
}

/// The same, for what servers take their time for.
pub(crate) async fn until_within(patience: Duration, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition().await {
        assert!(Instant::now() < deadline, "the condition does not come to hold");
        sleep(Duration::from_millis(5)).await;
    }
}
