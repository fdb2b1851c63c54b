//! Publishes messages that the stream confirms.

use std::time::Duration;

use aioq::Result;
use async_nats::Message;
use serde::Deserialize;

use crate::error::{Refusal, unexpected_reply};
use crate::link::{Deadline, Link, Outgoing};

/// Pause before a publish is sent again after a passing refusal.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Result of a publish.
pub(crate) struct Written {
    /// Sequence of the message, or the stream's refusal.
    pub(crate) answer: Result<u64, Refusal>,
    /// True if the message was sent more than once. Then a conflict may come from its own first
    /// copy.
    pub(crate) resent: bool,
}

/// Publishes a message, and sends it again until the stream answers or `deadline` passes.
/// `outgoing` makes the message of each attempt, counted from `attempt`.
pub(crate) async fn publish(
    link: &Link,
    deadline: Deadline,
    mut attempt: u32,
    outgoing: impl Fn(u32) -> Outgoing,
) -> Result<Written> {
    loop {
        let (message, answered) = link.ask_from(attempt, deadline, &outgoing).await?;
        match parse_ack(&message)? {
            Err(refusal) if refusal.is_passing() && !deadline.has_passed() => {
                tokio::time::sleep(RETRY_PAUSE).await;
                attempt = answered + 1;
            }
            answer => return Ok(Written { answer, resent: answered > 0 }),
        }
    }
}

/// Parses a stream's answer to a publish.
pub(crate) fn parse_ack(message: &Message) -> Result<Result<u64, Refusal>> {
    #[derive(Deserialize)]
    struct Ack {
        #[serde(default)]
        seq: u64,
        error: Option<Refusal>,
    }
    let ack: Ack = serde_json::from_slice(&message.payload)
        .map_err(|error| unexpected_reply("a confirmation").with_source(error))?;
    Ok(match ack.error {
        None => Ok(ack.seq),
        Some(refusal) => Err(refusal),
    })
}
