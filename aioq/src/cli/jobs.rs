//! `jobs`: what is known of jobs.

use super::{Exit, eprint_line, print_line};
use crate::app::App;
use crate::client::Client;
use crate::codec::to_json;
use crate::error::{BoxError, ErrorKind, Result};
use crate::message::JobId;
use crate::store::JobRecord;

#[derive(clap::Subcommand)]
pub(super) enum JobsCommand {
    /// Print what is known of one job
    Get {
        /// The id of the job
        id: String,
        /// Print an object
        #[arg(long)]
        json: bool,
    },
    /// Run jobs again that failed, expired or were cancelled
    Retry {
        /// The ids of the jobs
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

pub(super) async fn run(app: &App, command: JobsCommand) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let exit = match command {
        JobsCommand::Get { id, json } => get(&client, id, json).await,
        JobsCommand::Retry { ids } => retry(&client, ids).await,
    };
    client.shutdown().await?;
    Ok(exit?)
}

async fn get(client: &Client, id: String, json: bool) -> Result<Exit> {
    let record = client.jobs().get(&JobId::from(id)).await?;
    match json {
        true => print_line(&to_json(&record)),
        false => print_record(&record),
    }
    Ok(Exit::Done)
}

async fn retry(client: &Client, ids: Vec<String>) -> Result<Exit> {
    let mut exit = Exit::Done;
    for id in ids {
        let refused = match client.jobs().retry(&JobId::from(id.as_str())).await {
            Ok(true) => continue,
            Ok(false) => format!("job `{id}` is not run again: it has not failed, expired or been cancelled"),
            Err(error) if error.kind() == ErrorKind::NotFound => error.to_string(),
            Err(error) => return Err(error),
        };
        eprint_line(&format!("error: {refused}"));
        exit = Exit::Failed;
    }
    Ok(exit)
}

/// One value per line, without those that are not there.
fn print_record(record: &JobRecord) {
    let line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            print_line(&format!("{name:<12} {value}"));
        }
    };
    line("id", Some(record.id.to_string()));
    line("task", Some(record.task.clone()));
    line("queue", Some(record.queue.clone()));
    line("status", Some(record.status.to_string()));
    line("reason", record.reason.map(|reason| reason.to_string()));
    line("attempt", Some(format!("{} of {}", record.attempt, u64::from(record.max_retries) + 1)));
    line("args", record.arguments.as_ref().map(|arguments| arguments.to_json()));
    line("kicked at", record.kicked_at.map(|time| time.to_string()));
    line("due at", record.run_at.map(|time| time.to_string()));
    line("started at", record.started_at.map(|time| time.to_string()));
    line("finished at", record.finished_at.map(|time| time.to_string()));
    line("worker", record.worker_id.clone());
    line("result", record.result.as_ref().map(|result| result.to_json()));
    line("error", record.error.as_ref().map(|error| format!("{}: {error}", error.exc_type)));
    for cause in record.error.iter().flat_map(|error| &error.chain) {
        line("  caused by", Some(cause.clone()));
    }
}
