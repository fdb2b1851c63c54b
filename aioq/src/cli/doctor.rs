//! The command `doctor`: reports what a failure would cost, and wrong settings.

use clap::Args;

use super::human;
use super::out::{print_json, print_line, print_styled};
use super::tame::tame;
use crate::app::{App, Exit};
use crate::broker::{Finding, Level};
use crate::client::Client;
use crate::error::{BoxError, Result};
use crate::queues::QueueInfo;
use crate::schedules::{ScheduleFilter, ScheduleView};
use crate::store::Status;
use crate::text;
use crate::time::Timestamp;
use crate::workers::WorkerInfo;

#[derive(Args)]
#[command(after_long_help = "\
Each line starts with `ok`, `note` (good to know; many live well with it) or `WARN` (it loses jobs, stops \
them, or soon will), then says what it is about. It looks at the backend, not at this program's code; as any \
command, it declares what aioq needs there if that is missing.

--json prints one array of objects, in the order of the plain output:
  level   \"fine\", \"remark\" or \"warning\"
  about   a key that stays the same: process_crash, power_loss, disk_loss, node_loss, listeners, records, schedules, \
and those of the backend, for NATS server_version, replicas, stream_limits, stream_settings, \
duplicate_window, consumers, account_limits, max_payload, clock; several objects may have the same
  text    a sentence or two for people; it may change
  advice  what to do about it, or null

