//! Foreign errors into those of aioq. Nothing of async-nats leaves this crate.

use std::time::Duration;

use aioq::{Error, ErrorKind};
use async_nats::{ConnectError, ConnectErrorKind, PublishError, PublishErrorKind};
use serde::Deserialize;

/// What JetStream says when it refuses.
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
    /// The same, where the server does not tell the sequence it has.
    pub(crate) const WRONG_LAST_SEQUENCE_UNTOLD: u32 = 10164;
    pub(crate) const MESSAGE_TOO_LARGE: u32 = 10054;
    /// What the account may store is used up.
    const ACCOUNT_FULL: u32 = 10002;
    /// What the server may store is used up.
    const SERVER_FULL: u32 = 10023;
    /// The same, as some requests say it: of memory, of files.
    const MEMORY_FULL: u32 = 10028;
    const FILES_FULL: u32 = 10047;
    /// The stream did not store it: a limit of its own that refuses new messages, or a disk that has no room.
    const NOT_STORED: u32 = 10077;

    /// Whether a condition on what is stored did not hold.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.reason, Self::WRONG_LAST_SEQUENCE | Self::WRONG_LAST_SEQUENCE_UNTOLD)
    }

    /// Whether the same request may pass a little later: a cluster that elects, a server that starts up.
    pub(crate) fn is_passing(&self) -> bool {
        let stays = matches!(self.reason, Self::NO_JETSTREAM | Self::JETSTREAM_OFF) || self.full().is_some();
        self.code == 503 && !stays
    }

    /// Whose storage is full, if that is why.
    fn full(&self) -> Option<&'static str> {
        match self.reason {
            Self::ACCOUNT_FULL => Some("the storage of the account is full"),
            Self::SERVER_FULL | Self::MEMORY_FULL | Self::FILES_FULL => {
                Some("the storage of the server is full")
            }
            // Its text is that of the store: `maximum bytes exceeded`, `no space left on device`.
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
            // As good as not there: it elects, or starts up.
            _ if refusal.is_passing() => ErrorKind::Connection,
            _ => ErrorKind::Backend,
        };
        let message = format!("JetStream refused: {} (error {})", refusal.description, refusal.reason);
        Self::new(kind, message)
    }
}

/// The connection is not there, for a reason that passes by itself or never.
pub(crate) fn broken(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Connection, message.into())
}

/// No answer in time.
pub(crate) fn too_late(address: &str, span: Duration) -> Error {
    Error::new(ErrorKind::Deadline, format!("no answer from {address} within {span:?}"))
}

/// Used before `startup` or after `shutdown`.
pub(crate) fn not_started() -> Error {
    Error::new(ErrorKind::NotStarted, "the NATS backend is not started: call `startup` first")
}

/// Something the server sent that makes no sense.
pub(crate) fn nonsense(what: &str) -> Error {
    Error::new(ErrorKind::Backend, format!("the server sent {what} that cannot be understood"))
}

/// A publish that never left this process.
pub(crate) fn unsent(error: PublishError) -> Error {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            Error::new(ErrorKind::TooLarge, "the server takes no message of that size").with_source(error)
        }
        PublishErrorKind::InvalidSubject => {
            Error::new(ErrorKind::Backend, "invalid subject").with_source(error)
        }
        PublishErrorKind::Send => broken("the connection is closed"),
    }
}

/// Whether a later attempt to connect may do better.
pub(crate) fn may_connect_later(error: &ConnectError) -> bool {
    matches!(error.kind(), ConnectErrorKind::Io | ConnectErrorKind::Dns | ConnectErrorKind::TimedOut)
}

/// A connection that could not be made.
pub(crate) fn unreachable(address: &str, credentials: &str, error: ConnectError, span: Duration) -> Error {
    let (kind, message) = match error.kind() {
        ConnectErrorKind::ServerParse => {
            (ErrorKind::Config, format!("`{address}` is no address of a server"))
        }
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            (ErrorKind::Connection, format!("{address} refuses {credentials}"))
        }
        ConnectErrorKind::Tls => (ErrorKind::Connection, format!("no TLS connection to {address}")),
        _ => {
            let message =
                format!("cannot reach NATS at {address} within {span:?}: {error}, is the server running?");
            return broken(message);
        }
    };
    Error::new(kind, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_is_told_from_what_passes() {
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
