//! The command `workers`: lists the workers.

use clap::Args;
use serde::Serialize;

use super::human;
use super::out::print_json;
use super::table::{self, Cell, Color, Column, Table};
use crate::app::{App, Exit};
use crate::error::BoxError;
use crate::text;
use crate::workers::WorkerInfo;

#[derive(Args)]
pub(super) struct WorkersArgs {
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct WorkerView<'a> {
    #[serde(flatten)]
    info: &'a WorkerInfo,
    alive: bool,
}

pub(super) async fn run(app: &App, args: &WorkersArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let workers = client.workers().list().await;
    client.shutdown().await?;
    let workers = workers?;
    let view = |info| WorkerView { info, alive: WorkerInfo::is_alive(info) };
    if args.json {
        print_json(&workers.iter().map(view).collect::<Vec<_>>());
    } else {
        print_table(&workers);
    }
    Ok(Exit::Done)
}

fn print_table(workers: &[WorkerInfo]) {
    let mut table = Table::new([
        Column::Whole("WORKER"),
        Column::Whole("STATE"),
        Column::Number("BUSY"),
        Column::Number("BLOCKING"),
        Column::Text("QUEUES"),
        Column::Whole("SEEN"),
        Column::Text("HOST"),
        Column::Whole("STARTED"),
        Column::Number("MEMORY"),
        Column::Whole("VERSION"),
    ]);
    for worker in workers {
        table.row([
            table::text(&worker.worker_id),
            state(worker),
            table::text(format!("{}/{}", worker.busy, worker.concurrency)),
            table::text(format!("{}/{}", worker.blocking_busy, worker.blocking_threads)),
            table::text(worker.queues.join(", ")),
            table::text(human::when(worker.last_heartbeat)),
            table::text(&worker.host),
            table::text(human::when(worker.registered_at)),
            table::text(worker.rss_bytes.map(text::bytes).unwrap_or_default()),
            table::text(&worker.version),
        ]);
    }
    table.print_or("no workers");
}

fn state(worker: &WorkerInfo) -> Cell {
    let (text, color) = if worker.is_alive() { ("alive", Color::Green) } else { ("dead", Color::Red) };
    table::painted(table::text(text), Some(color))
}
