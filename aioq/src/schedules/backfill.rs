//! Running ticks of the past.

use std::ops::Range;

use super::Schedules;
use super::entry::{self, Fired, job_id};
use super::trigger::MOST_DUE;
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::TaskHandle;
use crate::store::Expect;
use crate::time::IntoTimestamp;

impl Schedules {
    /// Kicks a job for each tick of a past span, the oldest first, also for ticks that were run,
    /// skipped or missed. The span is from its start up to, and without, its end.
    ///
    /// A tick whose job still has a record is not run again: its handle is
    /// [`existing`](TaskHandle::existing). After an error, the same call goes on.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): there is no such schedule.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): more than 1,000 ticks. Split the span.
    /// - The errors of [`Client::kiq`](crate::Client::kiq).
    pub async fn backfill<T: IntoTimestamp>(&self, id: &str, span: Range<T>) -> Result<Vec<TaskHandle<()>>> {
        let (from, to) = (span.start.into_timestamp()?, span.end.into_timestamp()?);
        let kv = &**self.client.backend().kv();
        let (settled, kicks) = loop {
            let stored = self.stored(id).await?;
            let mut settled = stored.entry;
            let trigger = settled.timing.trigger()?;
            let before = crate::time::Timestamp::from_micros(from.as_micros().saturating_sub(1));
            let past = trigger.ticks(before).take_while(|tick| *tick < to && *tick <= settled.last);
            let ticks: Vec<_> = past.take(MOST_DUE + 1).collect();
            if ticks.len() > MOST_DUE {
                let why = format!("the span has more than {MOST_DUE} ticks: split it");
                return Err(Error::new(ErrorKind::InvalidArgument, why));
            }
            let now = self.client.now();
            let kicks: Vec<Fired> = ticks
                .into_iter()
                .map(|tick| settled.fired(tick).unwrap_or(Fired { tick, kicked_at: now }))
                .collect();
            // A worker drops the job of a tick that was settled without one, so the tick is settled
            // anew before its job is kicked.
            let missing = |kick: &&Fired| kick.tick >= settled.floor && settled.fired(kick.tick).is_none();
            let missing: Vec<Fired> = kicks.iter().filter(missing).copied().collect();
            if missing.is_empty() {
                break (settled, kicks);
            }
            missing.into_iter().for_each(|kick| settled.note(kick, now));
            if entry::put(kv, id, &settled, Expect::Revision(stored.revision)).await?.is_some() {
                break (settled, kicks);
            }
        };
        let mut handles = Vec::with_capacity(kicks.len());
        for Fired { tick, kicked_at } in kicks {
            let message = settled.message_for(id, Some(tick), job_id(id, tick), kicked_at)?;
            handles.push(self.client.kick(message).await?);
        }
        Ok(handles)
    }
}
