//! The watchdog: logs what the worker has done, and warns when nothing moves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

use super::run::{AbortOnDrop, spawn_beside};
use super::{Shared, tally};
use crate::context::waits_elsewhere;

/// Interval between the lines on ended jobs.
const MINUTE: Duration = Duration::from_secs(60);
/// Interval between scans.
const LOOK: Duration = Duration::from_secs(1);
/// Scans without progress before the first warning. The number doubles each time.
const STILL: u64 = 10;
/// Number of tasks that one warning names.
const NAMED: usize = 3;

/// Watches until the guard is dropped.
pub(super) fn keep(shared: &Arc<Shared>) -> AbortOnDrop {
    spawn_beside(shared, watch(Arc::clone(shared)))
}

async fn watch(shared: Arc<Shared>) {
    let mut minutes = interval_at(Instant::now() + MINUTE, MINUTE);
    let mut looks = interval_at(Instant::now() + LOOK, LOOK);
    let (mut still, mut say_at) = (0, STILL);
    loop {
        tokio::select! {
            _ = minutes.tick() => tally::say(&shared),
            _ = looks.tick() => {
                let idle = idle_in_all_slots(&shared);
                still = if idle.is_some() { still + 1 } else { 0 };
                match idle {
                    None => say_at = STILL,
                    Some(idle) if still >= say_at => {
                        say_at = still * 2;
                        warn(&shared, &idle, LOOK * u32::try_from(still).unwrap_or(u32::MAX));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// Tasks and queues of the bodies that hold all slots, if none was polled since the last scan while
/// a wait of unknown origin is under way in this process. One of the bodies may be that waiter.
fn idle_in_all_slots(shared: &Shared) -> Option<BTreeSet<(String, String)>> {
    let nobody_waits = waits_elsewhere() == 0;
    if nobody_waits || shared.scope.slots.free() > 0 || shared.scope.slots.are_wanted() {
        return None;
    }
    shared.leases.idle_in_slots().filter(|idle| !idle.is_empty())
}

fn warn(shared: &Shared, idle: &BTreeSet<(String, String)>, span: Duration) {
    let names = idle.iter().take(NAMED).map(|(task, queue)| format!("task `{task}` of queue `{queue}`"));
    let names = names.collect::<Vec<_>>().join(", ");
    let more = if idle.len() > NAMED { " and others" } else { "" };
    tracing::warn!(
        "all {} slots are taken by bodies that have done nothing for {span:?}: {names}{more}. If one of them waits for \
         a job in a task that it spawned, its slot is not lent: await the job in the body itself, or raise the concurrency",
        shared.options.concurrency
    );
}
