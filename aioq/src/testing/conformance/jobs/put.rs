//! Conditional writes of records, and their TTL.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::{completed, conflicts, full, get, listed, put, put_for, record, record_in, remove, store};
use crate::backend::Backend;
use crate::error::ErrorKind;
use crate::store::{Expect, RecordCount, RecordFilter, Status, Watched};
use crate::testing::conformance::kit::{ODD_NAMES, at_once, gone_after, ok, soon, until};

/// Every field of a record comes back, with the revision that its write returned.
pub async fn a_record_comes_back_as_it_was_put(backend: &Backend) {
    for record in [full("failed"), completed("completed"), record("bare", Status::Running)] {
        let revision = put(backend, record.clone(), Expect::Absent).await;
        let stored = get(backend, record.id.as_str()).await.expect("it was put");
        assert_eq!(stored.record, record);
        assert_eq!(stored.revision, revision);
    }
}

/// A job without a put has no record.
pub async fn an_unknown_job_has_no_record(backend: &Backend) {
    put(backend, record("1", Status::Completed), Expect::Any).await;
    for id in ["2", "11", "", "q", "*"] {
        assert!(get(backend, id).await.is_none(), "`{id}` was not put");
    }
}

/// `Expect::Absent` refuses a second record of an id, with any status of the first.
pub async fn an_existing_record_is_not_absent(backend: &Backend) {
    put(backend, record("1", Status::Running), Expect::Absent).await;
    for status in [Status::Running, Status::Completed] {
        conflicts(backend, record("1", status), Expect::Absent).await;
    }
    put(backend, record("2", Status::Running), Expect::Absent).await;
}

/// `Expect::Revision` requires the newest revision of the id; an older one, the one of another job
/// and the one of an absent record are refused.
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

/// A refused write changes neither the record nor its revision.
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

/// Each write of a record has a greater revision than earlier ones, also after a removal.
pub async fn revisions_grow(backend: &Backend) {
    let mut last = 0;
    for round in 0..3 {
        for expect in [Expect::Absent, Expect::Any, Expect::Revision(0)] {
            let expect = if expect == Expect::Revision(0) { Expect::Revision(last) } else { expect };
            let revision = put(backend, record("1", Status::Running), expect).await;
            assert!(revision > last, "round {round}: {revision} after {last}");
            last = revision;
        }
        let newest = get(backend, "1").await.expect("it was put");
        assert_eq!(remove(backend, &[newest]).await, [true]);
        conflicts(backend, record("1", Status::Running), Expect::Revision(last)).await;
    }
}

/// An id has one record, the newest, through any number of status changes. Conditions hold across
/// statuses.
pub async fn a_change_of_status_leaves_one_record(backend: &Backend) {
    let mut revision = put(backend, record("1", Status::Scheduled), Expect::Absent).await;
    for status in [Status::Running, Status::Retrying, Status::Running, Status::Completed, Status::Pending] {
        revision = put(backend, record("1", status), Expect::Revision(revision)).await;
        let stored = get(backend, "1").await.expect("it was put");
        assert_eq!((stored.record.status, stored.revision), (status, revision));
        conflicts(backend, record("1", Status::Scheduled), Expect::Absent).await;
    }
    let newest = get(backend, "1").await.expect("it was put");
    assert_eq!(remove(backend, &[newest]).await, [true]);
    assert!(get(backend, "1").await.is_none(), "no earlier status shows up");
}

/// A record with a TTL of a second exists for that time and is absent afterwards.
pub async fn a_record_vanishes_after_its_ttl(backend: &Backend) {
    const TTL: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let revision = put_for(backend, record("short", Status::Completed), Expect::Absent, TTL).await;
    put_for(backend, record("long", Status::Completed), Expect::Absent, 3600 * TTL).await;
    gone_after(start, TTL, "the record to vanish", async || get(backend, "short").await.is_none()).await;
    assert!(get(backend, "long").await.is_some(), "the other one has an hour");
    conflicts(backend, record("short", Status::Completed), Expect::Revision(revision)).await;
    let again = put(backend, record("short", Status::Completed), Expect::Absent).await;
    assert!(again > revision, "{again} after {revision}");
}

/// Each write replaces the TTL, or removes it. A replaced record does not come back when the new
/// one expires, with any status: the removal of jobs relies on it.
pub async fn a_later_write_decides_about_the_ttl(backend: &Backend) {
    const TTL: Duration = Duration::from_secs(1);
    put_for(backend, record("kept", Status::Running), Expect::Any, TTL).await;
    put(backend, record("kept", Status::Completed), Expect::Any).await;
    let replaced = put(backend, record("short", Status::Completed), Expect::Any).await;
    let start = Instant::now();
    put_for(backend, record("short", Status::Pending), Expect::Revision(replaced), 2 * TTL).await;
    conflicts(backend, record("short", Status::Completed), Expect::Absent).await;
    gone_after(start, 2 * TTL, "the record to vanish", async || get(backend, "short").await.is_none()).await;
    put(backend, record("short", Status::Running), Expect::Absent).await;
    assert!(get(backend, "kept").await.is_some(), "the last write set no TTL");
}

/// Of several concurrent writers that expect `Absent` exactly one succeeds, and its record stays.
pub async fn of_racing_writers_of_a_new_record_one_wins(backend: &Backend) {
    for race in 0..200 {
        one_wins(backend, &format!("race-{race}"), Expect::Absent).await;
    }
}

/// Of several writers with the same revision exactly one succeeds, and its record stays.
pub async fn of_racing_writers_over_a_record_one_wins(backend: &Backend) {
    for race in 0..200 {
        let id = format!("race-{race}");
        let revision = put(backend, record(&id, Status::Running), Expect::Absent).await;
        one_wins(backend, &id, Expect::Revision(revision)).await;
    }
}

async fn one_wins(backend: &Backend, id: &str, expect: Expect) {
    let writers = [Status::Running, Status::Retrying, Status::Completed, Status::Failed].map(|status| {
        let (store, record) = (store(backend), Arc::new(record(id, status)));
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

/// Ids and queues with any characters each have a record.
pub async fn odd_ids_and_queues_are_kept_apart(backend: &Backend) {
    let odd =
        |index: usize, name: &str| record_in(ODD_NAMES[ODD_NAMES.len() - 1 - index], name, Status::Running);
    let mut watch = ok(store(backend).watch(Watched::All).await, "watch");
    for (index, name) in ODD_NAMES.into_iter().enumerate() {
        put(backend, odd(index, name), Expect::Absent).await;
        assert_eq!(soon("a record to be seen", watch.next()).await, Some(odd(index, name)));
    }
    for (index, name) in ODD_NAMES.into_iter().enumerate() {
        let stored = get(backend, name).await.expect("it was put");
        assert_eq!(stored.record, odd(index, name));
        let of_queue = RecordFilter::new().queue(&*stored.record.queue);
        assert_eq!(listed(backend, of_queue).await, [name]);
        let counted =
            RecordCount { queue: stored.record.queue.to_string(), status: Status::Running, count: 1 };
        until("its queue to count one", async || {
            let counts = store(backend).counts(std::slice::from_ref(&counted.queue)).await;
            (ok(counts, "counts") == [counted.clone()]).then_some(())
        })
        .await;
        assert_eq!(remove(backend, &[stored]).await, [true]);
        assert!(get(backend, name).await.is_none());
    }
}
