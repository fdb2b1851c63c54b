//! Backends, listeners and messages that the modules share.

use std::sync::Arc;

use aioq::Backend;
use aioq::broker::{Delivery, Demand, Listener, Subscription};
use aioq::message::Envelope;
use aioq::store::{JobRecord, Status};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, soon, unique_prefix};
use serde_json::Value;

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
pub(crate) struct TestListener {
    pub(crate) inner: Box<dyn Listener>,
}

impl TestListener {
    pub(crate) async fn new(backend: &Backend, queues: &[&str]) -> Self {
        Self::with(backend, Subscription::new(queues.iter().copied())).await
    }

    pub(crate) async fn with(backend: &Backend, subscription: Subscription) -> Self {
        Self { inner: backend.broker().listen(subscription).await.unwrap() }
    }

    pub(crate) async fn take(&mut self, demand: Demand) -> Vec<Delivery> {
        let deliveries = soon(self.inner.next(demand)).await.unwrap();
        assert!((1..=demand.now).contains(&deliveries.len()));
        deliveries
    }

    pub(crate) async fn one(&mut self) -> Delivery {
        self.take(Demand { now: 1, prefetch: 0 }).await.pop().unwrap()
    }
}

pub(crate) async fn next_one(backend: &Backend, queue: &str) -> Delivery {
    TestListener::new(backend, &[queue]).await.one().await
}

/// A record that says that the job has completed.
pub(crate) fn completed(id: &str) -> Arc<JobRecord> {
    Arc::new(JobRecord::unreadable(id.into(), "x", Status::Completed))
}

/// The answer of JetStream about the stream `<PREFIX>_<KIND>`.
pub(crate) async fn stream_info(url: &str, prefix: &str, kind: &str, request: &'static str) -> Value {
    let client = async_nats::connect(url).await.unwrap();
    let info = format!("$JS.API.STREAM.INFO.{}_{kind}", prefix.to_uppercase());
    serde_json::from_slice(&client.request(info, request.into()).await.unwrap().payload).unwrap()
}
