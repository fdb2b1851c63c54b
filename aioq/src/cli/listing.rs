//! Lists of jobs: filter, pages, table.

use std::str::FromStr as _;

use clap::Args;

use super::human;
use super::out::{print_json, tell};
use super::queues::{parse_queue, warn_of_strange};
use super::table::{self, Cell, Color, Column, Table};
use crate::app::{App, Exit};
use crate::client::Client;
use crate::error::Result;
use crate::jobs::{Cursor, JobFilter, JobList, JobsPage};
use crate::store::{JobRecord, Status};

/// Filter and page of a list of jobs.
#[derive(Args)]
pub(super) struct ListArgs {
    /// Only jobs of this queue
    #[arg(long, value_parser = parse_queue)]
    queue: Option<String>,
    /// Only jobs with this status; may be repeated
    #[arg(long = "status", value_name = "STATUS", value_delimiter = ',', value_parser = Status::from_str)]
    statuses: Vec<Status>,
    /// Only jobs of this task
    #[arg(long)]
    task: Option<String>,
    /// Only jobs with this label, as name=value
    #[arg(long, value_name = "K=V", value_parser = parse_label)]
    label: Option<(String, String)>,
    /// Number of jobs to list
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Continue where an earlier list ended: the cursor that it printed
    #[arg(long, value_name = "CURSOR", value_parser = Cursor::from_str)]
    after: Option<Cursor>,
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected name=value")?;
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Prints the jobs that `list` returns. Without `--json`, prints `none` if there are none.
pub(super) async fn run(
    app: &App,
    client: &Client,
    args: ListArgs,
    none: &str,
    list: impl AsyncFn(JobFilter, JobsPage) -> Result<JobList>,
) -> Result<Exit> {
    let (json, queue) = (args.json, args.queue.clone());
    let (jobs, next) = args.read(list).await?;
    if jobs.is_empty() {
        warn_of_strange(app, client, queue.as_deref()).await?;
    }
    if json {
        print_json(&jobs);
    } else {
        print_table(&jobs, none);
    }
    if let Some(next) = next {
        tell(&format!("next: {next}"));
    }
    Ok(Exit::Done)
}

impl ListArgs {
    /// Reads pages until it has the wanted number of jobs or the list ends. A page may be short:
    /// the store counts rows, not matches.
    async fn read(
        self,
        list: impl AsyncFn(JobFilter, JobsPage) -> Result<JobList>,
    ) -> Result<(Vec<JobRecord>, Option<Cursor>)> {
        let (filter, limit) = (self.filter(), self.limit as usize);
        let (mut jobs, mut next) = (Vec::new(), self.after);
        loop {
            let page = JobsPage::of(limit - jobs.len());
            let page = match next {
                Some(cursor) => page.after(cursor),
                None => page,
            };
            let piece = list(filter.clone(), page).await?;
            jobs.extend(piece.jobs);
            next = piece.next;
            if next.is_none() || jobs.len() >= limit {
                return Ok((jobs, next));
            }
        }
    }

    fn filter(&self) -> JobFilter {
        let mut filter = by_name(self.queue.as_deref(), self.task.as_deref());
        for status in &self.statuses {
            filter = filter.status(*status);
        }
        if let Some((name, value)) = &self.label {
            filter = filter.label(name, value.as_str());
        }
        filter
    }
}

/// Filter for the jobs of a queue, of a task, or of both.
pub(super) fn by_name(queue: Option<&str>, task: Option<&str>) -> JobFilter {
    let mut filter = JobFilter::new();
    if let Some(queue) = queue {
        filter = filter.queue(queue);
    }
    if let Some(task) = task {
        filter = filter.task(task);
    }
    filter
}

fn print_table(jobs: &[JobRecord], none: &str) {
    let mut table = Table::new([
        Column::Whole("ID"),
        Column::Whole("STATUS"),
        Column::Text("TASK"),
        Column::Text("QUEUE"),
        Column::Whole("WHEN"),
        Column::Number("ATTEMPT"),
        Column::Text("DETAIL"),
    ]);
    for job in jobs {
        table.row([
            table::text(&job.id),
            status(job.status),
            table::text(&job.task),
            table::text(&job.queue),
            table::text(when(job)),
            table::text(attempt(job)),
            table::text(detail(job)),
        ]);
    }
    table.print_or(none);
}

/// Cell of a status.
fn status(status: Status) -> Cell {
    let colour = match status {
        Status::Completed => Some(Color::Green),
        Status::Failed => Some(Color::Red),
        Status::Retrying | Status::Expired => Some(Color::Yellow),
        Status::Running => Some(Color::Cyan),
        Status::Cancelled => Some(Color::DarkGrey),
        _ => None,
    };
    table::painted(table::text(status.as_str()), colour)
}

/// Attempt and largest number of attempts: `1/4`.
fn attempt(job: &JobRecord) -> String {
    format!("{}/{}", job.attempt, u64::from(job.max_retries) + 1)
}

/// Time at which the job came into its status, or leaves it.
fn when(job: &JobRecord) -> String {
    let time = match job.status {
        Status::Scheduled | Status::Retrying => job.run_at,
        Status::Running => job.started_at,
        _ => job.finished_at,
    };
    time.or(job.kicked_at).map(human::when).unwrap_or_default()
}

/// Progress of a running job, or the error of a failed one.
fn detail(job: &JobRecord) -> String {
    match (&job.progress, &job.error) {
        (Some(progress), _) if job.status == Status::Running => human::progress(progress),
        (_, Some(error)) => human::error(error),
        _ => String::new(),
    }
}
