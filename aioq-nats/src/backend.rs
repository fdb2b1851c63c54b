//! Assembles the three parts of a backend: [`open`].

use std::sync::Arc;

use aioq::Backend;

use crate::broker::NatsBroker;
use crate::connection::Connection;
use crate::jobs::NatsJobs;
use crate::kv::NatsKv;
use crate::options::Options;

/// A backend whose broker, job store and key store share one connection.
pub(crate) fn open(options: Options) -> Backend {
    let connection = Arc::new(Connection::new(options));
    Backend::new(NatsBroker::new(&connection), NatsJobs::new(&connection), NatsKv::new(&connection))
}
