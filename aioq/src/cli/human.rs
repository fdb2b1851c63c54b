//! Job data and points in time as people read them. See [`text`](crate::text) for numbers.

use std::io::IsTerminal;
use std::time::Duration;

use crate::error::JobError;
use crate::store::Progress;
use crate::text::rounded_span;
use crate::time::Timestamp;

/// True if output to this stream may be coloured: it is a terminal, and `NO_COLOR` is not set.
pub(super) fn coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Point in time relative to now: `3 min ago`, `in 2 h`.
pub(super) fn when(time: Timestamp) -> String {
    relative(time, Timestamp::now())
}

fn relative(time: Timestamp, now: Timestamp) -> String {
    let (past, ahead) = (now.since(time), time.since(now));
    if past.max(ahead) < Duration::from_millis(500) {
        "now".to_owned()
    } else if ahead.is_zero() {
        format!("{} ago", rounded_span(past))
    } else {
        format!("in {}", rounded_span(ahead))
    }
}

/// Progress of a body: `3/10 note`.
pub(super) fn progress(progress: &Progress) -> String {
    let note = progress.note.as_ref().map(|note| format!(" {note}")).unwrap_or_default();
    format!("{}/{}{note}", progress.done, progress.total)
}

/// Error in one line, with its causes.
pub(super) fn error(error: &JobError) -> String {
    let causes: String = error.chain.iter().map(|cause| format!(": {cause}")).collect();
    if error.message.is_empty() {
        error.exc_type.clone()
    } else {
        format!("{}: {}{causes}", error.exc_type, error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative_to_now() {
        let now = Timestamp::from_micros(1_772_366_400_000_000);
        for (seconds, past, future) in [
            (0.1, "now", "now"),
            (0.6, "1 s ago", "in 1 s"),
            (59.4, "59 s ago", "in 59 s"),
            (59.6, "1 min ago", "in 1 min"),
            (179.0, "3 min ago", "in 3 min"),
            (7199.9, "2 h ago", "in 2 h"),
            (47.0 * 3600.0, "47 h ago", "in 47 h"),
            (48.0 * 3600.0, "2 d ago", "in 2 d"),
            (86_400.0 * 400.0, "400 d ago", "in 400 d"),
        ] {
            let later = now + Duration::from_secs_f64(seconds);
            assert_eq!((relative(now, later).as_str(), relative(later, now).as_str()), (past, future));
        }
    }
}
