//! Records and keys in NATS against a real server.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::time::Duration;

use aioq::ErrorKind;
use aioq::store::{Entry, Expect, JobRecord, KvChange, Status, Watched};
use bytes::Bytes;
use futures_util::StreamExt;
use support::{PATIENCE, backend, until, with_prefix};
use tokio::time::timeout;

fn record(id: &str, status: Status) -> JobRecord {
    JobRecord::unreadable(id.into(), "mail.out", status)
}

fn watched(id: &str) -> Watched {
    Watched::Job { id: id.into(), queue: "mail.out".to_owned() }
}

#[tokio::test]
async fn a_record_comes_back_as_it_was_put() {
    let backend = backend().await;
    let jobs = backend.jobs().unwrap();
    assert!(jobs.get(&"a b".into()).await.unwrap().is_none());
    let put = record("a b", Status::Running);
    let revision = jobs.put(put.clone(), Expect::Absent, None).await.unwrap();
    let stored = jobs.get(&"a b".into()).await.unwrap().unwrap();
    assert_eq!((stored.record, stored.revision), (put, revision));
}

#[tokio::test]
async fn only_one_write_against_the_same_revision_passes() {
    let backend = backend().await;
    let jobs = backend.jobs().unwrap();
    let first = jobs.put(record("a", Status::Running), Expect::Absent, None).await.unwrap();
    let again = jobs.put(record("a", Status::Completed), Expect::Absent, None).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);
    let second = jobs.put(record("a", Status::Retrying), Expect::Revision(first), None).await.unwrap();
    assert!(second > first);
    let stale = jobs.put(record("a", Status::Completed), Expect::Revision(first), None).await.unwrap_err();
    assert_eq!((stale.kind(), stale.id().unwrap().as_str()), (ErrorKind::Conflict, "a"));
    assert_eq!(jobs.get(&"a".into()).await.unwrap().unwrap().record.status, Status::Retrying);
}

#[tokio::test]
async fn a_replaced_record_does_not_stay_under_its_old_status() {
    let (backend, prefix, url) = with_prefix().await;
    let jobs = backend.jobs().unwrap();
    let first = jobs.put(record("a", Status::Running), Expect::Absent, None).await.unwrap();
    jobs.put(record("a", Status::Completed), Expect::Revision(first), None).await.unwrap();
    jobs.put(record("a", Status::Failed), Expect::Any, None).await.unwrap();
    let client = async_nats::connect(url).await.unwrap();
    let info = format!("$JS.API.STREAM.INFO.{}_RECORDS", prefix.to_uppercase());
    let info = client.request(info, Bytes::new()).await.unwrap();
    let info = String::from_utf8(info.payload.to_vec()).unwrap();
    assert!(info.contains("\"messages\":1,"), "{info}");
    assert!(jobs.remove(&"a".into()).await.unwrap());
    assert!(!jobs.remove(&"a".into()).await.unwrap());
    assert!(jobs.get(&"a".into()).await.unwrap().is_none());
}

#[tokio::test]
async fn revisions_grow_over_a_removal() {
    let backend = backend().await;
    let jobs = backend.jobs().unwrap();
    let first = jobs.put(record("a", Status::Completed), Expect::Absent, None).await.unwrap();
    jobs.remove(&"a".into()).await.unwrap();
    assert!(jobs.put(record("a", Status::Completed), Expect::Absent, None).await.unwrap() > first);
}

#[tokio::test]
async fn a_record_vanishes_after_its_ttl() {
    let backend = backend().await;
    let jobs = backend.jobs().unwrap();
    let ttl = Some(Duration::from_millis(300));
    jobs.put(record("a", Status::Running), Expect::Absent, ttl).await.unwrap();
    assert!(jobs.get(&"a".into()).await.unwrap().is_some());
    until(|| async { jobs.get(&"a".into()).await.unwrap().is_none() }).await;
    jobs.put(record("a", Status::Running), Expect::Absent, None).await.unwrap();
}

