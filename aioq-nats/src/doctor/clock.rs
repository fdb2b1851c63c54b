//! Difference between this machine's clock and the server's.

use std::time::Duration;

use aioq::__private::span;
use aioq::broker::Finding;
use aioq::{Result, Timestamp};
use tokio::time::Instant;

use crate::api::call;
use crate::session::Session;

/// Number of measurements. The one with the shortest round trip counts.
const MEASUREMENTS: usize = 5;

/// Difference from which the finding is a warning.
const MAX_DIFFERENCE: Duration = Duration::from_secs(1);

/// One measurement of both clocks.
#[derive(Clone, Copy, Debug)]
struct Measurement {
    /// Time of the request by this machine's clock.
    sent: Timestamp,
    round_trip: Duration,
    /// Time of the answer by the server's clock.
    answered: Timestamp,
}

impl Measurement {
    /// Least possible difference: the server answered at some time within the round trip.
    fn least(&self) -> Duration {
        let back = self.sent + self.round_trip;
        self.sent.since(self.answered).max(self.answered.since(back))
    }

    /// Largest possible difference.
    fn most(&self) -> Duration {
        let back = self.sent + self.round_trip;
        self.answered.since(self.sent).max(back.since(self.answered))
    }
}

/// Measures the clock of the leader of the jobs' stream, which stamps the messages.
pub(super) async fn examine(session: &Session) -> Result<Vec<Finding>> {
    let what = format!("STREAM.INFO.{}", session.names.jobs);
    let mut best: Option<Measurement> = None;
    for _ in 0..MEASUREMENTS {
        let (sent, start) = (Timestamp::now(), Instant::now());
        let answer = call(&session.link, session.deadline(), &what, None).await??;
        let round_trip = start.elapsed();
        let Some(answered) = answer["ts"].as_str().and_then(|time| time.parse().ok()) else { continue };
        if best.is_none_or(|best| round_trip < best.round_trip) {
            best = Some(Measurement { sent, round_trip, answered });
        }
    }
    Ok(vec![best.map_or_else(unknown, judge)])
}

fn unknown() -> Finding {
    Finding::remark("clock", "The server does not tell its time, so the clocks cannot be compared.")
}

fn judge(measured: Measurement) -> Finding {
    if measured.least() < MAX_DIFFERENCE {
        let most = measured.most().as_millis() + 1;
        let text = format!("The clocks of this machine and of the server are at most {most} ms apart.");
        return Finding::fine("clock", text);
    }
    let apart = span(Duration::from_secs(measured.least().as_secs()));
    let way = if measured.answered > measured.sent { "behind" } else { "ahead of" };
    let text = format!(
        "The clock of this machine is {apart} or more {way} the server's: delays, TTLs and schedules are off \
         by as much."
    );
    let advice = "Let all machines take the time from the network: chrony, or systemd-timesyncd.";
    Finding::warning("clock", text).advice(advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aioq::broker::Level;

    #[test]
    fn a_difference_counts_as_far_as_the_round_trip_cannot_explain_it() {
        let noon = Timestamp::from_micros(1_772_366_400_000_000);
        let measured = |ahead_ms: i64, round_trip_ms| Measurement {
            sent: noon,
            round_trip: Duration::from_millis(round_trip_ms),
            answered: Timestamp::from_micros(noon.as_micros() + ahead_ms * 1000),
        };
        assert_eq!(judge(measured(2, 4)).level, Level::Fine);
        assert_eq!(judge(measured(1500, 2000)).level, Level::Fine);
        let behind = judge(measured(2500, 10));
        assert!(behind.level == Level::Warning && behind.text.contains("2 s or more behind"), "{behind:?}");
        let ahead = judge(measured(-60_000, 10));
        assert!(ahead.level == Level::Warning && ahead.text.contains("1 min or more ahead of"), "{ahead:?}");
    }
}
