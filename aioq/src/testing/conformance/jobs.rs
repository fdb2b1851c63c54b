//! The promises of a [`JobStore`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::Instant;

use super::kit::{ODD_NAMES, at_once, gone_after, ok, refused, soon};
use crate::backend::Backend;
use crate::codec::{Arguments, Codec};
use crate::error::{ErrorKind, JobError, Reason};
use crate::message::{JobId, Label, Priority};
use crate::store::{AttemptError, Expect, JobRecord, JobStore, Progress, Status, Stored, Watched};
use crate::time::Timestamp;

fn store(backend: &Backend) -> Arc<dyn JobStore> {
    backend.jobs().expect("these cases are for a backend that remembers jobs").clone()
}

fn record(id: &str, status: Status) -> JobRecord {
    JobRecord::unreadable(id.into(), "q", status)
}

/// The record of a failed job, with something in each field.
fn full(id: &str) -> JobRecord {
    let mut error = JobError::new("SendError", "the mailbox is full");
    error.chain = vec!["over quota".to_owned(), "disk full".to_owned()];
    let time = |seconds: i64| Some(Timestamp::from_micros(1_772_366_400_000_000 + seconds * 1_000_000));
    let arguments = Arguments::from_json(Codec::MessagePack, r#"{"to":"ann@example.org","n":3}"#);
    let failure = |attempt| AttemptError {
        attempt,
        at: Timestamp::from_micros(1_772_366_400_123_456),
        worker_id: Some("w-1".to_owned()),
        reason: Reason::Timeout,
        error: error.clone(),
    };
    let mut record = record(id, Status::Failed);
    record.task = "email.send".to_owned();
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
    record.worker_id = Some("w-2".to_owned());
    record.error = Some(error.clone());
    record.reason = Some(Reason::Error);
    record.errors = vec![failure(1), failure(2)];
    record.progress = Some(Progress { done: 3, total: 10, note: Some("thinking".to_owned()) });
    record.depends_on = vec!["parent-1".into(), "parent-2".into()];
    record.dead_lettered = true;
    record.starts = 2;
    record.message = Some(Bytes::from_static(b"\x81sealed"));
    record
}

/// The record of a job that returned something: only a completed one has a result.
fn completed(id: &str) -> JobRecord {
    let result = ok(Codec::MessagePack.encode(&("done", 42)), "a result");
    JobRecord { result: Some(result), ..record(id, Status::Completed) }
}

async fn get(backend: &Backend, id: &str) -> Option<Stored> {
    ok(store(backend).get(&id.into()).await, "get")
}

async fn put(backend: &Backend, record: JobRecord, expect: Expect) -> u64 {
    ok(store(backend).put(record, expect, None).await, "put")
}

async fn conflicts(backend: &Backend, record: JobRecord, expect: Expect) {
    let kind = refused(store(backend).put(record, expect, None).await, "a write that expects too much");
    assert_eq!(kind, ErrorKind::Conflict, "{expect:?}");
}

async fn watch(backend: &Backend, watched: Watched) -> BoxStream<'static, JobRecord> {
    ok(store(backend).watch(watched).await, "watch")
}

async fn seen(watch: &mut BoxStream<'static, JobRecord>) -> JobRecord {
    soon("a record to be seen", watch.next()).await.expect("the watch goes on")
}

/// Every field of a record comes back, with the revision that its write returned.
pub async fn a_record_comes_back_as_it_was_put(backend: &Backend) {
    for record in [full("failed"), completed("completed"), record("bare", Status::Running)] {
        let revision = put(backend, record.clone(), Expect::Absent).await;
        let stored = get(backend, record.id.as_str()).await.expect("it was put");
        assert_eq!(stored.record, record);
        assert_eq!(stored.revision, revision);
    }
}

/// A job that nothing was put for has no record.
pub async fn an_unknown_job_has_no_record(backend: &Backend) {
    put(backend, record("1", Status::Completed), Expect::Any).await;
    for id in ["2", "11", "", "q", "*"] {
        assert!(get(backend, id).await.is_none(), "`{id}` was not put");
    }
}

/// `Expect::Absent` refuses a second record of an id, whatever the status of the first.
pub async fn an_existing_record_is_not_absent(backend: &Backend) {
    put(backend, record("1", Status::Running), Expect::Absent).await;
    for status in [Status::Running, Status::Completed] {
        conflicts(backend, record("1", status), Expect::Absent).await;
    }
    put(backend, record("2", Status::Running), Expect::Absent).await;
}

