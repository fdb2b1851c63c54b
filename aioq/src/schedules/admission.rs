//! The worker's side of a tick: whether the job that it is about to start stands for it.
//!
//! A message of a tick names the schedule, the tick and the time of its kick. The entry of the
//! schedule names the kick that stands for each of its newest ticks. So of two messages for one
//! tick only one runs, even if the job of the other is over and forgotten.

use super::Schedules;
use super::entry::{self, Fired};
use super::plan::missed_before;
use crate::error::Result;
use crate::message::Message;
use crate::store::Expect;
use crate::time::Timestamp;

/// Answer to whether a job may start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Runs,
    /// It does not stand for its tick.
    Dropped(&'static str),
}

impl Schedules {
    /// Asks whether a job of a tick may start. If its tick is not settled yet, this settles it.
    pub(crate) async fn admit(&self, message: &Message) -> Result<Admission> {
        let tie = message.ties.as_ref().and_then(|ties| ties.tick.as_ref());
        let Some((schedule, tick)) = tie.and_then(|tie| Some((&*tie.schedule, tie.at?))) else {
            return Ok(Admission::Runs);
        };
        let kicked_at = message.kicked_at.unwrap_or(tick);
        let kv = &**self.client.backend().kv();
        loop {
            // A job that was kicked stands, also if its schedule is gone.
            let Some(stored) = entry::find(kv, schedule).await? else { return Ok(Admission::Runs) };
            let mut entry = stored.entry;
            if tick <= entry.last {
                return Ok(judge_settled(&entry, tick, kicked_at));
            }
            if entry.is_removed {
                return Ok(Admission::Runs);
            }
            let trigger = entry.timing.trigger()?;
            if entry.is_at_rest() || !trigger.has(tick) {
                return Ok(Admission::Dropped(
                    "its schedule was paused or changed before the tick was settled",
                ));
            }
            entry.counts.missed += missed_before(&trigger, entry.last, tick);
            entry.settle(tick, Some(kicked_at), self.client.now());
            if entry::put(kv, schedule, &entry, Expect::Revision(stored.revision)).await?.is_some() {
                return Ok(Admission::Runs);
            }
        }
    }
}

/// As [`admit`](Schedules::admit), for a tick that is settled.
fn judge_settled(entry: &entry::ScheduleEntry, tick: Timestamp, kicked_at: Timestamp) -> Admission {
    match entry.fired(tick) {
        Some(Fired { kicked_at: named, .. }) if named == kicked_at => Admission::Runs,
        Some(_) => Admission::Dropped("another job stands for the tick of its schedule"),
        None if tick >= entry.floor => Admission::Dropped("its tick was settled without a job"),
        // It waited while the ring moved on. Its id has protected it all the while.
        None => Admission::Runs,
    }
}
