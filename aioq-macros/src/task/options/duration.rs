//! Durations as text: `"30s"`, `"1h 30m"`.

use std::time::Duration;

/// The longest duration, in milliseconds: a hundred years, as `MAX_SPAN` of aioq.
const MAX_MILLIS: u64 = 100 * 31_557_600_000;

/// A duration in milliseconds; nothing shorter than one.
pub(crate) fn positive(text: &str) -> Result<u64, String> {
    match any(text)? {
        0 => Err(format!("bad duration \"{text}\": it must be at least 1ms")),
        milliseconds => Ok(milliseconds),
    }
}

/// A duration in milliseconds, zero included.
pub(crate) fn any(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit()) {
        return Err(missing_unit(text));
    }
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("bad duration \"{text}\": {error}"))?;
    if duration > Duration::ZERO && duration < Duration::from_millis(1) {
        return Err(format!("bad duration \"{text}\": the smallest unit is 1ms"));
    }
    let millis = u64::try_from(duration.as_millis()).ok().filter(|millis| *millis <= MAX_MILLIS);
    millis.ok_or_else(|| format!("bad duration \"{text}\": it is longer than 100 years"))
}

/// The error for a number alone.
pub(crate) fn missing_unit(number: &str) -> String {
    format!("a duration needs a unit, for example \"{number}s\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        assert_eq!(any("1h 30m"), Ok(5_400_000));
        assert_eq!(any("250ms"), Ok(250));
        assert_eq!(any("0s"), Ok(0));
    }

    #[test]
    fn a_bare_number_is_sent_to_its_unit() {
        assert_eq!(any("5").unwrap_err(), "a duration needs a unit, for example \"5s\"");
    }

    #[test]
    fn a_hundred_years_are_the_limit() {
        assert_eq!(any("100y"), Ok(MAX_MILLIS));
        for text in ["100y 1ms", "500000000y"] {
            assert!(any(text).unwrap_err().ends_with("longer than 100 years"), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        assert!(any("soon").unwrap_err().starts_with("bad duration \"soon\": "));
        assert!(any("").is_err() && any("10us").is_err() && any("-3s").is_err());
        assert!(any("99999999999999999s").is_err());
        assert!(positive("0s").is_err());
    }
}
