//! `rate = "100/s"`, `rate = "5 per 10m"`.

use super::duration;

/// At most `count` starts in each `period_ms`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) count: u32,
    pub(crate) period_ms: u64,
}

/// Reads a rate.
pub(crate) fn parse(text: &str) -> Result<Rate, String> {
    let refused = || format!("bad rate \"{text}\": write it like \"100/s\", \"20/m\" or \"5 per 10m\"");
    let (count, period_ms) = match (text.split_once('/'), text.split_once(" per ")) {
        (Some((count, unit)), None) => (count, unit_ms(unit.trim()).ok_or_else(refused)?),
        (None, Some((count, period))) => (count, duration::positive(period)?),
        _ => return Err(refused()),
    };
    let count: u32 = count.trim().parse().map_err(|_| refused())?;
    if count == 0 {
        return Err(format!("bad rate \"{text}\": nothing would ever run"));
    }
    Ok(Rate { count, period_ms })
}

fn unit_ms(unit: &str) -> Option<u64> {
    match unit {
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_count_and_a_period() {
        assert_eq!(parse("100/s"), Ok(Rate { count: 100, period_ms: 1_000 }));
        assert_eq!(parse("2 / d"), Ok(Rate { count: 2, period_ms: 86_400_000 }));
        assert_eq!(parse("5 per 10m"), Ok(Rate { count: 5, period_ms: 600_000 }));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["100", "100/week", "/s", "-1/s", "0/s", "5 per 10", "1.5/s", "5 per 0s", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
