//! How far this machine's clock and the server's are apart.

use std::time::Duration;

use aioq::broker::Finding;
use aioq::{Result, Timestamp};
use tokio::time::Instant;

use super::span;
use crate::api::call;
use crate::connection::Session;

/// How often the server is asked; the quickest answer counts.
const TRIES: usize = 5;

/// From here on people notice.
const WORRYING: Duration = Duration::from_secs(1);

/// One look at both clocks.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// When the request was sent, by this machine.
    sent: Timestamp,
    round_trip: Duration,
    /// When it was answered, by the server.
    answered: Timestamp,
}

impl Look {
    /// How far the clocks are apart, at least: the answer was made at some time of the round trip.
    fn least(&self) -> Duration {
        let back = self.sent + self.round_trip;
        self.sent.since(self.answered).max(self.answered.since(back))
    }

    /// How far apart they may be.
    fn most(&self) -> Duration {
        let back = self.sent + self.round_trip;
        self.answered.since(self.sent).max(back.since(self.answered))
    }
}

/// Asks for the jobs' stream: its leader answers, whose clock stamps the messages.
pub(super) async fn examine(session: &Session) -> Result<Vec<Finding>> {
    let what = format!("STREAM.INFO.{}", session.names.jobs);
    let mut best: Option<Look> = None;
    for _ in 0..TRIES {
        let (sent, start) = (Timestamp::now(), Instant::now());
        let answer = call(&session.link, session.deadline(), &what, None).await??;
        let round_trip = start.elapsed();
        let Some(answered) = answer["ts"].as_str().and_then(|time| time.parse().ok()) else { continue };
        if best.is_none_or(|best| round_trip < best.round_trip) {
            best = Some(Look { sent, round_trip, answered });
        }
    }
    Ok(vec![best.map_or_else(unknown, judge)])
}

fn unknown() -> Finding {
    Finding::remark("clock", "The server does not tell its time, so the clocks cannot be compared.")
}

fn judge(look: Look) -> Finding {
    if look.least() < WORRYING {
        let most = look.most().as_millis() + 1;
        let text = format!("The clocks of this machine and of the server are at most {most} ms apart.");
        return Finding::fine("clock", text);
    }
    let apart = span(Duration::from_secs(look.least().as_secs()));
    let way = if look.answered > look.sent { "behind" } else { "ahead of" };
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
    fn clocks_count_as_apart_by_what_the_round_trip_cannot_explain() {
        let noon = Timestamp::from_micros(1_772_366_400_000_000);
        let look = |ahead_ms: i64, round_trip_ms| Look {
            sent: noon,
            round_trip: Duration::from_millis(round_trip_ms),
            answered: Timestamp::from_micros(noon.as_micros() + ahead_ms * 1000),
        };
        assert_eq!(judge(look(2, 4)).level, Level::Fine);
        assert_eq!(judge(look(1500, 2000)).level, Level::Fine);
        let behind = judge(look(2500, 10));
        assert!(behind.level == Level::Warning && behind.text.contains("2 s or more behind"), "{behind:?}");
        let ahead = judge(look(-60_000, 10));
        assert!(ahead.level == Level::Warning && ahead.text.contains("1 min or more ahead of"), "{ahead:?}");
    }
}
