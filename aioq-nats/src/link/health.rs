//! State of a connection, from the events of the client library: [`Observer`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::Event;
use tokio::sync::watch;

use super::denials::{Denials, Denied, Verb};
use super::replies::Replies;

/// State of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Number of breaks so far.
    pub(crate) breaks: u64,
    /// True if the connection is broken now.
    pub(crate) down: bool,
}

/// Receives the client library's events of one connection.
pub(super) struct Observer {
    pub(super) address: String,
    /// Description of the credentials, for messages.
    pub(super) credentials: String,
    pub(super) health: watch::Sender<Health>,
    pub(super) replies: Arc<Replies>,
    pub(super) denials: Arc<Denials>,
    /// True if a refusal of the credentials was logged since the connection broke.
    pub(super) refusal_logged: AtomicBool,
}

impl Observer {
    pub(super) fn observe(&self, event: &Event) {
        match event {
            Event::Disconnected => self.disconnected(),
            Event::Connected => self.connected(),
            Event::Closed => {
                self.health.send_modify(|health| health.down = true);
                self.replies.lose_all();
            }
            Event::SlowConsumer(_) => {
                tracing::warn!("a NATS subscription lost messages: its reader is too slow");
            }
            Event::ServerError(error) => self.server_error(&error.to_string()),
            Event::ClientError(error) if is_refusal(&error.to_string()) => self.log_refusal(),
            _ => {}
        }
    }

    fn disconnected(&self) {
        tracing::warn!(address = self.address, "the connection to NATS broke, reconnecting");
        self.health.send_modify(|health| *health = Health { breaks: health.breaks + 1, down: true });
        // Requests and answers are lost with the connection; the callers send them again.
        self.replies.lose_all();
    }

    fn connected(&self) {
        if self.health.borrow().down {
            tracing::info!(address = self.address, "reconnected to NATS");
        }
        self.refusal_logged.store(false, Ordering::Relaxed);
        self.health.send_modify(|health| health.down = false);
    }

    fn server_error(&self, error: &str) {
        if is_refusal(error) {
            return self.log_refusal();
        }
        match Denied::parse(error) {
            Some(denied) => {
                let has_request = denied.verb == Verb::Publish && self.replies.deny(&denied);
                self.denials.add(denied, has_request);
            }
            None => tracing::warn!(error, "the NATS server reports an error"),
        }
    }

    fn log_refusal(&self) {
        if !self.refusal_logged.swap(true, Ordering::Relaxed) {
            let Self { address, credentials, .. } = self;
            tracing::warn!(address, "the NATS server refuses {credentials}, or they have expired; retrying");
        }
    }
}

/// True if a server's error means that it does not accept the credentials.
fn is_refusal(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    error.contains("authorization violation") || error.contains("authentication expired")
}
