//! Writes that a stream confirms.

use std::time::Duration;

use aioq::{MAX_SPAN, Result, Timestamp};
use async_nats::header::{
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL, NATS_SCHEDULE, NATS_SCHEDULE_TARGET,
};
use async_nats::{HeaderMap, HeaderName, Message};
use serde::Deserialize;

use crate::error::{Refusal, nonsense};
use crate::link::{Deadline, Link, Outgoing};

const EXPECTED_SUBJECT: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence-Subject");

/// What became of a write.
pub(crate) struct Written {
    /// Its sequence, or why it was refused.
    pub(crate) answer: Result<u64, Refusal>,
    /// It was sent more than once, so that a refusal may be the echo of its own success.
    pub(crate) resent: bool,
}

/// Writes, again and again until the stream answers or `deadline` passes. `outgoing` makes the message of each
/// try, from `attempt` on.
pub(crate) async fn publish(
    link: &Link,
    deadline: Deadline,
    mut attempt: u32,
    outgoing: impl Fn(u32) -> Outgoing,
) -> Result<Written> {
    loop {
        let (message, answered) = link.ask_from(attempt, deadline, &outgoing).await?;
        match read_ack(&message)? {
            Err(refusal) if refusal.is_passing() && !deadline.has_passed() => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                attempt = answered + 1;
            }
            answer => return Ok(Written { answer, resent: answered > 0 }),
        }
    }
}

/// Reads a stream's answer to a write.
pub(crate) fn read_ack(message: &Message) -> Result<Result<u64, Refusal>> {
    #[derive(Deserialize)]
    struct Ack {
        #[serde(default)]
        seq: u64,
        error: Option<Refusal>,
    }
    let ack: Ack = serde_json::from_slice(&message.payload)
        .map_err(|error| nonsense("a confirmation").with_source(error))?;
    Ok(match ack.error {
        None => Ok(ack.seq),
        Some(refusal) => Err(refusal),
    })
}

/// Headers: the newest message on the subject itself must have this sequence (0: there is none).
pub(crate) fn expecting(sequence: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match sequence {
        0 => headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0"),
        sequence => headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string()),
    }
    headers
}

/// Headers: the newest message that matches `filter` must have this sequence (0: there is none).
pub(crate) fn expecting_in(filter: String, sequence: u64) -> HeaderMap {
    let mut headers = expecting(sequence);
    headers.insert(EXPECTED_SUBJECT, filter);
    headers
}

/// Has the message published to `target` when `time` comes.
pub(crate) fn schedule(headers: &mut HeaderMap, time: Timestamp, target: String) {
    // The server counts nanoseconds in 64 bits: what comes after the year 2262 would fire at once, and for ever.
    let time = time.min(Timestamp::now() + MAX_SPAN);
    headers.insert(NATS_SCHEDULE, format!("@at {time}"));
    headers.insert(NATS_SCHEDULE_TARGET, target);
}

/// Has the message removed after `ttl`: whole seconds, rounded up, at least one.
pub(crate) fn expire(headers: &mut HeaderMap, ttl: Option<Duration>) {
    if let Some(ttl) = ttl {
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        // The server adds it to the time now, in 64 bits of nanoseconds that end in the year 2262.
        let seconds = seconds.clamp(1, MAX_SPAN.as_secs());
        headers.insert(NATS_MESSAGE_TTL, format!("{seconds}s"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_rounded_up_to_whole_seconds() {
        let header = |ttl| {
            let mut headers = HeaderMap::new();
            expire(&mut headers, Some(ttl));
            headers.get(NATS_MESSAGE_TTL).map(|ttl| ttl.as_str().to_owned()).unwrap()
        };
        assert_eq!(header(Duration::from_millis(1)), "1s");
        assert_eq!(header(Duration::ZERO), "1s");
        assert_eq!(header(Duration::from_millis(1001)), "2s");
        assert_eq!(header(Duration::from_secs(60)), "60s");
        assert_eq!(header(Duration::MAX), "3155760000s", "a hundred years");
    }
}
