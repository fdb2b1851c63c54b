//! Startup and shutdown. These cases get a backend that is not started.

use std::sync::Arc;

use bytes::Bytes;

use super::kit::{envelope, ok, refused};
use crate::backend::Backend;
use crate::broker::{Expect, Page, Queued, QueuedFilter, Subscription};
use crate::error::ErrorKind;
use crate::store::{JobRecord, RecordFilter, Status, Stored, Watched};

/// `info` is available at any time, and not empty.
pub async fn a_backend_says_what_it_is_before_it_starts(backend: &Backend) {
    let info = backend.broker().info();
    assert!(!info.name.is_empty(), "a broker has a name");
    assert!(info.max_body_bytes > 0, "a broker takes some bytes");
}

/// All methods but `info` fail with `NotStarted`.
pub async fn nothing_works_before_startup(backend: &Backend) {
    nothing_works(backend).await;
}

/// Repeated calls of `startup` and `shutdown` change nothing.
pub async fn starting_and_stopping_twice_is_once(backend: &Backend) {
    ok(backend.startup().await, "the first startup");
    ok(backend.broker().kick(envelope("q", "1"), Expect::Absent).await, "a kick");
    ok(backend.startup().await, "the second startup");
    let found = ok(backend.broker().find(&"1".into()).await, "find");
    assert!(found.is_some(), "the second startup lost a message");
    ok(backend.shutdown().await, "the first shutdown");
    ok(backend.shutdown().await, "the second shutdown");
}

/// After `shutdown` all methods fail with `NotStarted` again.
pub async fn nothing_works_after_shutdown(backend: &Backend) {
    ok(backend.startup().await, "startup");
    ok(backend.shutdown().await, "shutdown");
    nothing_works(backend).await;
}

async fn nothing_works(backend: &Backend) {
    let mut kinds = kinds_of_the_broker(backend).await;
    kinds.extend(kinds_of_the_keys(backend).await);
    kinds.extend(kinds_of_the_records(backend).await);
    for (what, kind) in kinds {
        assert_eq!(kind, ErrorKind::NotStarted, "{what} on a backend that is not started");
    }
}

/// The method and the kind of its error.
type Kinds = Vec<(&'static str, ErrorKind)>;

async fn kinds_of_the_broker(backend: &Backend) -> Kinds {
    let (broker, queues) = (backend.broker(), ["q".to_owned()]);
    let mut kinds = vec![
        ("kick", refused(broker.kick(envelope("q", "1"), Expect::Absent).await, "a kick")),
        ("listen", refused(broker.listen(Subscription::new(["q"])).await, "listen")),
        ("find", refused(broker.find(&"1".into()).await, "find")),
        ("list", refused(broker.list(&QueuedFilter::new(), Page::newest(1)).await, "list")),
        ("queues", refused(broker.queues().await, "queues")),
        ("depths", refused(broker.depths(&queues).await, "depths")),
        ("watch", refused(broker.watch().await, "watch")),
        ("examine", refused(broker.examine().await, "examine")),
    ];
    let fates = broker.kick_all(vec![(envelope("q", "2"), Expect::Any)]).await;
    assert_eq!(fates.len(), 1, "each envelope has a fate");
    kinds.extend(fates.into_iter().map(|fate| ("kick_all", refused(fate, "a bulk kick"))));
    let fates = broker.remove(&[Queued::new("1".into(), "q", Bytes::new(), true)]).await;
    assert_eq!(fates.len(), 1, "each message has a fate");
    kinds.extend(fates.into_iter().map(|fate| ("remove", refused(fate, "remove"))));
    kinds
}

async fn kinds_of_the_keys(backend: &Backend) -> Kinds {
    let kv = backend.kv();
    vec![
        ("get a key", refused(kv.get("key").await, "get")),
        ("put a key", refused(kv.put("key", Bytes::new(), Expect::Any, None).await, "put")),
        ("delete a key", refused(kv.delete("key", Expect::Any).await, "delete")),
        ("scan", refused(kv.scan("").await, "scan")),
        ("watch keys", refused(kv.watch("").await, "watch")),
    ]
}

async fn kinds_of_the_records(backend: &Backend) -> Kinds {
    let Some(jobs) = backend.jobs() else { return Vec::new() };
    let record = JobRecord::unreadable("1".into(), "q", Status::Completed);
    let stored = Stored::new(record.clone(), 1);
    let mut kinds = vec![
        ("get a record", refused(jobs.get(&"1".into()).await, "get")),
        ("put a record", refused(jobs.put(Arc::new(record), Expect::Any, None).await, "put")),
        ("list records", refused(jobs.list(&RecordFilter::new(), Page::newest(1)).await, "list")),
        ("count records", refused(jobs.counts(&["q".to_owned()]).await, "counts")),
        ("trim records", refused(jobs.trim(Status::Completed, 0, None).await, "trim")),
        ("watch records", refused(jobs.watch(Watched::All).await, "watch")),
    ];
    let fates = jobs.remove(&[stored]).await;
    assert_eq!(fates.len(), 1, "each record has a fate");
    kinds.extend(fates.into_iter().map(|fate| ("remove a record", refused(fate, "remove"))));
    kinds
}
