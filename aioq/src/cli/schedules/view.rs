//! Schedules as the command `schedules` prints them.

use serde::Serialize;

use super::super::human;
use super::super::out::{print_json, print_line};
use super::super::table::{self, Cell, Color, Column, Table};
use crate::codec::Arguments;
use crate::error::{ErrorKind, Result};
use crate::jobs::Jobs;
use crate::schedules::{Missed, Overlap, ScheduleState, ScheduleView, Source, TickJob, When, explain};
use crate::time::Timestamp;

/// Number of ticks to come that `show` prints.
const SHOWN: usize = 5;

/// Prints an array of objects.
pub(super) fn print_objects(views: &[ScheduleView]) {
    print_json(&views.iter().map(|view| ScheduleObject::of(view, 1, false)).collect::<Vec<_>>());
}

/// A schedule as an object. The names of its fields never change.
#[derive(Serialize)]
struct ScheduleObject<'a> {
    id: &'a str,
    task: &'a str,
    queue: &'a str,
    args: &'a Arguments,
    cron: Option<&'a str>,
    tz: Option<&'a str>,
    every_seconds: Option<f64>,
    at: Option<Timestamp>,
    missed: Missed,
    overlap: Overlap,
    source: Source,
    state: ScheduleState,
    next: Vec<Timestamp>,
    overdue_since: Option<Timestamp>,
    last: Option<&'a TickJob>,
    recent: Option<&'a [TickJob]>,
    fired: u64,
    skipped: u64,
    missed_ticks: u64,
    fired_by: Option<&'a str>,
}

impl<'a> ScheduleObject<'a> {
    fn of(view: &'a ScheduleView, next: usize, has_recent: bool) -> Self {
        let (cron, tz) = match &view.when {
            When::Cron { expression, zone } => (Some(&**expression), Some(&**zone)),
            _ => (None, None),
        };
        Self {
            id: &view.id,
            task: &view.task,
            queue: &view.queue,
            args: &view.arguments,
            cron,
            tz,
            every_seconds: match view.when {
                When::Every(period) => Some(period.as_secs_f64()),
                _ => None,
            },
            at: match view.when {
                When::At(time) => Some(time),
                _ => None,
            },
            missed: view.missed,
            overlap: view.overlap,
            source: view.source,
            state: view.state,
            next: view.next(next),
            overdue_since: view.overdue(Timestamp::now()),
            last: view.recent.last(),
            recent: has_recent.then_some(&view.recent),
            fired: view.counts.fired,
            skipped: view.counts.skipped,
            missed_ticks: view.counts.missed,
            fired_by: view.fired_by.as_deref(),
        }
    }
}

pub(super) fn print_table(views: &[ScheduleView]) {
    let mut table = Table::new([
        Column::Whole("ID"),
        Column::Text("TASK"),
        Column::Whole("WHEN"),
        Column::Whole("ZONE"),
        Column::Whole("STATE"),
        Column::Whole("NEXT"),
        Column::Whole("LAST"),
        Column::Number("FIRED"),
        Column::Number("SKIPPED"),
        Column::Number("MISSED"),
        Column::Text("JOB"),
    ]);
    for view in views {
        let last = view.recent.last();
        table.row([
            table::text(&view.id),
            table::text(&view.task),
            table::text(view.when.to_string()),
            table::text(zone(view)),
            state(view),
            next_tick(view),
            table::text(last.map(|last| human::when(last.tick)).unwrap_or_default()),
            table::number(view.counts.fired),
            table::number(view.counts.skipped),
            table::number(view.counts.missed),
            table::text(last.map(|last| last.job.to_string()).unwrap_or_default()),
        ]);
    }
    table.print_or("no schedules");
}

fn zone(view: &ScheduleView) -> &str {
    match &view.when {
        When::Cron { zone, .. } => zone,
        _ => "",
    }
}

fn state(view: &ScheduleView) -> Cell {
    let colour = match view.state {
        ScheduleState::Active => Some(Color::Green),
        ScheduleState::Paused | ScheduleState::Orphaned => Some(Color::Yellow),
        ScheduleState::Ended => None,
    };
    table::painted(table::text(view.state.as_str()), colour)
}

/// The next tick; in red one that no worker has fired in time.
fn next_tick(view: &ScheduleView) -> Cell {
    match view.overdue(Timestamp::now()) {
        Some(tick) => {
            table::painted(table::text(format!("overdue, {}", human::when(tick))), Some(Color::Red))
        }
        None => table::text(view.next(1).first().map(|tick| human::when(*tick)).unwrap_or_default()),
    }
}

/// Prints an object with all that is known of a schedule.
pub(super) fn print_object(view: &ScheduleView) {
    print_json(&ScheduleObject::of(view, SHOWN, true));
}

/// Prints one value per line.
pub(super) async fn print_lines(view: &ScheduleView, jobs: &Jobs) -> Result<()> {
    let line = |name: &str, value: &str| print_line(&format!("{name:<10} {value}"));
    line("id", &view.id);
    line("task", &view.task);
    line("queue", &view.queue);
    line("args", &view.arguments.to_json());
    line("when", &view.when.to_string());
    if !zone(view).is_empty() {
        line("zone", zone(view));
    }
    line("missed", view.missed.as_str());
    line("overlap", view.overlap.as_str());
    line("from", if view.source == Source::Code { "code" } else { "api" });
    line("state", view.state.as_str());
    let counts = view.counts;
    line("ticks", &format!("{} fired, {} skipped, {} missed", counts.fired, counts.skipped, counts.missed));
    if let Some(tick) = view.overdue(Timestamp::now()) {
        line("overdue", &format!("{tick}  ({})", human::when(tick)));
    }
    for tick in view.next(SHOWN) {
        line("next", &in_both(tick, view));
    }
    for recent in view.recent.iter().rev().take(16) {
        line("fired", &format!("{}  {}  {}", recent.tick, recent.job, status(jobs, recent).await?));
    }
    Ok(())
}

/// A tick in UTC, and in the zone of its schedule.
fn in_both(tick: Timestamp, view: &ScheduleView) -> String {
    match &view.when {
        When::Cron { zone, .. } if zone != "UTC" => {
            format!("{tick}  {}  ({})", explain::local(tick, zone), human::when(tick))
        }
        _ => format!("{tick}  ({})", human::when(tick)),
    }
}

async fn status(jobs: &Jobs, recent: &TickJob) -> Result<String> {
    match jobs.get(&recent.job).await {
        Ok(record) => Ok(record.status.to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok("its record is gone".to_owned()),
        Err(error) => Err(error),
    }
}
