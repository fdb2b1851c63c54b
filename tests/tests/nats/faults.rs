//! The NATS backend when answers are lost, servers crash and threads block.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aioq::broker::{Demand, Expect, Kicked, Page, QueuedFilter, Replaced, Subscription, lease_runtime};
use aioq::jobs::JobFilter;
use aioq::message::Envelope;
use aioq::store::{JobRecord, RecordFilter, Status};
use aioq::{Backend, Client, Timestamp};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, Proxy, unique_prefix, until, until_within};

use crate::support;
use crate::support::{TestListener, backend, envelope};

/// A backend behind a proxy, one that sees what is really there, and the proxy.
async fn behind_proxy() -> (Backend, Backend, Proxy) {
    let server = NatsServer::shared().await.unwrap();
    let (proxy, prefix) = (Proxy::before(&server.url()).await.unwrap(), unique_prefix());
    let backend: Backend = Nats::new(proxy.url()).prefix(&prefix).into();
    let direct: Backend = Nats::new(server.url()).prefix(&prefix).into();
    support::start(&backend).await;
    support::start(&direct).await;
    (backend, direct, proxy)
}

/// Runs `write` so that its first answer is lost: the connection breaks once the write has
/// `arrived`.
async fn losing_the_answer<T>(
    proxy: &Proxy,
    write: impl Future<Output = T>,
    arrived: impl AsyncFn() -> bool,
) -> T {
    proxy.lose_answers();
    let cut = async {
        until("the write has arrived", arrived).await;
        proxy.reconnect();
    };
    tokio::join!(write, cut).0
}

#[tokio::test]
async fn a_kick_whose_answer_is_lost_makes_one_message_and_is_new() {
    let (backend, direct, proxy) = behind_proxy().await;
    for (id, expect) in [("any", Expect::Any), ("absent", Expect::Absent)] {
        let arrived = || async { direct.broker().find(&id.into()).await.unwrap().is_some() };
        let kick = backend.broker().kick(envelope(id, id), expect);
        assert_eq!(losing_the_answer(&proxy, kick, arrived).await.unwrap(), Kicked::New, "{id}");
        assert_eq!(direct.broker().depths(&[id.to_owned()]).await.unwrap()[0].ready, 1, "{id}");
        assert_eq!(backend.broker().kick(envelope(id, id), expect).await.unwrap(), Kicked::Existing, "{id}");
    }
}

#[tokio::test]
async fn many_kicks_whose_answers_are_lost_are_each_there_once() {
    let (backend, direct, proxy) = behind_proxy().await;
    let depth = async || direct.broker().depths(&["x".to_owned()]).await.unwrap()[0].ready;
    let envelopes = (0..300).map(|n| (envelope(&n.to_string(), "x"), Expect::Absent)).collect();
    let arrived = || async { depth().await == 300 };
    let fates = losing_the_answer(&proxy, backend.broker().kick_all(envelopes), arrived).await;
    assert!(fates.iter().all(|fate| *fate.as_ref().unwrap() == Kicked::New));
    assert_eq!(depth().await, 300);
}

#[tokio::test]
async fn a_scheduled_kick_whose_answer_is_lost_is_there_once_although_it_has_fired() {
    let (backend, direct, proxy) = behind_proxy().await;
    let mut soon = envelope("a", "x");
    soon.not_before = Some(Timestamp::now() + Duration::from_millis(1100));
    let arrived =
        || async { direct.broker().find(&"a".into()).await.unwrap().is_some_and(|found| found.ready) };
    let kicked = losing_the_answer(&proxy, backend.broker().kick(soon, Expect::Any), arrived).await;
    assert_eq!(kicked.unwrap(), Kicked::New);
    let depth = &direct.broker().depths(&["x".to_owned()]).await.unwrap()[0];
    assert_eq!((depth.ready, depth.scheduled), (1, 0));
}

