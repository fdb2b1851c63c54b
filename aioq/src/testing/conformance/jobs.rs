//! Guarantees of a [`JobStore`].

mod list;
mod put;
mod remove;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::list::*;
pub use self::put::*;
pub use self::remove::*;
pub use self::watch::*;
use super::kit::{ok, refused};
use crate::backend::Backend;
use crate::codec::{Arguments, Codec};
use crate::error::{ErrorKind, JobError, Reason};
use crate::message::{Label, Priority};
use crate::store::{AttemptError, Expect, JobRecord, JobStore, Page, Progress, RecordFilter, Status, Stored};
use crate::time::Timestamp;

fn store(backend: &Backend) -> Arc<dyn JobStore> {
    backend.jobs().expect("these cases are for a backend that remembers jobs").clone()
}

fn record(id: &str, status: Status) -> JobRecord {
    JobRecord::unreadable(id.into(), "q", status)
}

/// The record of a failed job, with a value in each field.
fn full(id: &str) -> JobRecord {
    let mut error = JobError::new("SendError", "the mailbox is full");
    error.chain = vec!["over quota".to_owned(), "disk full".to_owned()];
    let time = |seconds: i64| Some(Timestamp::from_micros(1_772_366_400_000_000 + seconds * 1_000_000));
    let arguments = Arguments::from_json(Codec::MessagePack, r#"{"to":"ann@example.org","n":3}"#);
    let failure = |attempt| AttemptError {
        attempt,
        at: Timestamp::from_micros(1_772_366_400_123_456),
        worker_id: Some("w-1".into()),
        reason: Reason::Timeout,
        error: error.clone(),
    };
    let mut record = record(id, Status::Failed);
    record.task = "email.send".into();
    record.arguments = Some(ok(arguments, "arguments"));
    record.labels.insert("team".to_owned(), Label::from("growth"));
    record.labels.insert("cost".to_owned(), Label::from(7));
    record.priority = ok(Priority::new(2), "a priority");
    record.attempt = 3;
    record.max_retries = 5;
    record.kicked_at = time(0);
    record.run_at = time(10);
    record.started_at = time(20);
    record.finished_at = time(21);
    record.execution_time = Duration::from_millis(1500);
    record.worker_id = Some("w-2".into());
    record.error = Some(Box::new(error.clone()));
    record.reason = Some(Reason::Error);
    record.errors = vec![failure(1), failure(2)];
    record.progress = Some(Box::new(Progress { done: 3, total: 10, note: Some("thinking".to_owned()) }));
    record.depends_on = vec!["parent-1".into(), "parent-2".into()];
    record.dead_lettered = true;
    record.starts = 2;
    record.message = Some(Bytes::from_static(b"\x81sealed"));
    record
}

/// The record of a completed job, which alone has a result.
fn completed(id: &str) -> JobRecord {
    let result = ok(Codec::MessagePack.encode(&("done", 42)), "a result");
    JobRecord { result: Some(result), ..record(id, Status::Completed) }
}

/// The record of a job of that queue.
fn record_in(queue: &str, id: &str, status: Status) -> JobRecord {
    JobRecord::unreadable(id.into(), queue, status)
}

async fn get(backend: &Backend, id: &str) -> Option<Stored> {
    ok(store(backend).get(&id.into()).await, "get")
}

async fn put(backend: &Backend, record: JobRecord, expect: Expect) -> u64 {
    ok(store(backend).put(Arc::new(record), expect, None).await, "put")
}

async fn put_for(backend: &Backend, record: JobRecord, expect: Expect, ttl: Duration) -> u64 {
    ok(store(backend).put(Arc::new(record), expect, Some(ttl)).await, "put")
}

/// Puts a record, and returns it as stored.
async fn stored(backend: &Backend, record: JobRecord) -> Stored {
    let revision = put(backend, record.clone(), Expect::Any).await;
    Stored::new(record, revision)
}

async fn conflicts(backend: &Backend, record: JobRecord, expect: Expect) {
    let written = store(backend).put(Arc::new(record), expect, None).await;
    let kind = refused(written, "a write that expects too much");
    assert_eq!(kind, ErrorKind::Conflict, "{expect:?}");
}

/// Removes records. Returns true for each that was removed.
async fn remove(backend: &Backend, records: &[Stored]) -> Vec<bool> {
    let fates = store(backend).remove(records).await;
    fates.into_iter().map(|fate| ok(fate, "remove")).collect()
}

/// The records that a filter selects.
async fn list(backend: &Backend, filter: &RecordFilter, page: Page) -> Vec<Stored> {
    let rows = ok(store(backend).list(filter, page).await, "list");
    assert!(rows.len() <= page.limit, "a page of {} rows, not {}", rows.len(), page.limit);
    rows
}

/// The ids of the selected records as one page, newest first.
async fn listed(backend: &Backend, filter: RecordFilter) -> Vec<String> {
    ids(&list(backend, &filter, Page::newest(1000)).await)
}

fn ids(rows: &[Stored]) -> Vec<String> {
    rows.iter().map(|row| row.record.id.as_str().to_owned()).collect()
}
