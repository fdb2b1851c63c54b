//! The NATS broker against a real server.

use std::time::Duration;

use aioq::broker::{Demand, Expect, Kicked, Subscription};
use aioq::message::{Envelope, Name, Priority};
use aioq::{Backend, ErrorKind};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, unique_prefix, until};
use serde_json::Value;

use crate::support;
use crate::support::{TestListener, backend, completed, envelope, next_one, stream_info};

const NOW: Demand = Demand { now: 1, prefetch: 0 };

#[tokio::test]
async fn a_kicked_message_is_delivered_once_and_gone_when_acked() {
    let backend = backend().await;
    let kicked = backend.broker().kick(envelope("a.b c", "mail.out"), Expect::Absent).await.unwrap();
    assert_eq!(kicked, Kicked::New);
    let found = backend.broker().find(&"a.b c".into()).await.unwrap().unwrap();
    assert_eq!((found.queue.as_str(), found.ready, &found.body[..]), ("mail.out", true, &b"a.b c"[..]));
    let mut listener = TestListener::new(&backend, &["mail.out"]).await;
    let delivery = listener.one().await;
    assert_eq!((delivery.id.as_str(), &*delivery.queue, delivery.deliveries), ("a.b c", "mail.out", 1));
    assert!(delivery.receipt.is_newest().await.unwrap());
    delivery.receipt.ack().await.unwrap();
    until("it is gone", async || backend.broker().find(&"a.b c".into()).await.unwrap().is_none()).await;
}

#[tokio::test]
async fn many_messages_are_kicked_at_once_and_each_has_its_fate() {
    let backend = backend().await;
    backend.broker().kick(envelope("7", "x"), Expect::Absent).await.unwrap();
    let mut envelopes: Vec<_> = (0..9000).map(|n| (envelope(&n.to_string(), "x"), Expect::Absent)).collect();
    envelopes[11].0.body = vec![0; 2 << 20].into();
    envelopes[12].0.queue = Name::default();
    let fates = backend.broker().kick_all(envelopes).await;
    assert_eq!(fates.len(), 9000);
    for (index, fate) in fates.iter().enumerate() {
        match index {
            7 => assert_eq!(fate.as_ref().unwrap(), &Kicked::Existing),
            11 => assert_eq!(fate.as_ref().unwrap_err().kind(), ErrorKind::TooLarge),
            12 => assert_eq!(fate.as_ref().unwrap_err().kind(), ErrorKind::InvalidArgument),
            _ => assert_eq!(fate.as_ref().unwrap(), &Kicked::New, "{index}"),
        }
    }
    assert_eq!(backend.broker().depths(&["x".to_owned()]).await.unwrap()[0].ready, 8998);
}

#[tokio::test]
async fn kicks_of_many_tasks_do_not_wait_for_each_other() {
    let backend = backend().await;
    let kicks = (0..500).map(|n| {
        let broker = backend.broker().clone();
        tokio::spawn(async move { broker.kick(envelope(&n.to_string(), "x"), Expect::Any).await })
    });
    for kick in kicks.collect::<Vec<_>>() {
        assert_eq!(kick.await.unwrap().unwrap(), Kicked::New);
    }
}

#[tokio::test]
async fn high_priority_comes_first_and_lower_lanes_are_not_starved() {
    let backend = backend().await;
    let mut envelopes = Vec::new();
    for n in 0..200 {
        for (lane, priority) in [("low", 9), ("normal", 5), ("high", 0)] {
            let mut envelope = envelope(&format!("{lane}{n}"), "x");
            envelope.priority = Priority::new(priority).unwrap();
            envelopes.push((envelope, Expect::Any));
        }
    }
    backend.broker().kick_all(envelopes).await;
    let mut listener = TestListener::new(&backend, &["x"]).await;
    let mut order = Vec::new();
    while order.len() < 600 {
        for delivery in listener.take(Demand { now: 1, prefetch: 20 }).await {
            order.push(delivery.id.as_str().trim_end_matches(char::is_numeric).to_owned());
            delivery.receipt.ack().await.unwrap();
        }
    }
    let count = |part: &[String], lane: &str| part.iter().filter(|name| *name == lane).count();
    assert!(count(&order[..200], "high") > 150, "{} high", count(&order[..200], "high"));
    assert!(count(&order[..200], "normal") > 0 && count(&order[..200], "low") > 0);
    assert!(count(&order[..400], "normal") > count(&order[..400], "low"));
}

