//! Lists and counts of records.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{
    completed, full, get, ids, list, listed, put, put_for, record, record_in, remove, store, stored,
};
use crate::backend::Backend;
use crate::store::{Expect, Order, Page, RecordFilter, Status, Stored};
use crate::testing::conformance::kit::{gone_after, ok, until};

/// A record is listed with the revision and the fields that `get` returns.
pub async fn a_record_is_listed_as_it_was_put(backend: &Backend) {
    for record in [full("failed"), completed("completed"), record("bare", Status::Running)] {
        put(backend, record, Expect::Absent).await;
    }
    let rows = list(backend, &RecordFilter::new(), Page::oldest(10)).await;
    assert_eq!(ids(&rows), ["failed", "completed", "bare"]);
    for row in rows {
        let stored = get(backend, row.record.id.as_str()).await.expect("it was put");
        assert_eq!((row.record, row.revision), (stored.record, stored.revision));
    }
}

/// The record written last is the newest, in any queue and with any status.
pub async fn records_are_listed_in_the_order_of_their_latest_writes(backend: &Backend) {
    put(backend, record_in("a", "1", Status::Running), Expect::Any).await;
    put(backend, record_in("b", "2", Status::Running), Expect::Any).await;
    put(backend, record_in("a", "3", Status::Failed), Expect::Any).await;
    assert_eq!(listed(backend, RecordFilter::new()).await, ["3", "2", "1"]);
    put(backend, record_in("b", "2", Status::Completed), Expect::Any).await;
    assert_eq!(listed(backend, RecordFilter::new()).await, ["2", "3", "1"]);
    put(backend, record_in("a", "1", Status::Running), Expect::Any).await;
    assert_eq!(listed(backend, RecordFilter::new()).await, ["1", "2", "3"]);
    assert_eq!(listed(backend, RecordFilter::new().queue("a")).await, ["1", "3"]);

    let rows = list(backend, &RecordFilter::new(), Page::oldest(10)).await;
    assert_eq!(ids(&rows), ["3", "2", "1"]);
    assert!(rows.is_sorted_by(|a, b| a.revision < b.revision), "in the order of the revisions");
}

/// A record is listed once, with its current status, after any number of writes.
pub async fn a_record_is_listed_under_its_newest_status_alone(backend: &Backend) {
    let statuses = [Status::Scheduled, Status::Running, Status::Retrying, Status::Running, Status::Completed];
    for status in statuses {
        put(backend, record("1", status), Expect::Any).await;
        assert_eq!(listed(backend, RecordFilter::new()).await, ["1"]);
        for other in Status::ALL {
            let found = listed(backend, RecordFilter::new().status(other)).await;
            assert_eq!(found.len(), usize::from(other == status), "`{other}` when it is `{status}`");
        }
    }
}

/// A filter selects exactly the records of its queue with its status.
pub async fn a_filter_shows_the_records_of_its_queue_and_status(backend: &Backend) {
    put_some_of_each(backend).await;
    let shown = async |filter: RecordFilter| listed(backend, filter).await;
    let all = RecordFilter::new;
    assert_eq!(shown(all().queue("a")).await, ["a-failed", "a-completed-2", "a-completed-1", "a-running"]);
    assert_eq!(shown(all().queue("b")).await, ["b-completed"]);
    assert_eq!(shown(all().status(Status::Running)).await, ["c-running", "a-running"]);
    assert_eq!(
        shown(all().status(Status::Completed)).await,
        ["b-completed", "a-completed-2", "a-completed-1"]
    );
    assert_eq!(shown(all().queue("a").status(Status::Failed)).await, ["a-failed"]);
    assert_eq!(shown(all().queue("b").status(Status::Running)).await, [""; 0]);
    assert_eq!(shown(all().queue("unused")).await, [""; 0]);
    assert_eq!(shown(all().status(Status::Cancelled)).await, [""; 0]);
}

