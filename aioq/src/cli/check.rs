//! The command `check`: tests if this program can work.

use std::collections::BTreeMap;

use clap::Args;

use super::out::{complain, print_line};
use crate::app::{App, Exit};
use crate::broker::{Page, QueuedFilter};
use crate::client::Client;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::message::Message;
use crate::registry::Registry;
use crate::text;

#[derive(Args)]
pub(super) struct CheckArgs {}

pub(super) async fn run(app: App, _args: CheckArgs) -> Result<Exit, BoxError> {
    let registry = match app.registry() {
        Ok(registry) => registry,
        Err(error) => return Ok(report_failure("tasks", &error)),
    };
    print_line(&format!("ok   tasks: {} registered, each name once", registry.len()));
    let client = match app.client().await {
        Ok(client) => client,
        Err(error) => return Ok(report_failure("backend", &error)),
    };
    let info = client.backend().broker().info();
    print_line(&format!("ok   backend: {} at {} is reachable and fit for use", info.name, info.address));
    let queues = match app.worker().await {
        Ok(worker) => {
            print_line(&format!(
                "ok   state: each task of the worker's queues has its states; queues: {}",
                worker.queues().join(", ")
            ));
            worker.queues().to_vec()
        }
        Err(error) => return Ok(report_failure("state", &error)),
    };
    let unknown = unknown_tasks(&client, &registry, &queues).await?;
    if let Some(text) = unknown_tasks_warning(&unknown) {
        let error = Error::new(ErrorKind::UnknownTask, text);
        client.shutdown().await?;
        return Ok(report_failure("queue", &error));
    }
    print_line(&format!(
        "ok   queue: this program knows the tasks of the {LOOKED_AT} oldest and newest jobs of each queue"
    ));
    client.shutdown().await?;
    Ok(Exit::Done)
}

fn report_failure(part: &str, error: &crate::Error) -> Exit {
    print_line(&format!("BAD  {part}: {error}"));
    complain(&error.to_string());
    match error.kind() {
        ErrorKind::Connection | ErrorKind::Deadline => Exit::Usage,
        _ => Exit::Failed,
    }
}

/// Number of messages to read from each end of a queue.
const LOOKED_AT: usize = 500;

/// Unknown tasks of the jobs that wait in these queues, with the number of their jobs. Reads the
/// oldest and the newest messages of each queue only.
pub(super) async fn unknown_tasks(
    client: &Client,
    registry: &Registry,
    queues: &[String],
) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for queue in queues {
        let filter = QueuedFilter::new().queue(queue);
        let broker = client.backend().broker();
        let mut messages = broker.list(&filter, Page::oldest(LOOKED_AT)).await?;
        if let Some(last) = messages.last().map(|last| last.position).filter(|_| messages.len() == LOOKED_AT)
        {
            let newest = broker.list(&filter, Page::newest(LOOKED_AT)).await?;
            messages.extend(newest.into_iter().filter(|queued| queued.position > last));
        }
        for message in messages.iter().filter_map(|queued| Message::open(&queued.body).ok()) {
            if registry.find(&message.task).is_none() {
                *found.entry(message.task.to_string()).or_default() += 1;
            }
        }
    }
    Ok(found)
}

/// Warning about tasks that this program does not know, if there are any.
pub(super) fn unknown_tasks_warning(unknown: &BTreeMap<String, u64>) -> Option<String> {
    let names = unknown.iter().map(|(name, count)| format!("`{name}` ({})", text::count(*count, "job")));
    let names: Vec<String> = names.collect();
    let text = "jobs of unknown tasks wait in the queues of this program, and will fail here";
    let advice = "link the crate that has these tasks, as in `use my_tasks as _;`, or leave the queue to other programs";
    (!names.is_empty()).then(|| format!("{text}: {}; {advice}", names.join(", ")))
}
