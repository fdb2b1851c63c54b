//! Headers of messages: conditions, schedules, expiry, and aioq's own marks.

use std::time::Duration;

use aioq::Timestamp;
use aioq::time::MAX_SPAN;
use async_nats::header::{
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL, NATS_SCHEDULE, NATS_SCHEDULE_TARGET,
};
use async_nats::{HeaderMap, HeaderName};

const EXPECTED_SUBJECT: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence-Subject");

/// Marks a publish that was sent again after a lost answer.
const RESENT: HeaderName = HeaderName::from_static("Aioq-Resent");

/// Earliest time at which a listener may hand out a ready message: microseconds since 1970.
const NOT_BEFORE: HeaderName = HeaderName::from_static("Aioq-Not-Before");

/// Number in a header.
pub(crate) fn number(headers: &HeaderMap, name: &'static str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

/// Condition: the newest message on the subject itself has this sequence (0: there is none).
pub(crate) fn expecting(sequence: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match sequence {
        0 => headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0"),
        sequence => headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string()),
    }
    headers
}

/// Condition: the newest message that matches `filter` has this sequence (0: there is none).
pub(crate) fn expecting_in(filter: String, sequence: u64) -> HeaderMap {
    let mut headers = expecting(sequence);
    headers.insert(EXPECTED_SUBJECT, filter);
    headers
}

/// Makes the server publish the message to `target` at `time`.
pub(crate) fn schedule(headers: &mut HeaderMap, time: Timestamp, target: String) {
    // The server counts nanoseconds in 64 bits: a schedule past the year 2262 would fire at once,
    // and for ever.
    let time = time.min(Timestamp::now() + MAX_SPAN);
    headers.insert(NATS_SCHEDULE, format!("@at {time}"));
    headers.insert(NATS_SCHEDULE_TARGET, target);
}

/// Makes the server remove the message after `ttl`, rounded up to whole seconds, at least one.
pub(crate) fn expire(headers: &mut HeaderMap, ttl: Option<Duration>) {
    if let Some(ttl) = ttl {
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        // The server adds the TTL to the current time, in 64 bits of nanoseconds that end in the
        // year 2262.
        let seconds = seconds.clamp(1, MAX_SPAN.as_secs());
        headers.insert(NATS_MESSAGE_TTL, format!("{seconds}s"));
    }
}

/// Marks a message as a repeated publish.
pub(crate) fn mark_resent(headers: &mut HeaderMap) {
    headers.insert(RESENT, "1");
}

/// True if the message is a repeated publish: an earlier copy may have been delivered.
pub(crate) fn is_resent(headers: &HeaderMap) -> bool {
    headers.get(RESENT).is_some()
}

/// Sets the earliest time at which a listener may hand the message out.
pub(crate) fn set_not_before(headers: &mut HeaderMap, time: Timestamp) {
    headers.insert(NOT_BEFORE, time.as_micros().to_string());
}

/// Earliest time at which a stored message may be handed out, if it has one.
pub(crate) fn not_before(headers: &HeaderMap) -> Option<Timestamp> {
    let micros = headers.get(NOT_BEFORE)?.as_str().parse().ok()?;
    Some(Timestamp::from_micros(micros))
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
