//! Fills a queue for workers elsewhere: to watch or to profile one that does nothing but run jobs.

use aioq::clap::Args;
use aioq::{App, BoxError, Exit, Result};

use crate::jobs::kick_all;

#[derive(Args)]
pub(crate) struct SeedArgs {
    /// Jobs to kick
    #[arg(long, value_name = "N", default_value_t = 30_000)]
    jobs: usize,
}

pub(crate) async fn run(args: SeedArgs, app: App) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    if client.backend().broker().info().in_process {
        return Err("nobody could take these jobs from the memory of this process: name a server".into());
    }
    kick_all(&client, args.jobs).await?;
    client.shutdown().await?;
    eprintln!("kicked {} jobs to the queue `bench`; this program's `worker` runs them", args.jobs);
    Ok(Exit::Done)
}
