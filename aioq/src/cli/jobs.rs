//! The command `jobs`: lists, cancels, reruns and removes jobs.

use std::str::FromStr as _;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::iter;

use super::family::Relatives;
use super::listing::{self, ListArgs};
use super::many::{self, Ids, Results};
use super::out::{complain, print_json, print_line};
use super::progress::during;
use super::{exit_of, family, record, wait};
use crate::app::{App, Exit};
use crate::client::Client;
use crate::error::{BoxError, Result};
use crate::jobs::TaskHandle;
use crate::message::JobId;
use crate::store::Status;
use crate::time::parse_duration;

/// Number of jobs to cancel or look up before the progress bar moves.
const BATCH: usize = 500;

#[derive(clap::Subcommand)]
pub(super) enum JobsCommand {
    /// List jobs, the latest change of state first
    List(ListArgs),
    /// Print the record of one job
    Get(GetArgs),
    /// Print a job with all jobs that it depends on, and all that depend on it
    Tree(TreeArgs),
    /// Cancel jobs that have not started
    Cancel(Ids),
    /// Cancel jobs or stop their runs, and wait for their end
    Abort(AbortArgs),
    /// Rerun jobs that failed, expired or were cancelled
    Retry(Ids),
    /// Remove jobs that do not run; waiting ones are cancelled
    Remove(Ids),
    /// Remove jobs that ended long ago
    Clean(CleanArgs),
    /// Wait for the end of jobs, and print their results
    Wait(WaitArgs),
}

#[derive(Args)]
pub(super) struct GetArgs {
    /// The id of the job
    id: String,
    /// Print an object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct TreeArgs {
    /// The id of the job
    id: String,
    /// Largest number of jobs
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// Print an object per job: id, task, status, `depends_on`
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct AbortArgs {
    #[command(flatten)]
    jobs: Ids,
    /// Time to wait for the end of each job
    #[arg(long, value_parser = parse_duration, value_name = "TIME", default_value = "5s")]
    timeout: Duration,
}

#[derive(Args)]
pub(super) struct CleanArgs {
    /// Status of the jobs
    #[arg(long, value_parser = Status::from_str)]
    status: Status,
    /// Smallest age of their end
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    older_than: Duration,
    /// Largest number of jobs to remove, the oldest first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Args)]
pub(super) struct WaitArgs {
    #[command(flatten)]
    jobs: Ids,
    /// Longest wait, for all jobs together
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    timeout: Option<Duration>,
    /// Print an object per job: id, status, result, error
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(app: &App, command: JobsCommand) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let jobs = client.jobs();
    let exit = match command {
        JobsCommand::List(args) => {
            let list = async |filter, page| jobs.list(filter, page).await;
            listing::run(app, &client, args, "no jobs", list).await
        }
        JobsCommand::Get(args) => get(&client, args).await,
        JobsCommand::Tree(args) => tree(&client, args).await,
        JobsCommand::Cancel(Ids { ids }) => cancel(&client, &ids).await,
        JobsCommand::Abort(AbortArgs { jobs: Ids { ids }, timeout }) => {
            many::each(&client, ids, not_aborted, async |id| jobs.abort(id, timeout).await).await
        }
        JobsCommand::Retry(Ids { ids }) => {
            many::each(&client, ids, not_retried, async |id| jobs.retry(id).await).await
        }
        JobsCommand::Remove(Ids { ids }) => {
            many::each(&client, ids, not_removed, async |id| jobs.remove(id).await).await
        }
        JobsCommand::Clean(args) => clean(&client, args).await,
        JobsCommand::Wait(args) => wait_for(&client, args).await,
    };
    client.shutdown().await?;
    Ok(exit?)
}

async fn get(client: &Client, args: GetArgs) -> Result<Exit> {
    let id = JobId::from(args.id);
    let record = client.jobs().get(&id).await?;
    let relatives = Relatives::of(client, &record).await?;
    if args.json {
        print_json(&record::WithRelatives { record: &record, relatives: &relatives });
    } else {
        record::print(&record, &relatives);
    }
    Ok(Exit::Done)
}

async fn tree(client: &Client, args: TreeArgs) -> Result<Exit> {
    let tree = client.jobs().tree(&JobId::from(args.id), args.limit).await?;
    if args.json {
        tree.jobs.iter().for_each(print_json);
    } else {
        family::lines(&tree).iter().for_each(|line| print_line(line));
    }
    if tree.is_cut {
        complain(&format!("there are more than {} jobs, see --limit", args.limit));
    }
    Ok(Exit::Done)
}

async fn cancel(client: &Client, ids: &[String]) -> Result<Exit> {
    let mut results = Results::new(client, ids.len(), not_cancelled);
    for ids in ids.chunks(BATCH) {
        let ids: Vec<JobId> = ids.iter().map(|id| JobId::from(id.as_str())).collect();
        let fates = client.jobs().cancel_all(&ids).await;
        for (id, fate) in ids.iter().zip(fates) {
            results.note(id, fate).await?;
        }
    }
    Ok(results.exit)
}

async fn clean(client: &Client, args: CleanArgs) -> Result<Exit> {
    let limit = args.limit.unwrap_or(usize::MAX);
    let jobs = client.jobs();
    let gone = during("cleaning", jobs.clean(args.status, args.older_than, limit)).await?;
    Ok(many::report("forgot", gone.done.len() as u64, "job", &gone))
}

async fn wait_for(client: &Client, args: WaitArgs) -> Result<Exit> {
    let found = iter(args.jobs.ids).map(|id| client.handle::<()>(id));
    let found: Vec<Result<TaskHandle<()>>> = found.buffered(BATCH).collect().await;
    let (mut handles, mut exit) = (Vec::new(), Exit::Done);
    for found in found {
        match found {
            Ok(handle) => handles.push(handle),
            Err(error) if exit_of(&error) == Exit::Failed => {
                complain(&error.to_string());
                exit = Exit::Failed;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(exit.and(wait::ends(&handles, args.timeout, args.json).await?))
}

fn not_cancelled(status: Status) -> &'static str {
    match status {
        Status::Running => "use `jobs abort` to stop it",
        _ => "only a job that has not started can be cancelled",
    }
}

fn not_aborted(status: Status) -> &'static str {
    if status.is_terminal() {
        "the job ended before it could be stopped"
    } else {
        "the job was told to stop, and has not ended in time"
    }
}

fn not_retried(_status: Status) -> &'static str {
    "only a job that failed, expired or was cancelled can be rerun"
}

fn not_removed(status: Status) -> &'static str {
    match status {
        Status::Running => "stop it with `jobs abort` first",
        _ => "the job changed state meanwhile, try again",
    }
}
