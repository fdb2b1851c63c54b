//! The commands `queues`, `pause`, `resume` and `purge`.

use std::collections::BTreeSet;

use clap::Args;

use super::many;
use super::out::{complain, print_json, warn};
use super::progress::during;
use super::table::{self, Cell, Color, Column, Table};
use crate::app::{App, Exit};
use crate::client::Client;
use crate::error::{BoxError, Result};
use crate::message::check_queue_name;
use crate::queues::QueueInfo;
use crate::registry::Registry;
use crate::store::Status;
use crate::text;

#[derive(Args)]
pub(super) struct QueuesArgs {
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct QueueArgs {
    /// The queue
    #[arg(value_parser = parse_queue)]
    queue: String,
}

#[derive(Args)]
pub(super) struct PurgeArgs {
    /// The queue
    #[arg(value_parser = parse_queue)]
    queue: String,
    /// Drop the jobs; without it, only their number is printed
    #[arg(long)]
    yes: bool,
}

/// The name of a queue from the command line, without blanks around it.
pub(super) fn parse_queue(text: &str) -> Result<String> {
    let queue = text.trim();
    check_queue_name(queue).map(|()| queue.to_owned())
}

/// Warns if no task names a queue, no job is in it and no worker takes from it.
pub(super) async fn warn_of_strange(app: &App, client: &Client, queue: Option<&str>) -> Result<()> {
    let Some(queue) = queue else { return Ok(()) };
    let warnings = strange(client, &app.registry()?, &[queue.to_owned()]).await;
    warnings.iter().for_each(|warning| warn(warning));
    Ok(())
}

/// Warnings for queues that no task names, no job is in and no worker takes from, with the most
/// similar name.
pub(super) async fn strange(client: &Client, registry: &Registry, queues: &[String]) -> Vec<String> {
    let named: BTreeSet<&str> =
        registry.iter().map(|task| task.queue()).chain([crate::message::DEFAULT_QUEUE]).collect();
    let strange: Vec<String> =
        queues.iter().filter(|queue| !named.contains(queue.as_str())).cloned().collect();
    if strange.is_empty() {
        return Vec::new();
    }
    // An error gives no warning here: the command itself will report it.
    let Ok(used) = used(client).await else { return Vec::new() };
    let warning = |queue: &String| {
        let others = used.iter().map(String::as_str).chain(named.iter().copied());
        let hint = nearest(queue, others).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        format!("no task names the queue `{queue}`, no job is in it and no worker takes from it{hint}")
    };
    strange.iter().filter(|queue| !used.contains(*queue)).map(warning).collect()
}

/// Queues that are paused, have jobs, or have a live worker.
async fn used(client: &Client) -> Result<BTreeSet<String>> {
    let listed = client.queues().list().await?;
    let has_jobs = |info: &QueueInfo| info.counts.values().any(|count| *count > 0) || info.paused;
    let with_jobs = listed.iter().filter(|info| has_jobs(info)).map(|info| info.queue.clone());
    let workers = client.workers().list().await?;
    let heard = workers.iter().filter(|worker| worker.is_alive()).flat_map(|worker| worker.queues.clone());
    Ok(with_jobs.chain(heard).collect())
}

/// The name most similar to `name`, if one is similar.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let near = known.map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &lower), known));
    let best = near.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 > 0.75).then_some(best.1)
}

/// Lists all queues.
pub(super) async fn list(app: &App, args: &QueuesArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let queues = client.queues().list().await;
    client.shutdown().await?;
    let queues = queues?;
    if args.json {
        print_json(&queues)
    } else {
        print_table(&queues)
    }
    Ok(Exit::Done)
}

/// The columns of statuses, unfinished work first.
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
    let [pending, others @ ..] = COUNTED;
    let columns = [Column::Text("QUEUE"), Column::Whole("STATE"), Column::Whole("OLDEST")];
    let counted = [Column::Number(pending.1), Column::Number("HELD")];
    let counted = counted.into_iter().chain(others.map(|(_, name)| Column::Number(name)));
    let mut table = Table::new(columns.into_iter().chain(counted));
    for queue in queues {
        let oldest = queue.oldest_age().map(text::rounded_span).unwrap_or_default();
        let others = others.map(|(status, _)| queue.counts.get(&status).copied().unwrap_or(0));
        let cells = [table::text(&queue.queue), state(queue), table::text(oldest)];
        let counts = [queue.depth, queue.held].into_iter().chain(others);
        table.row(cells.into_iter().chain(counts.map(table::number)));
    }
    table.print_or("no queues");
}

fn state(queue: &QueueInfo) -> Cell {
    if queue.paused {
        table::painted(table::text("paused"), Some(Color::Yellow))
    } else {
        table::text("open")
    }
}

/// Pauses a queue.
pub(super) async fn pause(app: &App, args: QueueArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    // Before the pause makes it a used queue.
    warn_of_strange(app, &client, Some(&args.queue)).await?;
    client.queues().pause(&args.queue).await?;
    client.shutdown().await?;
    Ok(Exit::Done)
}

/// Resumes a queue. Fails if it is not paused.
pub(super) async fn resume(app: &App, args: QueueArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let was_paused = client.queues().resume(&args.queue).await?;
    let warned = if was_paused { Ok(()) } else { warn_of_strange(app, &client, Some(&args.queue)).await };
    client.shutdown().await?;
    if !was_paused {
        warned?;
        complain(&format!("the queue `{}` is not paused", args.queue));
        return Ok(Exit::Failed);
    }
    Ok(Exit::Done)
}

/// Drops the waiting jobs of a queue, with `--yes`.
pub(super) async fn purge(app: &App, args: PurgeArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    warn_of_strange(app, &client, Some(&args.queue)).await?;
    let exit =
        if args.yes { drop_all(&client, &args.queue).await } else { refuse(&client, &args.queue).await };
    client.shutdown().await?;
    Ok(exit?)
}

async fn drop_all(client: &Client, queue: &str) -> Result<Exit> {
    let dropped = during("purging", client.queues().purge(queue)).await?;
    Ok(many::report("dropped", dropped.done, "job", &dropped))
}

async fn refuse(client: &Client, queue: &str) -> Result<Exit> {
    check_queue_name(queue)?;
    let depths = client.queues().depths(&[queue.to_owned()]).await?;
    let waiting = depths.iter().map(|depth| depth.ready + depth.scheduled + depth.retrying).sum();
    let jobs = text::count(waiting, "job");
    complain(&format!("{jobs} of the queue `{queue}` would be dropped; repeat with `--yes` to drop them"));
    Ok(Exit::Failed)
}
