//! Removal of records.

use std::slice::from_ref;
use std::time::Duration;

use tokio::time::sleep;

use super::{conflicts, get, listed, put, record, record_in, remove, store, stored};
use crate::backend::Backend;
use crate::store::{Expect, RecordFilter, Status, Stored};
use crate::testing::conformance::kit::ok;
use crate::time::Timestamp;

/// `remove` returns true if the record was there. Afterwards it is absent, and the id is free.
pub async fn a_removed_record_is_gone(backend: &Backend) {
    let one = stored(backend, record("1", Status::Completed)).await;
    put(backend, record("2", Status::Completed), Expect::Absent).await;
    assert_eq!(remove(backend, from_ref(&one)).await, [true], "there was one");
    assert!(get(backend, "1").await.is_none());
    assert_eq!(remove(backend, &[one]).await, [false], "there was none any more");
    assert!(get(backend, "2").await.is_some(), "another record stays");
    put(backend, record("1", Status::Completed), Expect::Absent).await;
}

/// A record that was written again since it was read stays, and so does one that was put after a
/// removal.
pub async fn a_record_is_removed_only_as_it_was_read(backend: &Backend) {
    let read = stored(backend, record("1", Status::Failed)).await;
    for status in [Status::Failed, Status::Running] {
        let revision = put(backend, record("1", status), Expect::Any).await;
        assert_eq!(remove(backend, from_ref(&read)).await, [false], "it was written again");
        let now = get(backend, "1").await.expect("it stays");
        assert_eq!((now.record.status, now.revision), (status, revision));
    }
    let newest = get(backend, "1").await.expect("it stays");
    assert_eq!(remove(backend, from_ref(&newest)).await, [true]);
    let later = put(backend, record("1", Status::Running), Expect::Absent).await;
    assert!(later > newest.revision, "{later} after {}", newest.revision);
    assert_eq!(remove(backend, &[newest, read]).await, [false, false], "it was put anew");
    assert_eq!(get(backend, "1").await.expect("it stays").revision, later);
}

/// Many records are removed by one call, which returns true for each that was there, in order.
pub async fn a_bulk_removal_of_records_tells_each_fate_in_order(backend: &Backend) {
    let mut records = Vec::new();
    for index in 0..100 {
        records.push(
            stored(backend, record_in(["a", "b"][index % 2], &format!("job-{index}"), Status::Failed)).await,
        );
    }
    put(backend, record_in("b", "job-7", Status::Running), Expect::Any).await;
    assert_eq!(remove(backend, &records[3..4]).await, [true]);
    records.insert(50, Stored::new(record("never", Status::Failed), 1));

    let fates = remove(backend, &records).await;
    let refused: Vec<usize> = (0..records.len()).filter(|index| !fates[*index]).collect();
    assert_eq!((fates.len(), refused), (101, vec![3, 7, 50]));
    assert_eq!(listed(backend, RecordFilter::new()).await, ["job-7"]);
    assert!(remove(backend, &[]).await.is_empty(), "no records, no fates");
}

/// `trim` keeps the latest `keep` records of a status over all queues. It returns the number of
/// removed records, and touches no other status.
pub async fn trim_keeps_the_newest_of_a_status(backend: &Backend) {
    for index in 0..12 {
        let queue = ["a", "b", "c"][index % 3];
        put(backend, record_in(queue, &format!("done-{index}"), Status::Completed), Expect::Absent).await;
        put(backend, record_in(queue, &format!("bad-{index}"), Status::Failed), Expect::Absent).await;
    }
    // The oldest record becomes the newest, and one of the newest changes its status.
    put(backend, record_in("a", "done-0", Status::Completed), Expect::Any).await;
    put(backend, record_in("c", "done-11", Status::Running), Expect::Any).await;

    assert_eq!(trim(backend, Status::Completed, 100, None).await, 0, "there are fewer");
    assert_eq!(trim(backend, Status::Completed, 4, None).await, 7);
    let of = RecordFilter::new;
    assert_eq!(
        listed(backend, of().status(Status::Completed)).await,
        ["done-0", "done-10", "done-9", "done-8"]
    );
    assert_eq!(trim(backend, Status::Completed, 4, None).await, 0, "no more than four are left");
    for gone in ["done-1", "done-7"] {
        assert!(get(backend, gone).await.is_none(), "`{gone}` was among the oldest");
    }

    assert_eq!(trim(backend, Status::Failed, 0, None).await, 12);
    assert_eq!(trim(backend, Status::Cancelled, 0, None).await, 0, "there is none");
    assert_eq!(
        listed(backend, of()).await,
        ["done-11", "done-0", "done-10", "done-9", "done-8"],
        "the rest is untouched"
    );
    conflicts(backend, record_in("c", "done-11", Status::Failed), Expect::Absent).await;
    put(backend, record_in("b", "done-1", Status::Completed), Expect::Absent).await;
}

/// `trim` with a time leaves the records of jobs that ended at that time or later, even if that are
/// more than `keep`.
pub async fn trim_spares_the_jobs_that_ended_later(backend: &Backend) {
    const PAUSE: Duration = Duration::from_millis(1100);
    let put_some = async |round: &str| {
        for index in 0..6 {
            let mut record = record_in(["a", "b"][index % 2], &format!("{round}-{index}"), Status::Completed);
            record.finished_at = Some(Timestamp::now());
            put(backend, record, Expect::Absent).await;
        }
    };
    put_some("early").await;
    sleep(PAUSE).await;
    let between = Timestamp::now();
    sleep(PAUSE).await;
    put_some("late").await;

    let completed = RecordFilter::new().status(Status::Completed);
    let late = ["late-5", "late-4", "late-3", "late-2", "late-1", "late-0"];
    assert_eq!(trim(backend, Status::Completed, 8, Some(between)).await, 4, "the number decides");
    let left = listed(backend, completed.clone()).await;
    assert_eq!((left.len(), &left[6..]), (8, &["early-5".to_owned(), "early-4".to_owned()][..]));
    assert_eq!(trim(backend, Status::Completed, 2, Some(between)).await, 2, "the time decides");
    assert_eq!(listed(backend, completed.clone()).await, late);
    assert_eq!(trim(backend, Status::Completed, 2, Some(between)).await, 0, "all ended later");
    let now = Timestamp::now() + PAUSE;
    assert_eq!(trim(backend, Status::Completed, 5, Some(now)).await, 1, "none ended later");
    assert_eq!(trim(backend, Status::Completed, 2, None).await, 3, "only the number counts");
    assert_eq!(listed(backend, completed).await, late[..2]);
}

async fn trim(backend: &Backend, status: Status, keep: u64, before: Option<Timestamp>) -> u64 {
    ok(store(backend).trim(status, keep, before).await, "trim")
}
