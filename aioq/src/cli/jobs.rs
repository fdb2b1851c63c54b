//! `jobs`: what is known of jobs.

use super::{Exit, print_line};
use crate::app::App;
use crate::codec::to_json;
use crate::error::BoxError;
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
}

pub(super) async fn run(app: &App, command: JobsCommand) -> Result<Exit, BoxError> {
    let JobsCommand::Get { id, json } = command;
    let client = app.client().await?;
    let record = client.jobs().get(&JobId::from(id)).await?;
    match json {
        true => print_line(&to_json(&record)),
        false => print_record(&record),
    }
    client.shutdown().await?;
    Ok(Exit::Done)
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
