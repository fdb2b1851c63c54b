//! Watches of records.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::sleep;

use super::{conflicts, full, get, listed, put, put_for, record, store};
use crate::backend::Backend;
use crate::store::{Expect, JobRecord, RecordCount, RecordFilter, Status, Watched};
use crate::testing::conformance::kit::{ok, soon, until};

async fn watch(backend: &Backend, watched: Watched) -> BoxStream<'static, JobRecord> {
    ok(store(backend).watch(watched).await, "watch")
}

async fn seen(watch: &mut BoxStream<'static, JobRecord>) -> JobRecord {
    soon("a record to be seen", watch.next()).await.expect("the watch goes on")
}

/// A record that says `blocked` is listed, counted and watched as any other.
pub async fn a_blocked_record_is_listed_counted_and_watched(backend: &Backend) {
    let watched = Watched::Job { id: "1".into(), queue: "q".to_owned() };
    let mut watches = [watch(backend, watched).await, watch(backend, Watched::All).await];
    let blocked = JobRecord {
        depends_on: vec!["parent".into()],
        message: full("1").message,
        ..record("1", Status::Blocked)
    };
    put(backend, blocked.clone(), Expect::Absent).await;
    put(backend, record("2", Status::Running), Expect::Absent).await;
    for watch in &mut watches {
        assert_eq!(seen(watch).await, blocked);
    }
    assert_eq!(listed(backend, RecordFilter::new().status(Status::Blocked)).await, ["1"]);
    let wanted = [RecordCount { queue: "q".to_owned(), status: Status::Blocked, count: 1 }];
    until("one blocked record to be counted", async || {
        let counts = ok(store(backend).counts(&["q".to_owned()]).await, "counts");
        counts.iter().any(|count| *count == wanted[0]).then_some(())
    })
    .await;
}

/// A record that says `failed` and has a TTL is overwritten by one that says `blocked` and has
/// none.
pub async fn a_failed_record_becomes_blocked_for_good(backend: &Backend) {
    const TTL: Duration = Duration::from_secs(1);
    let failed = put_for(backend, record("1", Status::Failed), Expect::Absent, TTL).await;
    let blocked = put(backend, record("1", Status::Blocked), Expect::Revision(failed)).await;
    conflicts(backend, record("1", Status::Failed), Expect::Revision(failed)).await;
    sleep(2 * TTL).await;
    let stored = get(backend, "1").await.expect("the last write set no TTL");
    assert_eq!((stored.record.status, stored.revision), (Status::Blocked, blocked));
    assert_eq!(listed(backend, RecordFilter::new()).await, ["1"]);
    assert_eq!(listed(backend, RecordFilter::new().status(Status::Failed)).await, [""; 0]);
}

/// A watcher of a job sees each of its records that is put after `watch` returned, in order, and no
/// other job's.
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

/// A watcher of all jobs sees each record that is put after `watch` returned, those of one job in
/// order. Two watchers see the same.
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

/// No watcher sees a refused write.
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

/// A shutdown ends the streams of all watchers.
pub async fn a_shutdown_ends_the_watches_of_records(backend: &Backend) {
    let one = Watched::Job { id: "1".into(), queue: "q".to_owned() };
    let watches = [watch(backend, one).await, watch(backend, Watched::All).await];
    put(backend, record("1", Status::Completed), Expect::Any).await;
    ok(backend.shutdown().await, "shutdown");
    for watch in watches {
        soon("the watch to end", watch.for_each(async |_| ())).await;
    }
}