/// `Expect::Revision` wants the newest revision, neither an older one, nor that of another job, nor one of
/// nothing.
pub async fn a_write_needs_the_newest_revision(backend: &Backend) {
    let first = put(backend, record("1", Status::Running), Expect::Absent).await;
    let other = put(backend, record("2", Status::Running), Expect::Absent).await;
    let second = put(backend, record("1", Status::Retrying), Expect::Revision(first)).await;
    for stale in [first, other, second + 1000] {
        conflicts(backend, record("1", Status::Completed), Expect::Revision(stale)).await;
    }
    conflicts(backend, record("3", Status::Completed), Expect::Revision(second)).await;
    put(backend, record("1", Status::Completed), Expect::Revision(second)).await;
}

/// After a refused write the record and its revision are what they were.
pub async fn a_refused_write_changes_nothing(backend: &Backend) {
    let revision = put(backend, full("1"), Expect::Absent).await;
    for expect in [Expect::Absent, Expect::Revision(revision + 7)] {
        conflicts(backend, record("1", Status::Completed), expect).await;
        let stored = get(backend, "1").await.expect("it was put");
        assert_eq!((stored.record, stored.revision), (full("1"), revision));
    }
    conflicts(backend, record("2", Status::Completed), Expect::Revision(revision)).await;
    assert!(get(backend, "2").await.is_none(), "it was refused");
}

/// Each write of a record has a greater revision than those before, also after a removal.
pub async fn revisions_grow(backend: &Backend) {
    let mut last = 0;
    for round in 0..3 {
        for expect in [Expect::Absent, Expect::Any, Expect::Revision(0)] {
            let expect = if expect == Expect::Revision(0) { Expect::Revision(last) } else { expect };
            let revision = put(backend, record("1", Status::Running), expect).await;
            assert!(revision > last, "round {round}: {revision} after {last}");
            last = revision;
        }
        assert!(ok(store(backend).remove(&"1".into()).await, "remove"));
        conflicts(backend, record("1", Status::Running), Expect::Revision(last)).await;
    }
}

/// However often the status changes, there is one record of an id: the newest. Conditions hold over all
/// statuses.
pub async fn a_change_of_status_leaves_one_record(backend: &Backend) {
    let mut revision = put(backend, record("1", Status::Scheduled), Expect::Absent).await;
    for status in [Status::Running, Status::Retrying, Status::Running, Status::Completed, Status::Pending] {
        revision = put(backend, record("1", status), Expect::Revision(revision)).await;
        let stored = get(backend, "1").await.expect("it was put");
        assert_eq!((stored.record.status, stored.revision), (status, revision));
        conflicts(backend, record("1", Status::Scheduled), Expect::Absent).await;
    }
    assert!(ok(store(backend).remove(&"1".into()).await, "remove"));
    assert!(get(backend, "1").await.is_none(), "no earlier status shows up");
}

/// `remove` says whether there was a record; after it there is none.
pub async fn a_removed_record_is_gone(backend: &Backend) {
    put(backend, record("1", Status::Completed), Expect::Absent).await;
    put(backend, record("2", Status::Completed), Expect::Absent).await;
    let remove = async |id: &str| ok(store(backend).remove(&id.into()).await, "remove");
    assert!(remove("1").await, "there was one");
    assert!(get(backend, "1").await.is_none());
    assert!(!remove("1").await, "there was none any more");
    assert!(!remove("never").await, "there never was one");
    assert!(get(backend, "2").await.is_some(), "another record stays");
    put(backend, record("1", Status::Completed), Expect::Absent).await;
}

/// A record with a TTL of a second is there for that long; then the id is absent.
pub async fn a_record_vanishes_after_its_ttl(backend: &Backend) {
    const TTL: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let put_short = store(backend).put(record("short", Status::Completed), Expect::Absent, Some(TTL)).await;
    let revision = ok(put_short, "put");
    let long = Some(Duration::from_secs(3600));
    ok(store(backend).put(record("long", Status::Completed), Expect::Absent, long).await, "put");
    gone_after(start, TTL, "the record to vanish", async || get(backend, "short").await.is_none()).await;
    assert!(get(backend, "long").await.is_some(), "the other one has an hour");
    conflicts(backend, record("short", Status::Completed), Expect::Revision(revision)).await;
    let again = put(backend, record("short", Status::Completed), Expect::Absent).await;
    assert!(again > revision, "{again} after {revision}");
}

/// Each write sets the TTL anew, or none.
pub async fn a_later_write_decides_about_the_ttl(backend: &Backend) {
    const TTL: Duration = Duration::from_secs(1);
    let put = async |id: &str, status, ttl| {
        ok(store(backend).put(record(id, status), Expect::Any, ttl).await, "put");
    };
    put("kept", Status::Running, Some(TTL)).await;
    put("kept", Status::Completed, None).await;
    put("short", Status::Running, None).await;
    let start = Instant::now();
    put("short", Status::Completed, Some(2 * TTL)).await;
    gone_after(start, 2 * TTL, "the record to vanish", async || get(backend, "short").await.is_none()).await;
    assert!(get(backend, "kept").await.is_some(), "the last write set no TTL");
}