async fn put_some_of_each(backend: &Backend) {
    for (queue, id, status) in [
        ("a", "a-running", Status::Running),
        ("a", "a-completed-1", Status::Completed),
        ("a", "a-completed-2", Status::Completed),
        ("b", "b-completed", Status::Completed),
        ("a", "a-failed", Status::Failed),
        ("c", "c-running", Status::Running),
    ] {
        put(backend, record_in(queue, id, status), Expect::Any).await;
    }
}

/// Pages of any length, in either direction, show each record once and in order.
pub async fn pages_of_records_have_no_gap_and_no_repetition(backend: &Backend) {
    let statuses = [Status::Running, Status::Completed, Status::Failed];
    for index in 0..30 {
        let record = record_in(["a", "b"][index % 2], &format!("job-{index}"), statuses[index % 3]);
        put(backend, record, Expect::Absent).await;
    }
    // Leaves gaps between the revisions.
    for index in [4, 9, 10, 29] {
        let gone = get(backend, &format!("job-{index}")).await.expect("it was put");
        assert_eq!(remove(backend, &[gone]).await, [true]);
    }
    let of_queue = RecordFilter::new().queue("a");
    for filter in [
        RecordFilter::new(),
        RecordFilter::new().status(Status::Completed),
        of_queue.clone().status(Status::Failed),
        of_queue,
    ] {
        let mut whole = listed(backend, filter.clone()).await;
        for limit in [1, 4, 13, 100] {
            assert_eq!(ids(&in_pages(backend, &filter, Page::newest(limit)).await), whole, "{filter:?}");
        }
        whole.reverse();
        for limit in [1, 4, 13, 100] {
            assert_eq!(ids(&in_pages(backend, &filter, Page::oldest(limit)).await), whole, "{filter:?}");
        }
    }
}

/// More than the number of records in any case.
const MOST: usize = 1000;

/// All rows, page by page, until a page is short.
async fn in_pages(backend: &Backend, filter: &RecordFilter, first: Page) -> Vec<Stored> {
    let (mut rows, mut page) = (Vec::<Stored>::new(), first);
    loop {
        let more = list(backend, filter, page).await;
        let short = more.len() < page.limit;
        rows.extend(more);
        assert!(rows.len() <= MOST, "the pages do not end: {:?}", ids(&rows));
        match rows.last() {
            Some(last) if !short => page = first.after(last.revision),
            _ => return rows,
        }
    }
}

/// Pages stay full while rows are left, even if the filter selects few of many: a short page is the
/// last one.
pub async fn a_page_of_records_is_full_while_there_are_more(backend: &Backend) {
    for index in 0..300 {
        let queue = if index % 60 == 30 { "rare" } else { "common" };
        put(backend, record_in(queue, &format!("{queue}-{index}"), Status::Completed), Expect::Absent).await;
    }
    let rare = RecordFilter::new().queue("rare").status(Status::Completed);
    for first in [Page::newest(2), Page::oldest(2)] {
        let page = list(backend, &rare, first).await;
        assert_eq!(page.len(), 2, "there are five: {:?}", ids(&page));
        assert_eq!(in_pages(backend, &rare, first).await.len(), 5);
    }
}

/// A record that is written during paging appears at the newest end. Unchanged records that were
/// not shown yet are not lost.
pub async fn records_may_be_written_between_two_pages(backend: &Backend) {
    for id in ["1", "2", "3", "4", "5", "6"] {
        put(backend, record(id, Status::Running), Expect::Absent).await;
    }
    let newest = list(backend, &RecordFilter::new(), Page::newest(2)).await;
    let oldest = list(backend, &RecordFilter::new(), Page::oldest(2)).await;
    assert_eq!((ids(&newest), ids(&oldest)), (vec!["6".into(), "5".into()], vec!["1".into(), "2".into()]));
    put(backend, record("4", Status::Completed), Expect::Any).await;
    put(backend, record("7", Status::Running), Expect::Absent).await;
    assert_eq!(remove(backend, &[newest[1].clone(), oldest[1].clone()]).await, [true, true]);

    let after = async |order, rows: &[Stored]| {
        let page = Page { order, after: Some(rows[1].revision), limit: 10 };
        ids(&list(backend, &RecordFilter::new(), page).await)
    };
    assert_eq!(after(Order::NewestFirst, &newest).await, ["3", "1"]);
    assert_eq!(after(Order::OldestFirst, &oldest).await, ["3", "6", "4", "7"]);
}

