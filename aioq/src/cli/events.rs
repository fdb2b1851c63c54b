//! The command `events`: prints events of jobs as they happen.

use std::str::FromStr as _;

use clap::Args;
use futures_util::StreamExt as _;

use super::human;
use super::out::{tell, try_print_json, try_print_line};
use super::queues::{parse_queue, warn_of_strange};
use super::signals::Signals;
use crate::app::{App, Exit};
use crate::error::BoxError;
use crate::events::{Event, EventFilter};
use crate::store::Status;

#[derive(Args)]
pub(super) struct EventsArgs {
    /// Only events of this queue
    #[arg(long, value_parser = parse_queue)]
    queue: Option<String>,
    /// Only changes to this status; may be repeated [default: every end of a job]
    #[arg(long = "status", value_name = "STATUS", value_delimiter = ',', value_parser = Status::from_str)]
    statuses: Vec<Status>,
    /// All events
    #[arg(long, conflicts_with = "statuses")]
    all: bool,
    /// Print an object per line
    #[arg(long)]
    json: bool,
}

impl EventsArgs {
    fn filter(&self) -> EventFilter {
        let filter = match (self.all, &self.statuses[..]) {
            (true, _) => EventFilter::all(),
            (false, []) => EventFilter::new(),
            (false, statuses) => EventFilter::new().statuses(statuses.iter().copied()),
        };
        match &self.queue {
            Some(queue) => filter.queue(queue),
            None => filter,
        }
    }
}

/// Prints events until a signal comes, or until the reader of standard output is gone.
pub(super) async fn run(app: &App, args: &EventsArgs) -> Result<Exit, BoxError> {
    let mut signals = Signals::new()?;
    tokio::select! {
        followed = follow(app, args) => followed,
        () = signals.next() => Ok(Exit::Done),
        () = reader_gone() => Ok(Exit::Done),
    }
}

async fn follow(app: &App, args: &EventsArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    warn_of_strange(app, &client, args.queue.as_deref()).await?;
    let mut events = client.events(args.filter()).await?;
    tell("listening, Ctrl-C ends");
    while let Some(event) = events.next().await {
        let written = if args.json { try_print_json(&event) } else { try_print_line(&describe(&event)) };
        if written.is_err() {
            return Ok(Exit::Done);
        }
    }
    Err("the backend ended the stream of events".into())
}

/// An event in one line.
fn describe(event: &Event) -> String {
    let Event { kind, id, task, queue, at, attempt, .. } = event;
    let (at, kind) = (at.to_string(), kind.to_string());
    let progress = event.progress.as_ref().map(human::progress);
    let detail = event.error.clone().or(progress).map(|detail| format!("  {detail}")).unwrap_or_default();
    format!("{at:<27}  {kind:<9}  {queue}  {task}  {id}  attempt {attempt}{detail}")
}

/// Resolves when the reader of standard output is gone. Never resolves on systems that report this
/// at a write only.
async fn reader_gone() {
    #[cfg(unix)]
    if watch_stdout().await.is_ok() {
        return;
    }
    std::future::pending().await
}

/// Waits until the pipe at standard output has no reader. Leaves the pipe in its mode: reads and
/// writes nothing.
#[cfg(unix)]
async fn watch_stdout() -> std::io::Result<()> {
    use std::os::fd::AsFd as _;

    use tokio::io::Interest;
    use tokio::net::unix::pipe::Sender;

    let pipe = Sender::from_owned_fd_unchecked(std::io::stdout().as_fd().try_clone_to_owned()?)?;
    pipe.ready(Interest::ERROR).await.map(drop)
}
