//! The NATS backend keeps every promise of the three seams.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use aioq::Backend;
use aioq_nats::Nats;
use aioq_tests::{NatsServer, unique_prefix};

aioq::conformance_suite!(async || {
    let server = NatsServer::shared().await.unwrap();
    Backend::from(Nats::new(server.url()).prefix(unique_prefix()))
});
