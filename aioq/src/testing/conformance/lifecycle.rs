//! Startup and shutdown. These cases take a backend that is not started.

use bytes::Bytes;

use super::kit::{envelope, ok, refused};
use crate::backend::Backend;
use crate::broker::{Expect, Subscription};
use crate::error::ErrorKind;
use crate::store::{JobRecord, Status, Watched};

/// `info` answers at any time, and says something.
pub async fn a_backend_says_what_it_is_before_it_starts(backend: &Backend) {
    let info = backend.broker().info();
    assert!(!info.name.is_empty(), "a broker has a name");
    assert!(info.max_body_bytes > 0, "a broker takes some bytes");
}

/// Everything but `info` is an error of kind `NotStarted`.
pub async fn nothing_works_before_startup(backend: &Backend) {
    nothing_works(backend).await;
}

/// `startup` and `shutdown` may be called again without a change.
pub async fn starting_and_stopping_twice_is_once(backend: &Backend) {
    ok(backend.startup().await, "the first startup");
    ok(backend.broker().kick(envelope("q", "1"), Expect::Absent).await, "a kick");
    ok(backend.startup().await, "the second startup");
    let found = ok(backend.broker().find(&"1".into()).await, "find");
    assert!(found.is_some(), "the second startup lost a message");
    ok(backend.shutdown().await, "the first shutdown");
    ok(backend.shutdown().await, "the second shutdown");
}

/// After `shutdown` everything is an error of kind `NotStarted` again.
pub async fn nothing_works_after_shutdown(backend: &Backend) {
    ok(backend.startup().await, "startup");
    ok(backend.shutdown().await, "shutdown");
    nothing_works(backend).await;
}

async fn nothing_works(backend: &Backend) {
    let broker = backend.broker();
    let fates = broker.kick_all(vec![(envelope("q", "2"), Expect::Any)]).await;
    assert_eq!(fates.len(), 1, "each envelope has a fate");
    let mut kinds = vec![
        ("kick", refused(broker.kick(envelope("q", "1"), Expect::Absent).await, "a kick")),
        ("listen", refused(broker.listen(Subscription::new(["q"])).await, "listen")),
        ("find", refused(broker.find(&"1".into()).await, "find")),
        ("depths", refused(broker.depths(&["q".to_owned()]).await, "depths")),
    ];
    kinds.extend(fates.into_iter().map(|fate| ("kick_all", refused(fate, "a bulk kick"))));

    let kv = backend.kv();
    kinds.push(("get a key", refused(kv.get("key").await, "get")));
    kinds.push(("put a key", refused(kv.put("key", Bytes::new(), Expect::Any, None).await, "put")));
    kinds.push(("delete a key", refused(kv.delete("key", Expect::Any).await, "delete")));
    kinds.push(("scan", refused(kv.scan("").await, "scan")));
    kinds.push(("watch keys", refused(kv.watch("").await, "watch")));

    if let Some(jobs) = backend.jobs() {
        let record = JobRecord::unreadable("1".into(), "q", Status::Completed);
        kinds.push(("get a record", refused(jobs.get(&"1".into()).await, "get")));
        kinds.push(("put a record", refused(jobs.put(record, Expect::Any, None).await, "put")));
        kinds.push(("remove a record", refused(jobs.remove(&"1".into()).await, "remove")));
        kinds.push(("watch records", refused(jobs.watch(Watched::All).await, "watch")));
    }
    for (what, kind) in kinds {
        assert_eq!(kind, ErrorKind::NotStarted, "{what} on a backend that is not started");
    }
}
