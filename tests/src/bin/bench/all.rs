//! Everything, each part in a process of its own: none finds what another has left in the memory.

use std::process::Stdio;

use aioq::clap::Args;
use aioq::{App, BoxError, Exit};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::place::PlaceArgs;
use crate::report::Report;

#[derive(Args)]
pub(crate) struct AllArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Runs of each work, of which the medians are told
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Leave the ladder out, which takes some minutes
    #[arg(long)]
    no_ladder: bool,
}

pub(crate) async fn run(args: AllArgs, _app: App) -> Result<Exit, BoxError> {
    let places = args.places.places().await?;
    let runs = args.runs.to_string();
    let mut report = Report::default();
    for place in &places {
        let mut child = program(&["bench", "all", "--json", "--runs", &runs], &place.options());
        let mut child = child.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("standard output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            report.add_json(&line)?;
        }
        succeeded(child.wait().await?)?;
    }
    report.tables();
    for place in &places {
        for command in ["look", "grow", "many-queues", "unique", "flow", "delays", "ticks", "cpu"] {
            succeeded(program(&[command], &place.options()).status().await?)?;
        }
    }
    succeeded(program(&["queued"], &[]).status().await?)?;
    if !args.no_ladder {
        succeeded(program(&["ladder"], &[]).status().await?)?;
    }
    Ok(Exit::Done)
}

fn program(args: &[&str], options: &[String]) -> Command {
    let own = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let mut command = Command::new(own);
    command.args(args).args(options).kill_on_drop(true);
    command
}

fn succeeded(status: std::process::ExitStatus) -> Result<(), BoxError> {
    if status.success() { Ok(()) } else { Err(format!("a part ended with {status}").into()) }
}
