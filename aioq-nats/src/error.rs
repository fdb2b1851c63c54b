//! Errors of JetStream and async-nats, converted into [`aioq::Error`].

use std::time::Duration;

use aioq::{Error, ErrorKind};
use async_nats::{ConnectError, ConnectErrorKind, PublishError, PublishErrorKind};
use serde::Deserialize;

/// Error response of JetStream.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    #[serde(default)]
    pub(crate) code: u16,
    #[serde(default, rename = "err_code")]
    pub(crate) reason: u32,
    #[serde(default)]
    pub(crate) description: String,
}

impl Refusal {
    pub(crate) const CONSUMER_NOT_FOUND: u32 = 10014;
    pub(crate) const NO_MESSAGE: u32 = 10037;
    pub(crate) const NO_JETSTREAM: u32 = 10039;
    pub(crate) const JETSTREAM_OFF: u32 = 10076;
    pub(crate) const SEQUENCE_NOT_FOUND: u32 = 10043;
    pub(crate) const DELETE_FAILED: u32 = 10057;
    pub(crate) const STREAM_NAME_IN_USE: u32 = 10058;
    pub(crate) const STREAM_NOT_FOUND: u32 = 10059;
    pub(crate) const SUBJECTS_OVERLAP: u32 = 10065;
    pub(crate) const WRONG_LAST_SEQUENCE: u32 = 10071;
    /// The same, from a server that does not name the actual sequence.
    pub(crate) const WRONG_LAST_SEQUENCE_CONSTANT: u32 = 10164;
    pub(crate) const MESSAGE_TOO_LARGE: u32 = 10054;
    /// The account's storage is used up.
    const ACCOUNT_FULL: u32 = 10002;
    /// The server's storage is used up.
    const SERVER_FULL: u32 = 10023;
    /// The same for memory and for files, in the answers of some requests.
    const MEMORY_FULL: u32 = 10028;
    const FILES_FULL: u32 = 10047;
    /// The stream did not store a message: its own limit refuses new messages, or the disk is full.
    const NOT_STORED: u32 = 10077;

    /// True if the condition of a write did not hold.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.reason, Self::WRONG_LAST_SEQUENCE | Self::WRONG_LAST_SEQUENCE_CONSTANT)
    }

    /// True if the same request may succeed a little later: a cluster elects a leader, or a server
    /// starts up.
    pub(crate) fn is_passing(&self) -> bool {
        let is_final =
            matches!(self.reason, Self::NO_JETSTREAM | Self::JETSTREAM_OFF) || self.full().is_some();
        self.code == 503 && !is_final
    }

    /// Description of the storage that is full, if that is the reason.
    fn full(&self) -> Option<&'static str> {
        match self.reason {
            Self::ACCOUNT_FULL => Some("the storage of the account is full"),
            Self::SERVER_FULL | Self::MEMORY_FULL | Self::FILES_FULL => {
                Some("the storage of the server is full")
            }
            // The server passes on the text of its file store: `maximum bytes exceeded`, or
            // `no space left on device`.
            Self::NOT_STORED if self.description.contains("exceeded") => {
                Some("the stream is full: it has a limit that refuses new messages")
            }
            Self::NOT_STORED if self.description.contains("no space") => {
                Some("the disk of the server is full")
            }
            _ => None,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        if let Some(what) = refusal.full() {
            let message = format!(
                "{what}, make room or raise the limit: {} (error {})",
                refusal.description, refusal.reason
            );
            return Self::new(ErrorKind::StorageFull, message);
        }
        let kind = match refusal.reason {
            Refusal::MESSAGE_TOO_LARGE => ErrorKind::TooLarge,
            _ if refusal.is_conflict() => ErrorKind::Conflict,
            // The stream has no leader, or the server starts up.
            _ if refusal.is_passing() => ErrorKind::Connection,
            _ => ErrorKind::Backend,
        };
        let message = format!("JetStream refused: {} (error {})", refusal.description, refusal.reason);
        Self::new(kind, message)
    }
}

/// The connection is broken or closed.
pub(crate) fn broken(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Connection, message.into())
}

/// No answer within the deadline.
pub(crate) fn too_late(address: &str, span: Duration) -> Error {
    Error::new(ErrorKind::Deadline, format!("no answer from {address} within {span:?}"))
}

/// Used before `startup` or after `shutdown`.
pub(crate) fn not_started() -> Error {
    Error::new(ErrorKind::NotStarted, "the NATS backend is not started: call `startup` first")
}

/// A reply that aioq cannot read.
pub(crate) fn unexpected_reply(what: &str) -> Error {
    Error::new(ErrorKind::Backend, format!("unexpected reply from the server: {what}"))
}

/// A publish that the client library did not send.
pub(crate) fn unsent(error: PublishError) -> Error {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            Error::new(ErrorKind::TooLarge, "the message is larger than the server accepts (`max_payload`)")
                .with_source(error)
        }
        PublishErrorKind::InvalidSubject => {
            Error::new(ErrorKind::Backend, "invalid subject").with_source(error)
        }
        PublishErrorKind::Send => broken("the connection is closed"),
    }
}

/// True if a later attempt to connect may succeed.
pub(crate) fn may_connect_later(error: &ConnectError) -> bool {
    matches!(error.kind(), ConnectErrorKind::Io | ConnectErrorKind::Dns | ConnectErrorKind::TimedOut)
}

/// No connection could be made.
pub(crate) fn unreachable(address: &str, credentials: &str, error: ConnectError, span: Duration) -> Error {
    let (kind, message) = match error.kind() {
        ConnectErrorKind::ServerParse => {
            (ErrorKind::Config, format!("`{address}` is not an address of a NATS server"))
        }
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            (ErrorKind::Connection, format!("the NATS server at {address} refuses {credentials}"))
        }
        ConnectErrorKind::Tls => {
            (ErrorKind::Connection, format!("cannot make a TLS connection to {address}"))
        }
        _ => {
            let message =
                format!("cannot reach NATS at {address} within {span:?}: {error}; is the server running?");
            return broken(message);
        }
    };
    Error::new(kind, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_storage_is_told_from_passing_trouble() {
        let kind = |code, reason, description: &str| {
            let refusal = Refusal { code, reason, description: description.to_owned() };
            (refusal.is_passing(), Error::from(refusal).kind())
        };
        for (code, reason, description) in [
            (400, 10002, "resource limits exceeded for account"),
            (503, 10023, "insufficient resources"),
            (500, 10028, "insufficient memory resources available"),
            (500, 10047, "insufficient storage resources available"),
            (503, 10077, "maximum bytes exceeded"),
            (503, 10077, "maximum messages exceeded"),
            (503, 10077, "write /store/1.blk: no space left on device"),
        ] {
            assert_eq!(kind(code, reason, description), (false, ErrorKind::StorageFull), "{description}");
        }
        assert_eq!(kind(503, 10008, "system temporarily unavailable"), (true, ErrorKind::Connection));
        assert_eq!(kind(503, 10077, "stream is closed"), (true, ErrorKind::Connection));
    }
}
