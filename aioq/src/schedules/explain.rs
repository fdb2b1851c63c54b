//! What a cron expression means, without a backend: for the command line.

use jiff::Timestamp as Instant;

use super::cron::Cron;
use super::zone;
use crate::error::Result;
use crate::time::Timestamp;

/// The first `count` ticks of an expression after a moment.
///
/// # Errors
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument), with what is wrong.
pub(crate) fn next(expression: &str, zone: &str, after: Timestamp, count: usize) -> Result<Vec<Timestamp>> {
    let cron = Cron::new(expression, zone)?;
    Ok(std::iter::successors(cron.next(after), |tick| cron.next(*tick)).take(count).collect())
}

/// A moment as clocks in a time zone show it: `2027-03-28 03:00:00 CEST`.
pub(crate) fn local(time: Timestamp, zone: &str) -> String {
    let instant = Instant::from_microsecond(time.as_micros());
    match (zone::find(zone), instant) {
        (Ok(zone), Ok(instant)) => instant.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        _ => time.to_string(),
    }
}
