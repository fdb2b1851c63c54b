//! The NATS backend keeps every promise of the three seams, on a real server.

use aioq_tests::Bed;

aioq::conformance_suite!(async || Bed::nats().await.backend());