#[tokio::test]
async fn a_record_whose_answer_is_lost_is_no_conflict() {
    let (backend, direct, proxy) = behind_proxy().await;
    let (jobs, direct) = (backend.jobs().unwrap(), direct.jobs().unwrap());
    let record = |status| Arc::new(JobRecord::unreadable("a".into(), "x", status));
    let status = async || direct.get(&"a".into()).await.unwrap().map(|stored| stored.record.status);
    let arrived = || async { status().await == Some(Status::Running) };
    let put = jobs.put(record(Status::Running), Expect::Absent, None);
    let first = losing_the_answer(&proxy, put, arrived).await.unwrap();
    let arrived = || async { status().await == Some(Status::Completed) };
    let put = jobs.put(record(Status::Completed), Expect::Revision(first), None);
    let second = losing_the_answer(&proxy, put, arrived).await.unwrap();
    assert_eq!(direct.get(&"a".into()).await.unwrap().unwrap().revision, second);
}

#[tokio::test]
async fn a_removal_whose_answer_is_lost_has_removed() {
    let (backend, direct, proxy) = behind_proxy().await;
    let id = "a".into();
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    let messages = [backend.broker().find(&id).await.unwrap().unwrap()];
    let arrived = async || direct.broker().find(&id).await.unwrap().is_none();
    let removed = losing_the_answer(&proxy, backend.broker().remove(&messages), arrived).await;
    assert!(removed.into_iter().all(Result::unwrap));
    assert!(!backend.broker().remove(&messages).await.pop().unwrap().unwrap());

    let (jobs, direct) = (backend.jobs().unwrap(), direct.jobs().unwrap());
    let record = Arc::new(JobRecord::unreadable(id.clone(), "x", Status::Failed));
    jobs.put(record, Expect::Any, None).await.unwrap();
    let records = [jobs.get(&id).await.unwrap().unwrap()];
    let arrived = async || direct.get(&id).await.unwrap().is_none();
    let removed = losing_the_answer(&proxy, jobs.remove(&records), arrived).await;
    assert!(removed.into_iter().all(Result::unwrap));
    assert!(!jobs.remove(&records).await.pop().unwrap().unwrap());
}

#[tokio::test]
async fn a_list_is_whole_although_the_connection_breaks() {
    let (backend, direct, proxy) = behind_proxy().await;
    let envelopes = (0..2000).map(|n| (envelope(&n.to_string(), "x"), Expect::Any)).collect();
    direct.broker().kick_all(envelopes).await;
    let all = QueuedFilter::new();
    for page in [Page::newest(3000), Page::oldest(3000)] {
        let list = backend.broker().list(&all, page);
        let (rows, ()) = tokio::join!(list, async { proxy.reconnect() });
        assert_eq!(rows.unwrap().len(), 2000);
    }
}

#[tokio::test]
async fn a_key_whose_answer_is_lost_is_no_conflict_and_somebody_elses_is() {
    let (backend, direct, proxy) = behind_proxy().await;
    let arrived = || async { direct.kv().get("lock").await.unwrap().is_some() };
    let put = backend.kv().put("lock", "same".into(), Expect::Absent, None);
    let revision = losing_the_answer(&proxy, put, arrived).await.unwrap();
    assert_eq!(direct.kv().get("lock").await.unwrap().unwrap().revision, revision);
    // The same value, but not this writer's.
    direct.kv().put("other", "same".into(), Expect::Absent, None).await.unwrap();
    proxy.reconnect();
    assert!(backend.kv().put("other", "same".into(), Expect::Absent, None).await.is_err());
}

#[tokio::test]
async fn a_replacement_whose_answer_is_lost_is_done() {
    let (backend, direct, proxy) = behind_proxy().await;
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    let delivery = TestListener::new(&backend, &["x"]).await.one().await;
    let next = Envelope::new("a".into(), "x", "next");
    let arrived = || async { direct.broker().find(&"a".into()).await.unwrap().unwrap().body == "next" };
    let replaced = losing_the_answer(&proxy, delivery.receipt.replace(next), arrived).await;
    assert_eq!(replaced.unwrap(), Replaced::Done);
    let again = Envelope::new("a".into(), "x", "again");
    assert_eq!(delivery.receipt.replace(again).await.unwrap(), Replaced::Lost);
}

#[tokio::test]
async fn a_broken_connection_is_mended_while_a_listener_waits() {
    let (backend, direct, proxy) = behind_proxy().await;
    let mut listener = TestListener::new(&backend, &["x"]).await;
    for round in 0..5 {
        proxy.reconnect();
        let id = round.to_string();
        direct.broker().kick(envelope(&id, "x"), Expect::Any).await.unwrap();
        let delivery = listener.one().await;
        assert_eq!(delivery.id.as_str(), id);
        delivery.receipt.ack().await.unwrap();
        until("it is gone", async || direct.broker().find(&id.as_str().into()).await.unwrap().is_none())
            .await;
    }
}

