//! The tick of a scheduled job: whether the job stands for it.

use super::Attempt;
use crate::error::Result;
use crate::schedules::Admission;

impl Attempt<'_> {
    /// True if the job claims a tick. A retry, and a rerun by hand, follows a job that has stood
    /// for it. A redelivery asks again: a record that says that the job runs may be of another
    /// message for the tick.
    pub(super) fn stands_for_tick(&self) -> bool {
        let message = self.message();
        let has_tick = message.ties.as_ref().is_some_and(|ties| ties.tick.is_some());
        has_tick && message.attempt == 1 && message.supersedes == Some(0)
    }

    /// Asks the schedule whether the job stands for its tick. False if it does not, and was
    /// dropped.
    pub(super) async fn ask_for_tick(&mut self) -> Result<bool> {
        let schedules = self.worker.client().schedules();
        match self.patient(|| schedules.admit(self.message())).await? {
            Admission::Runs => Ok(true),
            Admission::Dropped(why) => {
                tracing::info!(id = %self.message().id, why, "the job of a tick is dropped");
                self.drop_unrun(why).await
            }
        }
    }
}