/// Removed and expired records are neither listed nor counted.
pub async fn what_is_gone_is_not_listed(backend: &Backend) {
    const TTL: Duration = Duration::from_secs(1);
    put(backend, record("kept", Status::Completed), Expect::Absent).await;
    let removed = stored(backend, record("removed", Status::Completed)).await;
    assert_eq!(remove(backend, &[removed]).await, [true]);
    let start = Instant::now();
    put_for(backend, record("short", Status::Completed), Expect::Absent, TTL).await;
    let all = listed(backend, RecordFilter::new()).await;
    assert!(
        all == ["short", "kept"] || start.elapsed() >= TTL,
        "before the record's time has passed: {all:?}"
    );
    gone_after(start, TTL, "the record to vanish from the list", async || {
        listed(backend, RecordFilter::new().queue("q")).await == ["kept"]
    })
    .await;
    assert_eq!(listed(backend, RecordFilter::new().status(Status::Completed)).await, ["kept"]);
    until("one record to be counted", async || (counts(backend, &["q"]).await.len() == 1).then_some(()))
        .await;
    assert_eq!(counts(backend, &["q"]).await[&("q".to_owned(), Status::Completed)], 1);
}

/// `counts` returns for each given queue the number of records of each status, without zeros.
pub async fn counts_are_as_many_as_are_listed(backend: &Backend) {
    assert!(counts(backend, &["a", "b"]).await.is_empty(), "there is nothing yet");
    put_some_of_each(backend).await;
    counts_fit(backend, 4).await;
    // One status becomes empty, another one is new.
    put(backend, record_in("a", "a-running", Status::Failed), Expect::Any).await;
    put(backend, record_in("b", "b-completed", Status::Expired), Expect::Any).await;
    let gone = get(backend, "a-completed-1").await.expect("it was put");
    assert_eq!(remove(backend, &[gone]).await, [true]);
    counts_fit(backend, 3).await;
    assert!(counts(backend, &[]).await.is_empty(), "no queues, no counts");
}

/// Waits until the counts of `a`, `b` and an unused queue match the list, with that many that are
/// not zero.
async fn counts_fit(backend: &Backend, different: usize) {
    let mut wanted = Counts::new();
    for queue in ["a", "b"] {
        for row in list(backend, &RecordFilter::new().queue(queue), Page::newest(100)).await {
            *wanted.entry((queue.to_owned(), row.record.status)).or_default() += 1;
        }
    }
    assert_eq!(wanted.len(), different, "{wanted:?}");
    until(&format!("counts of {wanted:?}"), async || {
        (counts(backend, &["a", "unused", "b"]).await == wanted).then_some(())
    })
    .await;
}

type Counts = BTreeMap<(String, Status), u64>;

async fn counts(backend: &Backend, queues: &[&str]) -> Counts {
    let queues: Vec<String> = queues.iter().copied().map(str::to_owned).collect();
    let rows = ok(store(backend).counts(&queues).await, "counts");
    assert!(rows.iter().all(|row| row.count > 0), "zeros are left out: {rows:?}");
    let counts: Counts = rows.iter().map(|row| ((row.queue.clone(), row.status), row.count)).collect();
    assert_eq!(counts.len(), rows.len(), "one number for a queue and a status: {rows:?}");
    counts
}
