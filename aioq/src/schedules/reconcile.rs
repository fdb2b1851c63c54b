//! Schedules that tasks have in their attributes. Each worker writes the schedules of its own tasks
//! when it starts.
//!
//! The newest start wins, also over a newer release. Once a day a worker renews what is still as in
//! its own code; so what no code has is forgotten after a while, and two releases that run side by
//! side do not take turns.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Schedules;
use super::change::message_of_task;
use super::entry::{self, ScheduleEntry, Source};
use crate::error::Result;
use crate::registry::Registry;
use crate::store::Expect;

/// Age of the last renewal from which on a schedule is renewed.
const RENEWED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// When schedules are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    Start,
    Daily,
}

/// The ids of the schedules in the code of a program: the names of their tasks.
pub(crate) fn code_ids(registry: &Registry) -> impl Iterator<Item = &str> {
    let scheduled = registry.iter().filter(|task| task.options().schedule.is_some());
    scheduled.map(|task| task.name())
}

impl Schedules {
    /// The schedules in the code of a program.
    pub(super) fn of_code(&self, registry: &Registry) -> Result<BTreeMap<Box<str>, ScheduleEntry>> {
        let now = self.client.now();
        let mut entries = BTreeMap::new();
        for task in registry.iter() {
            let Some(options) = task.options().schedule else { continue };
            let message = message_of_task(task, self.client.codec(), now)?;
            let entry = self.entry_of(options.schedule(), message, Source::Code, now);
            let entry =
                entry.map_err(|error| error.context(format_args!("schedule of task `{}`", task.name())))?;
            entry::check_id(task.name())?;
            entries.insert(task.name().into(), entry);
        }
        Ok(entries)
    }

    /// Writes a schedule of the code, unless it is there.
    pub(super) async fn reconcile(&self, id: &str, wanted: &ScheduleEntry, occasion: Occasion) -> Result<()> {
        let kv = &**self.client.backend().kv();
        loop {
            let now = self.client.now();
            let found = entry::find(kv, id).await?;
            let expect = found.as_ref().map_or(Expect::Absent, |found| Expect::Revision(found.revision));
            let wanted = ScheduleEntry { last: now, renewed_at: Some(now), ..wanted.clone() };
            let entry = match found.map(|found| found.entry) {
                None => ScheduleEntry { floor: now, ..wanted },
                Some(removed) if removed.is_removed => wanted.after_removed(removed),
                Some(found) if found.source == Source::Code && found.is_like(&wanted) => {
                    let renewed_lately = found.renewed_at.is_some_and(|at| now.since(at) < RENEWED_AFTER);
                    if found.orphaned_at.is_some() {
                        ScheduleEntry { orphaned_at: None, last: now, renewed_at: Some(now), ..found }
                    } else if renewed_lately {
                        return Ok(());
                    } else {
                        ScheduleEntry { renewed_at: Some(now), ..found }
                    }
                }
                // A worker of another release has started since.
                Some(_) if occasion == Occasion::Daily => return Ok(()),
                Some(found) => {
                    if found.source == Source::Api {
                        tracing::warn!(
                            schedule = id,
                            "a schedule that was put at run time is now that of the task's code"
                        );
                    }
                    found.changed_to(&wanted)
                }
            };
            if entry::put(kv, id, &entry, expect).await?.is_some() {
                tracing::debug!(schedule = id, "written as it is in the code");
                return Ok(());
            }
        }
    }
}
