//! `queues`, `pause`, `resume`, `purge`: lines of jobs.

use clap::Args;

use super::progress::during;
use super::table::{self, Cell, Color, Column, Table};
use super::{Exit, eprint_line, human, print_line};
use crate::app::App;
use crate::client::Client;
use crate::codec::to_json;
use crate::error::{BoxError, Result};
use crate::message::check_queue_name;
use crate::queue::QueueInfo;
use crate::store::Status;

#[derive(Args)]
pub(super) struct QueuesArgs {
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct QueueArgs {
    /// The queue
    queue: String,
}

#[derive(Args)]
pub(super) struct PurgeArgs {
    /// The queue
    queue: String,
    /// Yes, drop them
    #[arg(long)]
    yes: bool,
}

/// Lists all queues.
pub(super) async fn list(app: &App, args: &QueuesArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let queues = client.queues().list().await;
    client.shutdown().await?;
    let queues = queues?;
    match args.json {
        true => print_line(&to_json(&queues)),
        false => print_table(&queues),
    }
    Ok(Exit::Done)
}

/// The columns of statuses, what is to be done first.
const COUNTED: [(Status, &str); 8] = [
    (Status::Pending, "PENDING"),
    (Status::Running, "RUNNING"),
    (Status::Scheduled, "SCHEDULED"),
    (Status::Retrying, "RETRYING"),
    (Status::Failed, "FAILED"),
    (Status::Completed, "COMPLETED"),
    (Status::Cancelled, "CANCELLED"),
    (Status::Expired, "EXPIRED"),
];

fn print_table(queues: &[QueueInfo]) {
    let columns = [Column::Text("QUEUE"), Column::Whole("STATE"), Column::Whole("OLDEST")];
    let counted = COUNTED.map(|(_, name)| Column::Number(name));
    let mut table = Table::new(columns.into_iter().chain(counted));
    for queue in queues {
        let oldest = queue.oldest_age().map(human::span).unwrap_or_default();
        let counts = COUNTED.map(|(status, _)| queue.counts.get(&status).copied().unwrap_or(0));
        let cells = [table::text(&queue.queue), state(queue), table::text(oldest)];
        table.row(cells.into_iter().chain(counts.map(table::number)));
    }
    table.print_or("no queues");
}

fn state(queue: &QueueInfo) -> Cell {
    match queue.paused {
        true => table::painted(table::text("paused"), Some(Color::Yellow)),
        false => table::text("open"),
    }
}

/// Pauses a queue.
pub(super) async fn pause(app: &App, args: QueueArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    client.queues().pause(&args.queue).await?;
    client.shutdown().await?;
    Ok(Exit::Done)
}

/// Resumes a queue; one that was not paused is refused.
pub(super) async fn resume(app: &App, args: QueueArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let was_paused = client.queues().resume(&args.queue).await?;
    client.shutdown().await?;
    if !was_paused {
        eprint_line(&format!("error: the queue `{}` is not paused", args.queue));
        return Ok(Exit::Failed);
    }
    Ok(Exit::Done)
}

/// Drops what waits in a queue, if that is really meant.
pub(super) async fn purge(app: &App, args: PurgeArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let exit = match args.yes {
        true => drop_all(&client, &args.queue).await,
        false => refuse(&client, &args.queue).await,
    };
    client.shutdown().await?;
    Ok(exit?)
}

async fn drop_all(client: &Client, queue: &str) -> Result<Exit> {
    let dropped = during("purging", client.queues().purge(queue)).await?;
    print_line(&format!("dropped {}", human::count(dropped, "job")));
    Ok(Exit::Done)
}

async fn refuse(client: &Client, queue: &str) -> Result<Exit> {
    check_queue_name(queue)?;
    let depths = client.queues().depths(&[queue.to_owned()]).await?;
    let waiting = depths.iter().map(|depth| depth.ready + depth.scheduled + depth.retrying).sum();
    let jobs = human::count(waiting, "job");
    eprint_line(&format!("error: {jobs} of the queue `{queue}` would be dropped, --yes drops them"));
    Ok(Exit::Failed)
}