Exit codes: 0 nothing to worry about, 1 at least one warning, 2 bad usage or no connection.")]
pub(super) struct DoctorArgs {
    /// Print an array of objects: level, about, text, advice
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(app: &App, args: &DoctorArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let findings = examine(&client).await;
    client.shutdown().await?;
    let findings = findings?;
    if args.json {
        print_json(&findings);
    } else {
        findings.iter().for_each(print);
    }
    let has_warning = findings.iter().any(|finding| finding.level == Level::Warning);
    Ok(if has_warning { Exit::Failed } else { Exit::Done })
}

/// Findings of this backend, and findings that apply to any backend.
async fn examine(client: &Client) -> Result<Vec<Finding>> {
    let mut findings = client.backend().broker().examine().await?;
    if client.backend().jobs().is_none() {
        findings.push(unrecorded());
    }
    let workers = client.workers().list().await?;
    findings.extend(listeners(client, &workers).await?);
    findings.extend(schedules(client).await?);
    findings.extend(workers.iter().filter_map(|worker| clock(worker, client.now())));
    Ok(findings)
}

fn unrecorded() -> Finding {
    let text = "No records are kept: there are no results and no dead letters, and a job whose worker crashes \
                between its end and its ack runs again.";
    Finding::remark("records", text).advice("Remove `Backend::without_jobs` to keep records.")
}

/// Findings about queues that no worker takes jobs from.
async fn listeners(client: &Client, workers: &[WorkerInfo]) -> Result<Vec<Finding>> {
    let alive = || workers.iter().filter(|worker| worker.is_alive());
    let is_heard = |queue: &str| alive().any(|worker| worker.queues.iter().any(|heard| heard == queue));
    let queues = client.queues().list().await?;
    let found: Vec<Finding> =
        queues.iter().filter_map(|queue| unheard(queue, is_heard(&queue.queue))).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let workers = alive().count();
    let text = format!("Every queue with waiting jobs has a worker. Workers alive: {workers}.");
    Ok(vec![Finding::fine("listeners", text)])
}

/// Findings about schedules that no worker fires; none if there are no schedules.
async fn schedules(client: &Client) -> Result<Vec<Finding>> {
    let (all, now) = (client.schedules().list(ScheduleFilter::new()).await?, client.now());
    let overdue = |view: &ScheduleView| {
        let tick = view.overdue(now)?;
        let text = format!("Schedule `{}` has not ticked since {tick}: no worker fires it.", view.id);
        Some(Finding::warning("schedules", text).advice("Start a worker, or the command `scheduler`."))
    };
    let found: Vec<Finding> = all.iter().filter_map(overdue).collect();
    if all.is_empty() || !found.is_empty() {
        return Ok(found);
    }
    let text = format!("No schedule is overdue, of {}.", text::count(all.len() as u64, "schedule"));
    Ok(vec![Finding::fine("schedules", text)])
}

/// Finding about a worker whose clock differs from the clock of this machine.
fn clock(worker: &WorkerInfo, now: Timestamp) -> Option<Finding> {
    let off = text::rounded_span(worker.clock_off(now)?);
    let (name, host) = (&worker.worker_id, &worker.host);
    let text = format!(
        "The clocks of this machine and of the worker {name} on {host} are at least {off} apart: times to live \
         and retries are that much too early or too late.",
    );
    Some(Finding::warning("clock", text).advice("Let a time service (NTP) set the clocks of all machines."))
}

/// Finding about a queue that is paused, or that no worker listens to.
fn unheard(queue: &QueueInfo, is_heard: bool) -> Option<Finding> {
    let count = |status: Status| queue.counts.get(&status).copied().unwrap_or(0);
    let later = count(Status::Scheduled) + count(Status::Retrying);
    let name = &queue.queue;
    let waiting = text::count(queue.depth + later, "job");
    let waiting = format!("{waiting} of the queue `{name}` cannot run");
    let listen = format!("Start a worker for this queue: `worker --queues {name}`.");
    match () {
        () if queue.depth + later == 0 => None,
        () if queue.paused => {
            let text = format!("{waiting}: the queue is paused.");
            Some(Finding::remark("listeners", text).advice(format!("Resume the queue: `resume {name}`.")))
        }
        () if is_heard => None,
        () if queue.depth > 0 => {
            Some(Finding::warning("listeners", format!("{waiting}: no worker listens to it.")).advice(listen))
        }
        () => {
            let text = format!("{waiting} when their time comes: no worker listens to it.");
            Some(Finding::remark("listeners", text).advice(listen))
        }
    }
}

fn print(finding: &Finding) {
    let text = format!("{}: {}", finding.about, finding.text);
    print_styled(&format!("{} {}", sign(finding.level), tame(&text)));
    if let Some(advice) = &finding.advice {
        print_line(&format!("     -> {advice}"));
    }
}

/// Level in four columns, coloured if the output may be.
fn sign(level: Level) -> String {
    let (sign, colour) = match level {
        Level::Fine => ("ok  ", 32),
        Level::Remark => ("note", 36),
        Level::Warning => ("WARN", 33),
    };
    if human::coloured(&std::io::stdout()) {
        format!("\u{1b}[{colour}m{sign}\u{1b}[0m")
    } else {
        sign.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::to_json;

    fn queue(depth: u64, scheduled: u64, paused: bool) -> QueueInfo {
        let counts = [(Status::Pending, depth), (Status::Scheduled, scheduled)];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        QueueInfo { queue: "mail".to_owned(), depth, held: 0, oldest: None, paused, counts }
    }

    #[test]
    fn jobs_that_nobody_takes_are_told() {
        let level = |queue, is_heard| unheard(&queue, is_heard).map(|finding| finding.level);
        assert_eq!(level(queue(0, 0, true), false), None);
        assert_eq!(level(queue(1, 1, false), true), None);
        assert_eq!(level(queue(1, 0, false), false), Some(Level::Warning));
        assert_eq!(level(queue(0, 1, false), false), Some(Level::Remark));
        assert_eq!(level(queue(1, 0, true), true), Some(Level::Remark));
    }

    #[test]
    fn a_finding_keeps_its_shape() {
        assert_eq!(
            to_json(&[Finding::fine("a", "B."), Finding::warning("c", "D.").advice("E.")]),
            r#"[{"level":"fine","about":"a","text":"B.","advice":null},{"level":"warning","about":"c","text":"D.","advice":"E."}]"#
        );
    }
}
