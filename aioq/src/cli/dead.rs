//! The command `dead`: lists, replays and drops dead letters.

use clap::{ArgGroup, Args};

use super::listing::{self, ListArgs};
use super::many;
use super::progress::during;
use super::queues::{parse_queue, warn_of_strange};
use crate::app::{App, Exit};
use crate::client::Client;
use crate::dead_letters::DeadLetters;
use crate::error::{BoxError, Result};
use crate::jobs::JobFilter;
use crate::store::Status;

#[derive(clap::Subcommand)]
pub(super) enum DeadCommand {
    /// List the dead letters, the latest first
    List(ListArgs),
    /// Replay dead letters on the queue that they came from
    Replay(DeadArgs),
    /// Drop dead letters for good
    Drop(DeadArgs),
}

/// Selection of dead letters: by id, or all of a queue or a task.
#[derive(Args)]
#[command(group = ArgGroup::new("which").required(true))]
pub(super) struct DeadArgs {
    /// The ids of the jobs
    #[arg(group = "which", value_name = "ID")]
    ids: Vec<String>,
    /// All dead letters, or all of a queue or a task
    #[arg(long, group = "which")]
    all: bool,
    /// With --all: only dead letters of this queue
    #[arg(long, requires = "all", value_parser = parse_queue)]
    queue: Option<String>,
    /// With --all: only dead letters of this task
    #[arg(long, requires = "all")]
    task: Option<String>,
}

impl DeadArgs {
    fn filter(&self) -> JobFilter {
        listing::by_name(self.queue.as_deref(), self.task.as_deref())
    }
}

pub(super) async fn run(app: &App, command: DeadCommand) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let dead = client.dead_letters();
    let exit = match command {
        DeadCommand::List(args) => {
            let list = async |filter, page| dead.list(filter, page).await;
            listing::run(app, &client, args, "no dead letters", list).await
        }
        DeadCommand::Replay(args) => replay(app, &client, &dead, args).await,
        DeadCommand::Drop(args) => drop_them(app, &client, &dead, args).await,
    };
    client.shutdown().await?;
    Ok(exit?)
}

async fn replay(app: &App, client: &Client, dead: &DeadLetters, args: DeadArgs) -> Result<Exit> {
    if args.all {
        warn_of_strange(app, client, args.queue.as_deref()).await?;
        let replayed = during("replaying", dead.replay_all(args.filter())).await?;
        return Ok(many::report("replayed", replayed.done, "dead letter", &replayed));
    }
    let replay = async |id: &_| {
        // Refuses a job that is not a dead letter. A cancelled job, for one, could be rerun.
        dead.get(id).await?;
        dead.replay(id).await
    };
    many::each(client, args.ids, no_dead_letter, replay).await
}

async fn drop_them(app: &App, client: &Client, dead: &DeadLetters, args: DeadArgs) -> Result<Exit> {
    if args.all {
        warn_of_strange(app, client, args.queue.as_deref()).await?;
        let dropped = during("dropping", dead.drop_all(args.filter())).await?;
        return Ok(many::report("dropped", dropped.done, "dead letter", &dropped));
    }
    many::each(client, args.ids, no_dead_letter, async |id| dead.drop(id).await).await
}

fn no_dead_letter(_status: Status) -> &'static str {
    "it is not a dead letter"
}
