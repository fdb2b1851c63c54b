//! `check`: whether this program could work.

use clap::Args;

use super::{Exit, eprint_line, print_line};
use crate::app::App;
use crate::error::{BoxError, ErrorKind};

#[derive(Args)]
pub(super) struct CheckArgs {}

pub(super) async fn run(app: App, _args: CheckArgs) -> Result<Exit, BoxError> {
    let registry = match app.registry() {
        Ok(registry) => registry,
        Err(error) => return Ok(wrong("tasks", &error)),
    };
    print_line(&format!("ok   tasks: {} registered, no name twice", registry.len()));
    let client = match app.client().await {
        Ok(client) => client,
        Err(error) => return Ok(wrong("backend", &error)),
    };
    let info = client.backend().broker().info();
    print_line(&format!("ok   backend: {} at {}, reached and fit for use", info.name, info.address));
    match app.worker().await {
        Ok(worker) => {
            print_line(&format!(
                "ok   state: every task has what it needs; queues: {}",
                worker.queues().join(", ")
            ));
        }
        Err(error) => return Ok(wrong("state", &error)),
    }
    client.shutdown().await?;
    Ok(Exit::Done)
}

fn wrong(part: &str, error: &crate::Error) -> Exit {
    print_line(&format!("BAD  {part}: {error}"));
    eprint_line(&format!("error: {error}"));
    match error.kind() {
        ErrorKind::Connection | ErrorKind::Deadline => Exit::Usage,
        _ => Exit::Failed,
    }
}
