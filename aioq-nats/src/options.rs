//! Settings of the backend as plain data: [`Options`].

use std::path::PathBuf;
use std::time::Duration;

/// Settings behind [`Nats`](crate::Nats).
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) prefix: String,
    pub(crate) creds: Option<PathBuf>,
    pub(crate) nkey: Option<PathBuf>,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) user: Option<(String, String)>,
    pub(crate) token: Option<String>,
    pub(crate) inbox_prefix: Option<String>,
    pub(crate) deadline: Duration,
    pub(crate) replicas: usize,
    pub(crate) max_ack_pending: u32,
    pub(crate) max_body_bytes: usize,
    /// True if the first failed attempt to connect is an error.
    pub(crate) at_once: bool,
}

impl Options {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            prefix: "aioq".to_owned(),
            creds: None,
            nkey: None,
            tls_ca: None,
            user: None,
            token: None,
            inbox_prefix: None,
            deadline: Duration::from_secs(5),
            replicas: 1,
            max_ack_pending: 100_000,
            max_body_bytes: 1024 * 1024,
            at_once: false,
        }
    }
}
