//! What is known of a job, for people.

use super::{human, print_line};
use crate::codec::to_json;
use crate::store::{AttemptError, JobRecord};
use crate::time::Timestamp;

/// Prints one value per line, without those that are not there.
pub(super) fn print(record: &JobRecord) {
    for (name, value) in head(record).into_iter().chain(times(record)).chain(end(record)) {
        if let Some(value) = value {
            line(name, &value);
        }
    }
    for cause in record.error.iter().flat_map(|error| &error.chain) {
        line("  caused by", cause);
    }
    for failure in &record.errors {
        line("failure", &failed(failure));
    }
    for written in &record.logs {
        line("log", &format!("{}  {}", written.at, written.line));
    }
}

type Line = (&'static str, Option<String>);

fn head(record: &JobRecord) -> Vec<Line> {
    let labels = Some(&record.labels).filter(|labels| !labels.is_empty());
    vec![
        ("id", Some(record.id.to_string())),
        ("task", Some(record.task.clone())),
        ("queue", Some(record.queue.clone())),
        ("status", Some(record.status.to_string())),
        ("reason", record.reason.map(|reason| reason.to_string())),
        ("dead letter", record.dead_lettered.then(|| "yes".to_owned())),
        ("attempt", Some(format!("{} of {}", record.attempt, u64::from(record.max_retries) + 1))),
        ("priority", Some(to_json(&record.priority))),
        ("args", record.arguments.as_ref().map(|arguments| arguments.to_json())),
        ("labels", labels.map(to_json)),
    ]
}

fn times(record: &JobRecord) -> Vec<Line> {
    let time = |time: Option<Timestamp>| time.map(|time| format!("{time}  ({})", human::when(time)));
    let took = Some(record.execution_time).filter(|took| !took.is_zero());
    vec![
        ("kicked at", time(record.kicked_at)),
        ("due at", time(record.run_at)),
        ("started at", time(record.started_at)),
        ("finished at", time(record.finished_at)),
        ("took", took.map(|took| format!("{took:.3?}"))),
        ("worker", record.worker_id.clone()),
    ]
}

fn end(record: &JobRecord) -> Vec<Line> {
    vec![
        ("progress", record.progress.as_ref().map(human::progress)),
        ("result", record.result.as_ref().map(|result| result.to_json())),
        ("error", record.error.as_ref().map(|error| format!("{}: {error}", error.exc_type))),
    ]
}

/// An attempt that failed, in one line.
fn failed(failure: &AttemptError) -> String {
    let AttemptError { attempt, at, worker_id, error, .. } = failure;
    let place = worker_id.as_ref().map(|id| format!(" on {id}")).unwrap_or_default();
    format!("attempt {attempt}, {at}{place}: {}", human::error(error))
}

fn line(name: &str, value: &str) {
    print_line(&format!("{name:<12} {}", human::tame(value)));
}