#[tokio::test]
async fn a_server_that_vanishes_without_a_word_is_left_for_the_next_one_soon() {
    let server = NatsServer::shared().await.unwrap();
    let proxies = [Proxy::before(&server.url()).await.unwrap(), Proxy::before(&server.url()).await.unwrap()];
    let urls = format!("{},{}", proxies[0].url(), proxies[1].url());
    let backend: Backend = Nats::new(urls).prefix(unique_prefix()).into();
    support::start(&backend).await;
    // One of the two is the one that it is connected to.
    for (proxy, id) in proxies.iter().zip(["a", "b"]) {
        proxy.lose_answers();
        let kicked = async || backend.broker().kick(envelope(id, "x"), Expect::Any).await.is_ok();
        until_within(Duration::from_secs(15), "a kick is confirmed", kicked).await;
        proxy.reconnect();
    }
}

#[tokio::test]
async fn a_lease_is_extended_while_the_runtime_is_blocked() {
    let backend = backend().await;
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    let subscription = Subscription::new(["x"]).ack_wait(Duration::from_millis(500));
    let mut listener = TestListener::with(&backend, subscription).await;
    let delivery = listener.one().await;
    let receipt = delivery.receipt.clone();
    let (extended, is_extended) = std::sync::mpsc::channel();
    let keeping = lease_runtime().spawn(async move {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            receipt.extend().await.unwrap();
        }
        extended.send(()).unwrap();
    });
    // Blocks the only thread of this runtime, for three leases.
    is_extended.recv().unwrap();
    delivery.receipt.ack().await.unwrap();
    keeping.await.unwrap();
    until("it is gone", async || backend.broker().find(&"a".into()).await.unwrap().is_none()).await;
    backend.broker().kick(envelope("b", "x"), Expect::Any).await.unwrap();
    assert_eq!(listener.one().await.id.as_str(), "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_that_come_and_go_leave_nothing_behind() {
    let backend = backend().await;
    let total = 4000;
    let kicking = {
        let broker = backend.broker().clone();
        tokio::spawn(async move {
            for n in 0..total {
                let mut envelope = envelope(&n.to_string(), "x");
                envelope.priority = aioq::message::Priority::new((n % 10) as u8).unwrap();
                broker.kick(envelope, Expect::Any).await.unwrap();
            }
        })
    };
    let started = tokio::time::Instant::now();
    let mut got = HashMap::new();
    while got.len() < total {
        let mut listener = TestListener::new(&backend, &["x"]).await;
        for _ in 0..5 {
            for delivery in listener.take(Demand { now: 16, prefetch: 32 }).await {
                *got.entry(delivery.id.clone()).or_insert(0) += 1;
                delivery.receipt.ack().await.unwrap();
            }
            if got.len() == total {
                break;
            }
        }
        listener.inner.stop().await.unwrap();
    }
    kicking.await.unwrap();
    assert!(got.values().all(|count| *count == 1));
    // Well below the `ack_wait` of 30 s: nothing had to come back by that.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_when_the_server_crashes() {
    let mut server = NatsServer::start().await.unwrap();
    let backend: Backend = Nats::new(server.url()).deadline(Duration::from_secs(10)).into();
    support::start(&backend).await;
    let done = Arc::new(AtomicBool::new(false));
    let confirmed = Arc::new(AtomicUsize::new(0));
    let kicking = {
        let (broker, done, confirmed) = (backend.broker().clone(), done.clone(), confirmed.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let from = confirmed.load(Ordering::Relaxed);
                let batch = (from..from + 50).map(|n| (envelope(&n.to_string(), "x"), Expect::Any)).collect();
                let fates = broker.kick_all(batch).await;
                assert!(fates.iter().all(Result::is_ok), "{fates:?}");
                confirmed.store(from + 50, Ordering::Relaxed);
            }
            confirmed.load(Ordering::Relaxed)
        })
    };
    let subscription = Subscription::new(["x"]).ack_wait(Duration::from_secs(2));
    let mut listener = TestListener::with(&backend, subscription).await;
    let receiving = tokio::spawn(async move {
        let mut seen = std::collections::HashSet::new();
        let quiet = Duration::from_secs(6);
        let demand = Demand { now: 8, prefetch: 16 };
        while let Ok(deliveries) = tokio::time::timeout(quiet, listener.inner.next(demand)).await {
            for delivery in deliveries.unwrap() {
                delivery.receipt.ack().await.unwrap();
                seen.insert(delivery.id.to_string());
            }
        }
        seen
    });
    for _ in 0..3 {
        let enough = confirmed.load(Ordering::Relaxed) + 500;
        until("jobs flow", async || confirmed.load(Ordering::Relaxed) >= enough).await;
        server.restart().await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let confirmed = kicking.await.unwrap();
    let seen = receiving.await.unwrap();
    assert!(confirmed > 100);
    let lost: Vec<_> = (0..confirmed).filter(|n| !seen.contains(&n.to_string())).collect();
    assert!(lost.is_empty(), "{} of {confirmed} lost: {lost:?}", lost.len());
    until("the queue is empty", async || {
        let depth = &backend.broker().depths(&["x".to_owned()]).await.unwrap()[0];
        depth.ready + depth.held == 0
    })
    .await;
}