#[tokio::test]
async fn a_watch_tells_every_stored_write_and_no_refused_one() {
    let backend = backend().await;
    let jobs = backend.jobs().unwrap();
    let mut one = jobs.watch(watched("a")).await.unwrap();
    let mut all = jobs.watch(Watched::All).await.unwrap();
    let first = jobs.put(record("a", Status::Running), Expect::Absent, None).await.unwrap();
    jobs.put(record("b", Status::Running), Expect::Absent, None).await.unwrap();
    jobs.put(record("a", Status::Failed), Expect::Absent, None).await.unwrap_err();
    jobs.put(record("a", Status::Completed), Expect::Revision(first), None).await.unwrap();
    let seen: Vec<_> = timeout(PATIENCE, one.by_ref().take(2).collect()).await.unwrap();
    let statuses: Vec<_> = seen.iter().map(|record: &JobRecord| record.status).collect();
    assert_eq!(statuses, [Status::Running, Status::Completed]);
    let seen: Vec<_> = timeout(PATIENCE, all.by_ref().take(3).collect()).await.unwrap();
    let ids: Vec<_> = seen.iter().map(|record: &JobRecord| record.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "a"]);
}

#[tokio::test]
async fn many_records_are_put_at_once() {
    let backend = backend().await;
    let puts = (0..500).map(|n| {
        let jobs = backend.jobs().unwrap().clone();
        tokio::spawn(async move {
            jobs.put(record(&n.to_string(), Status::Completed), Expect::Absent, None).await
        })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_record_that_the_server_cannot_take_is_too_large() {
    let backend = backend().await;
    let mut large = record("a", Status::Failed);
    large.message = Some(vec![0; 2 << 20].into());
    let error = backend.jobs().unwrap().put(large, Expect::Absent, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_key_is_put_changed_and_deleted_conditionally() {
    let backend = backend().await;
    let kv = backend.kv();
    assert!(kv.get("lock.a").await.unwrap().is_none());
    let first = kv.put("lock.a", "1".into(), Expect::Absent, None).await.unwrap();
    assert_eq!(kv.get("lock.a").await.unwrap(), Some(Entry::new("lock.a", "1".into(), first)));
    let conflict = |result: aioq::Result<u64>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
    conflict(kv.put("lock.a", "2".into(), Expect::Absent, None).await);
    let second = kv.put("lock.a", "2".into(), Expect::Revision(first), None).await.unwrap();
    conflict(kv.put("lock.a", "3".into(), Expect::Revision(first), None).await);
    let third = kv.put("lock.a", "3".into(), Expect::Any, None).await.unwrap();
    assert!(third > second && second > first);
    assert_eq!(kv.delete("lock.a", Expect::Revision(second)).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(kv.delete("lock.a", Expect::Revision(third)).await.unwrap());
    assert!(!kv.delete("lock.a", Expect::Any).await.unwrap());
    assert!(kv.get("lock.a").await.unwrap().is_none());
    conflict(kv.put("lock.a", "4".into(), Expect::Revision(third), None).await);
    let fourth = kv.put("lock.a", "4".into(), Expect::Absent, None).await.unwrap();
    assert!(fourth > third);
    assert!(kv.delete("lock.a", Expect::Any).await.unwrap());
}

#[tokio::test]
async fn only_one_of_many_gets_a_key_that_was_deleted() {
    let backend = backend().await;
    let kv = backend.kv();
    kv.put("lock", "0".into(), Expect::Absent, None).await.unwrap();
    kv.delete("lock", Expect::Any).await.unwrap();
    let puts = (0..20).map(|_| {
        let kv = kv.clone();
        tokio::spawn(async move { kv.put("lock", "same".into(), Expect::Absent, None).await.is_ok() })
    });
    let mut winners = 0;
    for put in puts.collect::<Vec<_>>() {
        winners += usize::from(put.await.unwrap());
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn a_key_vanishes_after_its_ttl_also_where_it_was_deleted_before() {
    let backend = backend().await;
    let kv = backend.kv();
    kv.put("a", "1".into(), Expect::Absent, None).await.unwrap();
    kv.delete("a", Expect::Any).await.unwrap();
    let ttl = Some(Duration::from_secs(1));
    kv.put("a", "2".into(), Expect::Absent, ttl).await.unwrap();
    assert!(kv.get("a").await.unwrap().is_some());
    until(|| async { kv.get("a").await.unwrap().is_none() }).await;
    kv.put("a", "3".into(), Expect::Absent, None).await.unwrap();
}

#[tokio::test]
async fn a_scan_tells_all_keys_of_a_prefix_in_order() {
    let backend = backend().await;
    let kv = backend.kv();
    assert!(kv.scan("").await.unwrap().is_empty());
    for key in ["w.b", "w.a.x", "w.a", "wide", "v", "w. z\u{e9}*>", "w.gone"] {
        kv.put(key, key.to_owned().into(), Expect::Any, None).await.unwrap();
    }
    kv.delete("w.gone", Expect::Any).await.unwrap();
    kv.put("w.b", "new".into(), Expect::Any, None).await.unwrap();
    let keys = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    assert_eq!(keys(kv.scan("w.").await.unwrap()), ["w. z\u{e9}*>", "w.a", "w.a.x", "w.b"]);
    assert_eq!(keys(kv.scan("").await.unwrap()).len(), 6);
    assert!(kv.scan("nothing.").await.unwrap().is_empty());
    assert_eq!(kv.scan("w").await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(kv.scan("w.").await.unwrap()[3].value, "new");
}

#[tokio::test]
async fn a_scan_of_many_keys_misses_none() {
    let backend = backend().await;
    let kv = backend.kv();
    let puts = (0..1500).map(|n| {
        let kv = kv.clone();
        tokio::spawn(
            async move { kv.put(&format!("k.{n:04}"), vec![0; 200].into(), Expect::Any, None).await },
        )
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.unwrap().unwrap();
    }
    let entries = kv.scan("k.").await.unwrap();
    assert_eq!(entries.len(), 1500);
    assert!(entries.windows(2).all(|pair| pair[0].key < pair[1].key));
}

#[tokio::test]
async fn a_watch_of_keys_tells_puts_and_deletions_below_its_prefix() {
    let backend = backend().await;
    let kv = backend.kv();
    let mut changes = kv.watch("cancel.").await.unwrap();
    kv.put("other", "x".into(), Expect::Any, None).await.unwrap();
    let revision = kv.put("cancel.a b", "1".into(), Expect::Absent, None).await.unwrap();
    kv.put("cancel.a b", "2".into(), Expect::Absent, None).await.unwrap_err();
    kv.delete("cancel.a b", Expect::Any).await.unwrap();
    let seen: Vec<_> = timeout(PATIENCE, changes.by_ref().take(2).collect()).await.unwrap();
    let put = KvChange::Put(Entry::new("cancel.a b", "1".into(), revision));
    assert_eq!(seen, [put, KvChange::Deleted("cancel.a b".to_owned())]);
}

#[tokio::test]
async fn stored_state_survives_a_crash_of_the_server() {
    let mut server = aioq_tests::NatsServer::start().await.unwrap();
    let backend: aioq::Backend = aioq_nats::Nats::new(server.url()).into();
    support::start(&backend).await;
    let jobs = backend.jobs().unwrap();
    let revision = jobs.put(record("a", Status::Running), Expect::Absent, None).await.unwrap();
    backend.kv().put("a", "1".into(), Expect::Absent, None).await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(jobs.get(&"a".into()).await.unwrap().unwrap().revision, revision);
    assert_eq!(backend.kv().get("a").await.unwrap().unwrap().value, "1");
}
