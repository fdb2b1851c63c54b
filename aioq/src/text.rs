//! Numbers, times and names in sentences, for the command line and the doctors of backends.

use std::time::Duration;

/// Span of time in the largest unit in which it is a whole number. For settings.
pub fn span(span: Duration) -> String {
    let whole = |seconds: u64| {
        span.subsec_nanos() == 0 && span.as_secs() > 0 && span.as_secs().is_multiple_of(seconds)
    };
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    match UNITS.into_iter().find(|(unit, _)| whole(*unit)) {
        Some((unit, name)) => format!("{} {name}", span.as_secs() / unit),
        None => format!("{span:.1?}"),
    }
}

/// Span of time in the largest unit in which it is at least 1, rounded; up to 47 h in hours. For
/// ages.
pub fn rounded_span(span: Duration) -> String {
    let rounded = |seconds: u64| (span + Duration::from_secs(seconds) / 2).as_secs() / seconds;
    if rounded(1) < 60 {
        format!("{} s", rounded(1))
    } else if rounded(60) < 60 {
        format!("{} min", rounded(60))
    } else if rounded(3600) < 48 {
        format!("{} h", rounded(3600))
    } else {
        format!("{} d", rounded(86_400))
    }
}

/// List of names: `` `A`, `B` and `C` ``.
pub fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// Number with a noun: `1 job`, `2 jobs`.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Number of bytes in the largest unit that it reaches.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_in_fitting_units() {
        let spans = [0.1, 30.0, 90.0, 120.0, 7200.0, 86_400.0].map(Duration::from_secs_f64).map(span);
        assert_eq!(spans, ["100.0ms", "30 s", "90 s", "2 min", "2 h", "1 d"]);
        assert_eq!([names(["a"]), names(["a", "b", "c"])], ["`a`", "`a`, `b` and `c`"]);
        assert_eq!([bytes(10), bytes(960 << 10), bytes(3 << 29)], ["10 bytes", "960 KiB", "1.5 GiB"]);
    }
}