#[tokio::test]
async fn dropping_next_loses_no_message() {
    let backend = backend().await;
    let mut listener = TestListener::new(&backend, &["x"]).await;
    let kick = async {
        for n in 0..200 {
            backend.broker().kick(envelope(&n.to_string(), "x"), Expect::Any).await.unwrap();
        }
    };
    let receive = async {
        let mut got = 0;
        while got < 200 {
            let patience = Duration::from_micros(150);
            if let Ok(deliveries) = tokio::time::timeout(patience, listener.inner.next(NOW)).await {
                for delivery in deliveries.unwrap() {
                    assert_eq!(delivery.deliveries, 1);
                    delivery.receipt.ack().await.unwrap();
                    got += 1;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(kick, receive) }).await.unwrap();
}

#[tokio::test]
async fn what_a_full_worker_is_sent_goes_to_another() {
    let backend = backend().await;
    let mut busy = TestListener::new(&backend, &["x"]).await;
    backend.broker().kick(envelope("first", "x"), Expect::Any).await.unwrap();
    let held = busy.one().await;
    // Requests of the busy worker still wait in the other lanes; it does not come back for what
    // they bring.
    let mut urgent = envelope("urgent", "x");
    urgent.priority = Priority::new(0).unwrap();
    backend.broker().kick(urgent, Expect::Any).await.unwrap();
    let mut idle = TestListener::new(&backend, &["x"]).await;
    let started = tokio::time::Instant::now();
    assert_eq!(idle.one().await.id.as_str(), "urgent");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    held.receipt.ack().await.unwrap();
}

#[tokio::test]
async fn prefetched_messages_keep_their_lease_until_they_are_handed_out() {
    let backend = backend().await;
    let envelopes = (0..10).map(|n| (envelope(&n.to_string(), "x"), Expect::Any)).collect();
    backend.broker().kick_all(envelopes).await;
    let subscription = Subscription::new(["x"]).ack_wait(Duration::from_millis(500));
    let mut listener = TestListener::with(&backend, subscription).await;
    let demand = Demand { now: 1, prefetch: 9 };
    listener.take(demand).await.pop().unwrap().receipt.ack().await.unwrap();
    listener.take(demand).await.pop().unwrap().receipt.ack().await.unwrap();
    for left in (0..8).rev() {
        // Two of them are longer than the lease, one is shorter than the time for which it keeps
        // all of them.
        if left >= 5 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        let delivery = listener.take(demand).await.pop().unwrap();
        assert_eq!(delivery.deliveries, 1);
        delivery.receipt.ack().await.unwrap();
    }
}

#[tokio::test]
async fn the_first_listener_sets_the_ack_wait_and_others_adopt_it() {
    let (backend, prefix, url) = support::with_prefix().await;
    let queue = || Subscription::new(["x"]);
    let _first = TestListener::with(&backend, queue().ack_wait(Duration::from_secs(3))).await;
    let other: Backend = Nats::new(url).prefix(prefix).into();
    support::start(&other).await;
    let mut second = TestListener::with(&other, queue()).await;
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    let held = second.one().await;
    assert_eq!(held.receipt.ack_wait(), Duration::from_secs(3));
    // A shorter value is adopted by who holds something, and only then applied.
    let _third = TestListener::with(&backend, queue().ack_wait(Duration::from_millis(900))).await;
    until("the holder adopts it", async || held.receipt.ack_wait() == Duration::from_millis(900)).await;
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        held.receipt.extend().await.unwrap();
    }
    assert_eq!(second.one().await.deliveries, 2);
}

#[tokio::test]
async fn a_listener_survives_a_restart_of_the_server() {
    let mut server = NatsServer::start().await.unwrap();
    let backend: Backend = Nats::new(server.url()).into();
    support::start(&backend).await;
    let mut listener = TestListener::new(&backend, &["x"]).await;
    backend.broker().kick(envelope("before", "x"), Expect::Any).await.unwrap();
    listener.one().await.receipt.ack().await.unwrap();
    until("it is gone", async || backend.broker().find(&"before".into()).await.unwrap().is_none()).await;
    let waiting = tokio::spawn(async move { listener.one().await.id });
    server.restart().await.unwrap();
    until("a kick is confirmed", async || {
        backend.broker().kick(envelope("after", "x"), Expect::Any).await.is_ok()
    })
    .await;
    assert_eq!(waiting.await.unwrap().as_str(), "after");
}

#[tokio::test]
async fn a_deleted_consumer_is_declared_again() {
    let (backend, prefix, url) = support::with_prefix().await;
    let mut listener = TestListener::new(&backend, &["x"]).await;
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    listener.one().await.receipt.ack().await.unwrap();
    let client = async_nats::connect(url).await.unwrap();
    let delete = format!("$JS.API.CONSUMER.DELETE.{}_JOBS.x-normal", prefix.to_uppercase());
    client.request(delete, bytes::Bytes::new()).await.unwrap();
    backend.broker().kick(envelope("b", "x"), Expect::Any).await.unwrap();
    assert_eq!(listener.one().await.id.as_str(), "b");
}

#[tokio::test]
async fn a_kick_waits_out_a_short_outage() {
    let mut server = NatsServer::start().await.unwrap();
    let backend: Backend = Nats::new(server.url()).deadline(Duration::from_secs(15)).into();
    support::start(&backend).await;
    server.kill();
    let kick = backend.broker().kick(envelope("a", "x"), Expect::Absent);
    let (kicked, restarted) = tokio::join!(kick, server.restart());
    restarted.unwrap();
    assert_eq!(kicked.unwrap(), Kicked::New);
    assert_eq!(backend.broker().depths(&["x".to_owned()]).await.unwrap()[0].ready, 1);
}

#[tokio::test]
async fn a_kick_into_the_void_fails_in_time_and_names_the_job() {
    let mut server = NatsServer::start().await.unwrap();
    let backend: Backend = Nats::new(server.url()).deadline(Duration::from_millis(700)).into();
    support::start(&backend).await;
    server.kill();
    let started = tokio::time::Instant::now();
    let error = backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Connection | ErrorKind::Deadline), "{error}");
    assert_eq!(error.id().unwrap().as_str(), "a");
    let fates = backend.broker().kick_all(vec![(envelope("b", "x"), Expect::Any); 3]).await;
    assert!(fates.iter().all(|fate| fate.as_ref().unwrap_err().id().unwrap().as_str() == "b"));
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let server = NatsServer::shared().await.unwrap();
    let small: Backend = Nats::new(server.url()).prefix(unique_prefix()).max_body_bytes(100).into();
    support::start(&small).await;
    assert_eq!(small.broker().info().max_body_bytes, 100);
    let large = Envelope::new("a".into(), "x", vec![0; 101]);
    assert_eq!(small.broker().kick(large, Expect::Any).await.unwrap_err().kind(), ErrorKind::TooLarge);
    let fits = Envelope::new("a".into(), "x", vec![0; 100]);
    assert_eq!(small.broker().kick(fits, Expect::Any).await.unwrap(), Kicked::New);
    let standard = backend().await;
    // The server takes 1 MiB, envelope included.
    assert_eq!(standard.broker().info().max_body_bytes, (1 << 20) - (64 << 10));
    let largest = Envelope::new("a".into(), "x", vec![7; (1 << 20) - (64 << 10)]);
    assert_eq!(standard.broker().kick(largest, Expect::Any).await.unwrap(), Kicked::New);
    assert_eq!(next_one(&standard, "x").await.body.len(), (1 << 20) - (64 << 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_leave_nothing_behind_but_their_records() {
    const JOBS: usize = 10_000;
    let (backend, prefix, url) = support::with_prefix().await;
    let envelopes = (0..JOBS).map(|n| (envelope(&n.to_string(), "x"), Expect::Any)).collect();
    backend.broker().kick_all(envelopes).await;
    let mut listener = TestListener::new(&backend, &["x"]).await;
    let mut done = 0;
    while done < JOBS {
        let deliveries = listener.take(Demand { now: 500, prefetch: 500 }).await;
        let finish = deliveries.iter().map(async |delivery| {
            let record = completed(delivery.id.as_str());
            backend.jobs().unwrap().put(record, Expect::Absent, None).await.unwrap();
            delivery.receipt.ack().await.unwrap();
        });
        done += futures_util::future::join_all(finish).await.len();
    }
    let jobs =
        async || stream_info(&url, &prefix, "JOBS", r#"{"subjects_filter":">"}"#).await["state"].clone();
    until("the stream is empty", async || jobs().await["messages"] == 0).await;
    let state = jobs().await;
    assert_eq!((&state["consumer_count"], &state["subjects"]), (&Value::from(3), &Value::Null), "{state}");
    let keys = stream_info(&url, &prefix, "KV", r#"{"subjects_filter":">"}"#).await;
    let keys: Vec<_> = keys["state"]["subjects"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, [format!("{prefix}.kv.queue.x")]);
    let depth = backend.broker().depths(&["x".to_owned()]).await.unwrap().pop().unwrap();
    assert_eq!((depth.ready, depth.held, depth.oldest), (0, 0, None));
    let counts = backend.jobs().unwrap().counts(&["x".to_owned()]).await.unwrap();
    assert_eq!((counts.len(), counts[0].count), (1, JOBS as u64));
}
