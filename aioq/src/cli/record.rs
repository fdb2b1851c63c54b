//! The record of a job, for people.

use serde::Serialize;

use super::family::Relatives;
use super::human;
use super::out::print_line;
use crate::codec::to_json;
use crate::store::{AttemptError, JobRecord};
use crate::time::Timestamp;

/// A record with the jobs around it, as one object.
#[derive(Serialize)]
pub(super) struct WithRelatives<'a> {
    #[serde(flatten)]
    pub(super) record: &'a JobRecord,
    #[serde(flatten)]
    pub(super) relatives: &'a Relatives,
}

/// Prints one value per line. Leaves out absent values.
pub(super) fn print(record: &JobRecord, relatives: &Relatives) {
    for line in lines(record, relatives) {
        print_line(&line);
    }
}

fn lines(record: &JobRecord, relatives: &Relatives) -> Vec<String> {
    let around = [("after", relatives.parents()), ("before", relatives.children())];
    let values = head(record).into_iter().chain(around).chain(times(record)).chain(end(record));
    let mut lines: Vec<String> =
        values.filter_map(|(name, value)| value.map(|value| line(name, &value))).collect();
    lines.extend(record.errors.iter().map(|failure| line("failure", &failed(failure))));
    lines.extend(record.logs.iter().map(|log| line("log", &format!("{}  {}", log.at, log.line))));
    lines
}

type Line = (&'static str, Option<String>);

fn head(record: &JobRecord) -> Vec<Line> {
    let labels = Some(&record.labels).filter(|labels| !labels.is_empty());
    vec![
        ("id", Some(record.id.to_string())),
        ("task", Some(record.task.to_string())),
        ("queue", Some(record.queue.to_string())),
        ("status", Some(record.status.to_string())),
        ("reason", record.reason.map(|reason| reason.to_string())),
        ("dead letter", record.dead_lettered.then(|| "yes".to_owned())),
        ("attempt", Some(format!("{} of {}", record.attempt, u64::from(record.max_retries) + 1))),
        ("priority", Some(to_json(&record.priority))),
        ("args", record.arguments.as_ref().map(|arguments| arguments.to_json())),
        ("labels", labels.map(to_json)),
        ("unique key", record.unique_key.as_ref().map(ToString::to_string)),
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
        ("worker", record.worker_id.clone().map(String::from)),
    ]
}

fn end(record: &JobRecord) -> Vec<Line> {
    vec![
        ("progress", record.progress.as_deref().map(human::progress)),
        ("result", record.result.as_ref().map(|result| result.to_json())),
        ("error", record.error.as_deref().map(human::error)),
    ]
}

/// Failed attempt in one line.
fn failed(failure: &AttemptError) -> String {
    let AttemptError { attempt, at, worker_id, error, .. } = failure;
    let place = worker_id.as_ref().map(|id| format!(" on {id}")).unwrap_or_default();
    format!("attempt {attempt}, {at}{place}: {}", human::error(error))
}

fn line(name: &str, value: &str) -> String {
    format!("{name:<12} {value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{JobError, Reason};
    use crate::store::{LogLine, Progress, Status};

    #[test]
    fn progress_log_and_history_are_shown() {
        let at = Timestamp::from_micros(1_772_366_400_000_000);
        let mut record = JobRecord::unreadable("a".into(), "mail", Status::Retrying);
        record.max_retries = 2;
        record.progress = Some(Box::new(Progress { done: 1, total: 3, note: Some("one".to_owned()) }));
        JobRecord::push_log(&mut record.logs, LogLine { at, line: "read\nthis".to_owned() });
        let mut error = JobError::new("Failure", "no luck");
        error.chain.push("no coin".to_owned());
        let failure =
            AttemptError { attempt: 1, at, worker_id: Some("w".into()), reason: Reason::Error, error };
        record.push_error(failure);

        let lines = lines(&record, &Relatives::default());
        for expected in [
            "id           a",
            "queue        mail",
            "status       retrying",
            "attempt      1 of 3",
            "progress     1/3 one",
            "failure      attempt 1, 2026-03-01T12:00:00Z on w: Failure: no luck: no coin",
            "log          2026-03-01T12:00:00Z  read\nthis",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
        }
        assert!(!lines.iter().any(|line| line.starts_with("result")), "{lines:#?}");
    }
}
