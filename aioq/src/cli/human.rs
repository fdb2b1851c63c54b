//! Values as people read them.

use std::io::IsTerminal;
use std::time::Duration;

use crate::error::JobError;
use crate::store::Progress;
use crate::time::Timestamp;

/// Whether colours are welcome there: on a terminal, unless `NO_COLOR` says otherwise.
pub(super) fn coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A point in time as it is from now: `3 min ago`, `in 2 h`.
pub(super) fn when(time: Timestamp) -> String {
    seen_from(Timestamp::now(), time)
}

fn seen_from(now: Timestamp, time: Timestamp) -> String {
    let (past, ahead) = (now.since(time), time.since(now));
    match () {
        () if past.max(ahead) < Duration::from_millis(500) => "now".to_owned(),
        () if ahead.is_zero() => format!("{} ago", span(past)),
        () => format!("in {}", span(ahead)),
    }
}

/// A span of time to the nearest unit that says enough.
pub(super) fn span(span: Duration) -> String {
    let rounded = |unit: Duration| (span + unit / 2).as_secs() / unit.as_secs();
    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    match rounded(Duration::from_secs(1)) {
        seconds if seconds < 60 => format!("{seconds} s"),
        _ if rounded(MINUTE) < 60 => format!("{} min", rounded(MINUTE)),
        _ if rounded(HOUR) < 48 => format!("{} h", rounded(HOUR)),
        _ => format!("{} d", rounded(DAY)),
    }
}

/// So many of something: `1 job`, `2 jobs`.
pub(super) fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// An amount of memory.
pub(super) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// How far a body is.
pub(super) fn progress(progress: &Progress) -> String {
    let note = progress.note.as_ref().map(|note| format!(" {note}")).unwrap_or_default();
    format!("{}/{}{note}", progress.done, progress.total)
}

/// An error in one line, its causes included.
pub(super) fn error(error: &JobError) -> String {
    let causes: String = error.chain.iter().map(|cause| format!(": {cause}")).collect();
    match error.message.is_empty() {
        true => error.exc_type.clone(),
        false => format!("{}: {}{causes}", error.exc_type, error.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_seen_from_now() {
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
            assert_eq!((seen_from(later, now).as_str(), seen_from(now, later).as_str()), (past, future));
        }
    }
}