/// A server that had jobs and was killed: what it brings back.
async fn crashed(work: impl AsyncFnOnce(&Backend)) -> (NatsServer, Backend) {
    let mut server = NatsServer::start().await.unwrap();
    let backend: Backend = Nats::new(server.url()).deadline(Duration::from_secs(10)).into();
    support::start(&backend).await;
    work(&backend).await;
    // Something comes after it, so that the last of it is not what was not written yet.
    backend.kv().put("other", "x".into(), Expect::Any, None).await.unwrap();
    backend.jobs().unwrap().put(ended("other"), Expect::Any, None).await.unwrap();
    server.restart().await.unwrap();
    (server, backend)
}

fn ended(id: &str) -> Arc<JobRecord> {
    Arc::new(JobRecord::unreadable(id.into(), "x", Status::Completed))
}

#[tokio::test]
async fn a_key_that_was_written_twice_and_removed_stays_removed_when_the_server_crashes() {
    let (_server, backend) = crashed(async |backend| {
        backend.kv().put("key", "one".into(), Expect::Any, None).await.unwrap();
        let second = backend.kv().put("key", "two".into(), Expect::Any, None).await.unwrap();
        assert!(backend.kv().delete("key", Expect::Revision(second)).await.unwrap());
    })
    .await;
    assert!(backend.kv().get("key").await.unwrap().is_none());
}

/// A server that crashes brings back what a newer message of the subject had replaced, once that is
/// purged: its limit of one message per subject leaves no trace on disk.
#[tokio::test]
async fn a_running_record_that_a_crashed_server_brings_back_is_not_taken_for_a_job() {
    let (_server, backend) = crashed(async |backend| {
        let jobs = backend.jobs().unwrap();
        let running = || Arc::new(JobRecord::unreadable("a".into(), "x", Status::Running));
        let first = jobs.put(running(), Expect::Absent, None).await.unwrap();
        let second = jobs.put(running(), Expect::Revision(first), None).await.unwrap();
        jobs.put(ended("a"), Expect::Revision(second), None).await.unwrap();
    })
    .await;
    let jobs = backend.jobs().unwrap();
    assert_eq!(jobs.get(&"a".into()).await.unwrap().unwrap().record.status, Status::Completed);
    let client = Client::connect(backend.clone()).await.unwrap();
    let running = client.jobs().list(JobFilter::new().status(Status::Running), 10).await.unwrap();
    assert!(running.jobs.is_empty(), "{:?}", running.jobs);
    // A worker removes it when it tidies up, once a minute: what counts here is what it then does.
    for stored in jobs.list(&RecordFilter::new().status(Status::Running), Page::oldest(10)).await.unwrap() {
        assert!(jobs.remove(&[stored]).await.pop().unwrap().unwrap());
    }
    assert_eq!(jobs.get(&"a".into()).await.unwrap().unwrap().record.status, Status::Completed);
    let counts = jobs.counts(&["x".to_owned()]).await.unwrap();
    assert!(counts.iter().all(|count| count.status != Status::Running), "{counts:?}");
}