/// Of several writers that expect `Absent` at once, exactly one wins, and its record stays.
pub async fn of_racing_writers_of_a_new_record_one_wins(backend: &Backend) {
    for race in 0..200 {
        one_wins(backend, &format!("race-{race}"), Expect::Absent).await;
    }
}

/// Of several writers that saw the same revision, exactly one wins, and its record stays.
pub async fn of_racing_writers_over_a_record_one_wins(backend: &Backend) {
    for race in 0..200 {
        let id = format!("race-{race}");
        let revision = put(backend, record(&id, Status::Running), Expect::Absent).await;
        one_wins(backend, &id, Expect::Revision(revision)).await;
    }
}

async fn one_wins(backend: &Backend, id: &str, expect: Expect) {
    let writers = [Status::Running, Status::Retrying, Status::Completed, Status::Failed].map(|status| {
        let (store, record) = (store(backend), record(id, status));
        async move { (status, store.put(record, expect, None).await) }
    });
    let mut won = Vec::new();
    for (status, written) in at_once(writers).await {
        match written {
            Ok(revision) => won.push((status, revision)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
    let stored = get(backend, id).await.expect("somebody won");
    assert_eq!(won, [(stored.record.status, stored.revision)], "one writer wins");
}

/// A watcher of a job sees each record of it that is put after `watch` returned, in order, and no other's.
pub async fn a_watcher_sees_the_records_of_its_job(backend: &Backend) {
    put(backend, record("1", Status::Pending), Expect::Any).await;
    let watched = Watched::Job { id: "1".into(), queue: "q".to_owned() };
    let mut watch = watch(backend, watched).await;
    let statuses = [Status::Running, Status::Retrying, Status::Running, Status::Completed];
    for status in statuses {
        put(backend, record("2", status), Expect::Any).await;
        put(backend, record("1", status), Expect::Any).await;
    }
    for status in statuses {
        let record = seen(&mut watch).await;
        assert_eq!((record.id.as_str(), record.status), ("1", status));
    }
    put(backend, full("1"), Expect::Any).await;
    assert_eq!(seen(&mut watch).await, full("1"));
}

/// A watcher of all jobs sees each record that is put after `watch` returned, those of one job in order. Two
/// watchers see the same.
pub async fn a_watcher_of_all_sees_all(backend: &Backend) {
    put(backend, record("before", Status::Completed), Expect::Any).await;
    let mut watches = [watch(backend, Watched::All).await, watch(backend, Watched::All).await];
    let gone = watch(backend, Watched::All).await;
    drop(gone);
    for index in 0..50 {
        for status in [Status::Running, Status::Completed] {
            put(backend, record(&format!("job-{index}"), status), Expect::Any).await;
        }
    }
    for watch in &mut watches {
        for index in 0..50 {
            for status in [Status::Running, Status::Completed] {
                let record = seen(watch).await;
                assert_eq!((record.id.as_str(), record.status), (&*format!("job-{index}"), status));
            }
        }
    }
}

/// What was refused is not seen, by no watcher.
pub async fn a_watcher_never_sees_a_refused_write(backend: &Backend) {
    put(backend, record("1", Status::Running), Expect::Any).await;
    let one = Watched::Job { id: "1".into(), queue: "q".to_owned() };
    let mut watches = [watch(backend, one).await, watch(backend, Watched::All).await];
    for expect in [Expect::Absent, Expect::Revision(u64::MAX / 2)] {
        conflicts(backend, record("1", Status::Failed), expect).await;
    }
    put(backend, record("1", Status::Completed), Expect::Any).await;
    for watch in &mut watches {
        assert_eq!(seen(watch).await.status, Status::Completed, "the first that was not refused");
    }
}

/// Ids and queues with any characters have a record each.
pub async fn odd_ids_and_queues_are_kept_apart(backend: &Backend) {
    let odd = |index: usize, name: &str| {
        JobRecord::unreadable(name.into(), ODD_NAMES[ODD_NAMES.len() - 1 - index], Status::Running)
    };
    let mut watch = watch(backend, Watched::All).await;
    for (index, name) in ODD_NAMES.into_iter().enumerate() {
        put(backend, odd(index, name), Expect::Absent).await;
        assert_eq!(seen(&mut watch).await, odd(index, name));
    }
    for (index, name) in ODD_NAMES.into_iter().enumerate() {
        let stored = get(backend, name).await.expect("it was put");
        assert_eq!(stored.record, odd(index, name));
        assert!(ok(store(backend).remove(&JobId::from(name)).await, "remove"));
        assert!(get(backend, name).await.is_none());
    }
}
