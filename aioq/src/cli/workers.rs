//! `workers`: who runs jobs.

use clap::Args;
use serde::Serialize;

use super::{Exit, print_line};
use crate::app::App;
use crate::codec::to_json;
use crate::error::BoxError;
use crate::time::Timestamp;
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
    let workers = client.workers().list().await?;
    client.shutdown().await?;
    let view = |info| WorkerView { info, alive: WorkerInfo::is_alive(info) };
    if args.json {
        print_line(&to_json(&workers.iter().map(view).collect::<Vec<_>>()));
        return Ok(Exit::Done);
    }
    for worker in &workers {
        print_line(&line(worker));
    }
    Ok(Exit::Done)
}

fn line(worker: &WorkerInfo) -> String {
    let silent = Timestamp::now().since(worker.last_heartbeat).as_secs();
    let life = if worker.is_alive() { "alive" } else { "dead " };
    let (id, host, queues) = (&worker.worker_id, &worker.host, worker.queues.join(","));
    format!(
        "{life}  {id}  {host}  busy {}/{}  seen {silent} s ago  {queues}",
        worker.busy, worker.concurrency
    )
}
