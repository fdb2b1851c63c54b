//! `check`: whether this program could work.

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
        Err(error) => return Ok(wrong("tasks", &error)),
    };
    print_line(&format!("ok   tasks: {} registered, no name twice", registry.len()));
    let client = match app.client().await {
        Ok(client) => client,
        Err(error) => return Ok(wrong("backend", &error)),
    };
    let info = client.backend().broker().info();
    print_line(&format!("ok   backend: {} at {}, reached and fit for use", info.name, info.address));
    let queues = match app.worker().await {
        Ok(worker) => {
            print_line(&format!(
                "ok   state: every task has what it needs; queues: {}",
                worker.queues().join(", ")
            ));
            worker.queues().to_vec()
        }
        Err(error) => return Ok(wrong("state", &error)),
    };
    let strangers = strangers(&client, &registry, &queues).await?;
    if let Some(text) = tell_of(&strangers) {
        let error = Error::new(ErrorKind::UnknownTask, text);
        client.shutdown().await?;
        return Ok(wrong("queue", &error));
    }
    print_line("ok   queue: no job waits whose task is not known here");
    client.shutdown().await?;
    Ok(Exit::Done)
}

fn wrong(part: &str, error: &crate::Error) -> Exit {
    print_line(&format!("BAD  {part}: {error}"));
    complain(&error.to_string());
    match error.kind() {
        ErrorKind::Connection | ErrorKind::Deadline => Exit::Usage,
        _ => Exit::Failed,
    }
}

/// How many messages to look at, from each end of a queue.
const LOOKED_AT: usize = 500;

/// The names of tasks that wait in these queues and that nobody here knows, with the number of
/// their jobs, as far as the oldest and the newest messages tell.
pub(super) async fn strangers(
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

/// What is to be said of tasks that are not known here.
pub(super) fn tell_of(strangers: &BTreeMap<String, u64>) -> Option<String> {
    let names = strangers.iter().map(|(name, count)| format!("`{name}` ({})", text::count(*count, "job")));
    let names: Vec<String> = names.collect();
    let text = "jobs wait in the queues of this program whose tasks it does not know, and will fail here";
    let advice =
        "link the crate that has them, as in `use my_tasks as _;`, or leave the queue to other programs";
    (!names.is_empty()).then(|| format!("{text}: {}; {advice}", names.join(", ")))
}
