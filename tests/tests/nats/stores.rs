//! Records and keys in NATS against a real server.

use std::collections::HashSet;
use std::sync::Arc;

use aioq::store::{Entry, Expect, JobRecord, JobStore, Page, RecordCount, RecordFilter, Status, Stored};
use aioq::{Backend, ErrorKind};
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::support;
use crate::support::{ODD_NAMES, backend, with_prefix};

fn record(id: &str, status: Status) -> Arc<JobRecord> {
    record_in("mail.out", id, status)
}

fn record_in(queue: &str, id: &str, status: Status) -> Arc<JobRecord> {
    Arc::new(JobRecord::unreadable(id.into(), queue, status))
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
    let stored = jobs.get(&"a".into()).await.unwrap().unwrap();
    assert!(remove(jobs, &stored).await);
    assert!(!remove(jobs, &stored).await);
    assert!(jobs.get(&"a".into()).await.unwrap().is_none());
}

#[tokio::test]
async fn revisions_grow_over_a_removal() {
    let backend = backend().await;
    let jobs = backend.jobs().unwrap();
    let first = jobs.put(record("a", Status::Completed), Expect::Absent, None).await.unwrap();
    assert!(remove(jobs, &jobs.get(&"a".into()).await.unwrap().unwrap()).await);
    assert!(jobs.put(record("a", Status::Completed), Expect::Absent, None).await.unwrap() > first);
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
    let mut large = JobRecord::unreadable("a".into(), "mail.out", Status::Failed);
    large.message = Some(vec![0; 2 << 20].into());
    let error = backend.jobs().unwrap().put(large.into(), Expect::Absent, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

/// Puts records, many at a time: in no certain order.
async fn put_all(jobs: &Arc<dyn JobStore>, records: impl IntoIterator<Item = Arc<JobRecord>>) {
    let puts = records.into_iter().map(|record| jobs.put(record, Expect::Any, None));
    let puts: Vec<_> = stream::iter(puts).buffer_unordered(256).collect().await;
    assert!(puts.iter().all(Result::is_ok));
}

async fn remove(jobs: &Arc<dyn JobStore>, stored: &Stored) -> bool {
    jobs.remove(std::slice::from_ref(stored)).await.pop().unwrap().unwrap()
}

/// Publishes as a foreign or a newer program would.
async fn publish(url: &str, subject: String, body: &'static [u8]) {
    let client = async_nats::connect(url).await.unwrap();
    let answer = client.request(subject, Bytes::from_static(body)).await.unwrap();
    assert!(answer.payload.starts_with(b"{\"stream\""), "{answer:?}");
}

/// All that a filter lets through, page by page, until one is short.
async fn in_pages(backend: &Backend, filter: &RecordFilter, first: Page) -> Vec<Stored> {
    let (mut rows, mut page): (Vec<Stored>, _) = (Vec::new(), first);
    loop {
        let found = backend.jobs().unwrap().list(filter, page).await.unwrap();
        assert!(found.len() <= page.limit);
        let is_last = found.len() < page.limit;
        rows.extend(found);
        match rows.last() {
            Some(last) if !is_last => page = first.after(last.revision),
            _ => return rows,
        }
    }
}

/// Pages through all that a filter lets through, from both ends, and compares with what must be
/// there.
async fn check_pages(backend: &Backend, filter: &RecordFilter, expected: &[&JobRecord], limits: &[usize]) {
    let wanted: HashSet<_> = expected.iter().map(|record| record.id.as_str()).collect();
    for limit in limits {
        let newest = in_pages(backend, filter, Page::newest(*limit)).await;
        assert!(newest.windows(2).all(|pair| pair[0].revision > pair[1].revision), "{filter:?} {limit}");
        let got: HashSet<_> = newest.iter().map(|row| row.record.id.as_str()).collect();
        assert_eq!((newest.len(), &got), (expected.len(), &wanted), "{filter:?} by {limit}");
        let oldest = in_pages(backend, filter, Page::oldest(*limit)).await;
        let revisions = |rows: &[Stored]| rows.iter().map(|row| row.revision).collect::<Vec<_>>();
        let mut turned = revisions(&oldest);
        turned.reverse();
        assert_eq!(turned, revisions(&newest), "{filter:?} by {limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_dense_sparse_and_mixed_records_have_no_gap_and_no_repetition() {
    let backend = backend().await;
    let jobs = backend.jobs().unwrap();
    let status = |n: u32| match n {
        _ if n % 500 == 7 => Status::Failed,
        // A stretch of its own, which crowds the oldest end.
        ..2000 => Status::Expired,
        4000..4010 => Status::Expired,
        _ => Status::Completed,
    };
    let records: Vec<_> = (0..6000)
        .map(|n| record_in(["a", "b", "b", "b"][n as usize % 4], &n.to_string(), status(n)))
        .collect();
    // In stretches, whose order is certain.
    for stretch in records.chunks(1000) {
        put_all(jobs, stretch.iter().cloned()).await;
    }
    // Holes, also at the newest end.
    let gone = |n: u32| (2500..3500).contains(&n) || n >= 5900 || n % 10 == 3;
    let rows = in_pages(&backend, &RecordFilter::new(), Page::newest(1000)).await;
    let removed: Vec<_> =
        rows.into_iter().filter(|row| gone(row.record.id.as_str().parse().unwrap())).collect();
    assert!(jobs.remove(&removed).await.into_iter().all(Result::unwrap));
    let left: Vec<&JobRecord> =
        records.iter().filter(|record| !gone(record.id.as_str().parse().unwrap())).map(|r| &**r).collect();
    let of = |test: &dyn Fn(&JobRecord) -> bool| -> Vec<&JobRecord> {
        left.iter().copied().filter(|record| test(record)).collect()
    };
    let all = RecordFilter::new();
    check_pages(&backend, &all, &left, &[97, 1000, 6000]).await;
    check_pages(&backend, &all.clone().queue("a"), &of(&|r| r.queue == "a"), &[50, 3000]).await;
    for status in [Status::Failed, Status::Expired, Status::Completed, Status::Running] {
        let limits: &[usize] = if status == Status::Failed { &[1, 5, 100] } else { &[60, 2000] };
        check_pages(&backend, &all.clone().status(status), &of(&|r| r.status == status), limits).await;
    }
    let few = all.clone().queue("b").status(Status::Failed);
    check_pages(&backend, &few, &of(&|r| r.queue == "b" && r.status == Status::Failed), &[1, 4]).await;
    assert!(jobs.list(&all, Page::newest(0)).await.unwrap().is_empty());
    assert_eq!(jobs.list(&all, Page::newest(3).after(u64::MAX)).await.unwrap().len(), 3);
    assert!(jobs.list(&all, Page::newest(3).after(1)).await.unwrap().is_empty());
    assert!(jobs.list(&all, Page::oldest(3).after(u64::MAX)).await.unwrap().is_empty());
    let counts = jobs.counts(&["a".to_owned(), "none".to_owned(), "b".to_owned()]).await.unwrap();
    assert_eq!(counts.iter().map(|row| row.count).sum::<u64>(), left.len() as u64);
    for RecordCount { queue, status, count } in counts {
        assert_eq!(of(&|r| r.queue == queue && r.status == status).len() as u64, count, "{queue} {status}");
    }
}

#[tokio::test]
async fn odd_names_are_listed_counted_and_removed() {
    let backend = backend().await;
    let jobs = backend.jobs().unwrap();
    for name in ODD_NAMES {
        put_all(jobs, ODD_NAMES.map(|id| record_in(name, &format!("{name}/{id}"), Status::Failed))).await;
    }
    for name in ODD_NAMES {
        let filter = RecordFilter::new().queue(name).status(Status::Failed);
        let rows = jobs.list(&filter, Page::newest(100)).await.unwrap();
        let ids: HashSet<_> = rows.iter().map(|row| row.record.id.as_str().to_owned()).collect();
        assert_eq!(ids, ODD_NAMES.map(|id| format!("{name}/{id}")).into(), "{name:?}");
        assert!(rows.iter().all(|row| row.record.queue == name));
        assert_eq!(jobs.counts(&[name.to_owned()]).await.unwrap()[0].count, ODD_NAMES.len() as u64);
        assert!(jobs.remove(&rows).await.into_iter().all(Result::unwrap));
        assert!(jobs.counts(&[name.to_owned()]).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_removed_record_takes_what_it_replaced_along_and_spares_what_replaced_it() {
    let (backend, prefix, url) = with_prefix().await;
    let jobs = backend.jobs().unwrap();
    // As a writer leaves it that died before it cleaned up.
    publish(&url, format!("{prefix}.r.mail=2Eout.running.a"), b"left behind").await;
    publish(&url, format!("{prefix}.r.mail=2Eout.retrying.a"), b"left behind").await;
    jobs.put(record("a", Status::Completed), Expect::Absent, None).await.unwrap_err();
    let body = record("a", Status::Completed).to_bytes();
    publish(&url, format!("{prefix}.r.mail=2Eout.completed.a"), Vec::leak(body.to_vec())).await;
    let stored = jobs.get(&"a".into()).await.unwrap().unwrap();
    assert_eq!(stored.record.status, Status::Completed);
    assert!(remove(jobs, &stored).await);
    assert!(jobs.get(&"a".into()).await.unwrap().is_none());
    assert!(jobs.list(&RecordFilter::new(), Page::newest(9)).await.unwrap().is_empty());

    jobs.put(record("b", Status::Failed), Expect::Absent, None).await.unwrap();
    let read = jobs.get(&"b".into()).await.unwrap().unwrap();
    let later = jobs.put(record("b", Status::Failed), Expect::Revision(read.revision), None).await.unwrap();
    assert!(!remove(jobs, &read).await);
    assert_eq!(jobs.get(&"b".into()).await.unwrap().unwrap().revision, later);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_by_what_its_subject_says() {
    let (backend, prefix, url) = with_prefix().await;
    let jobs = backend.jobs().unwrap();
    publish(&url, format!("{prefix}.r.mail=2Eout.failed.a=20b"), b"nonsense").await;
    publish(&url, format!("{prefix}.r.mail=2Eout.hibernating.c"), b"nonsense").await;
    let rows = jobs.list(&RecordFilter::new(), Page::oldest(9)).await.unwrap();
    let records: Vec<_> = rows.iter().map(|row| &row.record).collect();
    assert_eq!(records, [&*record("a b", Status::Failed), &*record("c", Status::Unknown)]);
    // Read alone, too: a job that comes again must not wait for its record to vanish.
    assert_eq!(jobs.get(&"a b".into()).await.unwrap().unwrap().record, rows[0].record);
    assert!(jobs.remove(&rows).await.into_iter().all(Result::unwrap));
    assert!(jobs.list(&RecordFilter::new(), Page::oldest(9)).await.unwrap().is_empty());
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
