//! The NATS broker against a real server.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::support;
use crate::support::{ODD_NAMES, PATIENCE, Worker, backend, envelope, next_one, until};
use aioq::broker::{
    Broker, Demand, Expect, Kicked, Order, Page, Queued, QueuedFilter, Replaced, Subscription, Waiting,
};
use aioq::store::{JobRecord, Status};
use aioq::{Backend, Envelope, ErrorKind, Name, Priority, Timestamp};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, unique_prefix};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::timeout;

const NOW: Demand = Demand { now: 1, prefetch: 0 };

#[tokio::test]
async fn a_kicked_message_is_delivered_once_and_gone_when_acked() {
    let backend = backend().await;
    let kicked = backend.broker().kick(envelope("a.b c", "mail.out"), Expect::Absent).await.unwrap();
    assert_eq!(kicked, Kicked::New);
    let found = backend.broker().find(&"a.b c".into()).await.unwrap().unwrap();
    assert_eq!((found.queue.as_str(), found.ready, &found.body[..]), ("mail.out", true, &b"a.b c"[..]));
    let mut worker = Worker::new(&backend, &["mail.out"]).await;
    let delivery = worker.one().await;
    assert_eq!((delivery.id.as_str(), &*delivery.queue, delivery.deliveries), ("a.b c", "mail.out", 1));
    assert!(delivery.receipt.is_newest().await.unwrap());
    delivery.receipt.ack().await.unwrap();
    until(|| async { backend.broker().find(&"a.b c".into()).await.unwrap().is_none() }).await;
}

#[tokio::test]
async fn a_second_kick_under_the_same_id_adds_nothing() {
    let backend = backend().await;
    let broker = backend.broker();
    assert_eq!(broker.kick(envelope("a", "x"), Expect::Absent).await.unwrap(), Kicked::New);
    assert_eq!(broker.kick(envelope("a", "x"), Expect::Absent).await.unwrap(), Kicked::Existing);
    assert_eq!(broker.kick(envelope("a", "y"), Expect::Absent).await.unwrap(), Kicked::Existing);
    assert_eq!(broker.kick(envelope("b", "x"), Expect::Any).await.unwrap(), Kicked::New);
    assert_eq!(broker.kick(envelope("b", "x"), Expect::Any).await.unwrap(), Kicked::Existing);
    let depth = &broker.depths(&["x".to_owned(), "y".to_owned()]).await.unwrap();
    assert_eq!((depth[0].ready, depth[1].ready), (2, 0));
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
async fn a_message_for_later_is_not_delivered_before_its_time() {
    let backend = backend().await;
    let mut later = envelope("later", "x");
    let due = Timestamp::now() + Duration::from_millis(1500);
    later.not_before = Some(due);
    backend.broker().kick(later.clone(), Expect::Absent).await.unwrap();
    assert_eq!(backend.broker().kick(later, Expect::Absent).await.unwrap(), Kicked::Existing);
    let found = backend.broker().find(&"later".into()).await.unwrap().unwrap();
    assert!(!found.ready);
    assert_eq!(backend.broker().depths(&["x".to_owned()]).await.unwrap()[0].scheduled, 1);
    let delivery = Worker::new(&backend, &["x"]).await.one().await;
    assert_eq!(delivery.id.as_str(), "later");
    assert!(Timestamp::now() >= due);
    assert!(delivery.receipt.is_newest().await.unwrap());
    assert_eq!(backend.broker().depths(&["x".to_owned()]).await.unwrap()[0].scheduled, 0);
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
    let mut worker = Worker::new(&backend, &["x"]).await;
    let mut order = Vec::new();
    while order.len() < 600 {
        for delivery in worker.take(Demand { now: 1, prefetch: 20 }).await {
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
async fn a_released_message_comes_again_after_its_delay() {
    let backend = backend().await;
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    let mut worker = Worker::new(&backend, &["x"]).await;
    worker.one().await.receipt.release(Duration::ZERO).await.unwrap();
    let again = worker.one().await;
    assert_eq!(again.deliveries, 2);
    let released = tokio::time::Instant::now();
    again.receipt.release(Duration::from_millis(400)).await.unwrap();
    assert_eq!(worker.one().await.deliveries, 3);
    assert!(released.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_message_that_nobody_extends_comes_again_and_an_extended_one_does_not() {
    let backend = backend().await;
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    let subscription = Subscription::new(["x"]).ack_wait(Duration::from_millis(600));
    let mut worker = Worker::with(&backend, subscription).await;
    let first = worker.one().await;
    assert_eq!(first.receipt.ack_wait(), Duration::from_millis(600));
    let started = tokio::time::Instant::now();
    let extend = async {
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            first.receipt.extend().await.unwrap();
        }
    };
    let (again, ()) = tokio::join!(worker.one(), extend);
    assert_eq!(again.deliveries, 2);
    assert!(started.elapsed() >= Duration::from_millis(1700), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_replaced_message_is_never_the_newest_again() {
    let backend = backend().await;
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    let mut worker = Worker::new(&backend, &["x"]).await;
    let first = worker.one().await;
    let mut second = Envelope::new("a".into(), "x", "second");
    second.attempt = 2;
    assert_eq!(first.receipt.replace(second.clone()).await.unwrap(), Replaced::Done);
    assert_eq!(first.receipt.replace(second).await.unwrap(), Replaced::Lost);
    assert!(!first.receipt.is_newest().await.unwrap());
    let next = worker.one().await;
    assert_eq!((&next.body[..], next.deliveries), (&b"second"[..], 1));
    let mut third = Envelope::new("a".into(), "x", "third");
    third.attempt = 3;
    third.not_before = Some(Timestamp::now() + Duration::from_millis(1200));
    assert_eq!(next.receipt.replace(third).await.unwrap(), Replaced::Done);
    let depth = &backend.broker().depths(&["x".to_owned()]).await.unwrap()[0];
    assert_eq!((depth.ready, depth.scheduled, depth.retrying), (0, 0, 1));
    let last = worker.one().await;
    assert_eq!(&last.body[..], b"third");
    assert_eq!(backend.broker().kick(envelope("a", "x"), Expect::Absent).await.unwrap(), Kicked::Existing);
}

#[tokio::test]
async fn stopping_gives_back_at_once_what_was_not_handed_out() {
    let backend = backend().await;
    let envelopes = (0..100).map(|n| (envelope(&n.to_string(), "x"), Expect::Any)).collect();
    backend.broker().kick_all(envelopes).await;
    let mut first = Worker::new(&backend, &["x"]).await;
    let mut kept = Vec::new();
    while kept.len() < 10 {
        kept.extend(first.take(Demand { now: 10 - kept.len(), prefetch: 60 }).await);
    }
    first.listener.stop().await.unwrap();
    first.listener.stop().await.unwrap();
    assert!(first.listener.next(NOW).await.unwrap().is_empty());
    let mut second = Worker::new(&backend, &["x"]).await;
    let started = tokio::time::Instant::now();
    let mut got = std::collections::HashSet::new();
    while got.len() < 90 {
        for delivery in second.take(Demand { now: 90, prefetch: 0 }).await {
            assert!(got.insert(delivery.id.clone()));
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for delivery in kept {
        assert!(!got.contains(&delivery.id));
        delivery.receipt.ack().await.unwrap();
    }
}

#[tokio::test]
async fn dropping_next_loses_no_message() {
    let backend = backend().await;
    let mut worker = Worker::new(&backend, &["x"]).await;
    let kick = async {
        for n in 0..200 {
            backend.broker().kick(envelope(&n.to_string(), "x"), Expect::Any).await.unwrap();
        }
    };
    let receive = async {
        let mut got = 0;
        while got < 200 {
            let patience = Duration::from_micros(150);
            if let Ok(deliveries) = tokio::time::timeout(patience, worker.listener.next(NOW)).await {
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
    let mut busy = Worker::new(&backend, &["x"]).await;
    backend.broker().kick(envelope("first", "x"), Expect::Any).await.unwrap();
    let held = busy.one().await;
    // Requests of the busy worker still wait in the other lanes; it does not come back for what they bring.
    let mut urgent = envelope("urgent", "x");
    urgent.priority = Priority::new(0).unwrap();
    backend.broker().kick(urgent, Expect::Any).await.unwrap();
    let mut idle = Worker::new(&backend, &["x"]).await;
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
    let mut worker = Worker::with(&backend, subscription).await;
    let demand = Demand { now: 1, prefetch: 9 };
    worker.take(demand).await.pop().unwrap().receipt.ack().await.unwrap();
    worker.take(demand).await.pop().unwrap().receipt.ack().await.unwrap();
    for left in (0..8).rev() {
        // Two of them are longer than the lease, one is shorter than the time for which it keeps all of them.
        if left >= 5 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        let delivery = worker.take(demand).await.pop().unwrap();
        assert_eq!(delivery.deliveries, 1);
        delivery.receipt.ack().await.unwrap();
    }
}

#[tokio::test]
async fn one_listener_receives_from_several_queues() {
    let backend = backend().await;
    for queue in ["a", "b.c", "\u{e9}\u{e9}"] {
        backend.broker().kick(envelope(queue, queue), Expect::Any).await.unwrap();
    }
    let mut worker = Worker::new(&backend, &["a", "b.c", "\u{e9}\u{e9}"]).await;
    let mut got = std::collections::HashSet::new();
    while got.len() < 3 {
        let delivery = worker.one().await;
        assert_eq!(delivery.id.as_str(), &*delivery.queue);
        got.insert(delivery.id.clone());
        delivery.receipt.ack().await.unwrap();
    }
}

#[tokio::test]
async fn the_first_listener_sets_the_ack_wait_and_others_adopt_it() {
    let (backend, prefix, url) = support::with_prefix().await;
    let queue = || Subscription::new(["x"]);
    let _first = Worker::with(&backend, queue().ack_wait(Duration::from_secs(3))).await;
    let other: Backend = Nats::new(url).prefix(prefix).into();
    support::start(&other).await;
    let mut second = Worker::with(&other, queue()).await;
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    let held = second.one().await;
    assert_eq!(held.receipt.ack_wait(), Duration::from_secs(3));
    // A shorter value is adopted by who holds something, and only then applied.
    let _third = Worker::with(&backend, queue().ack_wait(Duration::from_millis(900))).await;
    until(|| async { held.receipt.ack_wait() == Duration::from_millis(900) }).await;
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
    let mut worker = Worker::new(&backend, &["x"]).await;
    backend.broker().kick(envelope("before", "x"), Expect::Any).await.unwrap();
    worker.one().await.receipt.ack().await.unwrap();
    until(|| async { backend.broker().find(&"before".into()).await.unwrap().is_none() }).await;
    let waiting = tokio::spawn(async move { worker.one().await.id });
    server.restart().await.unwrap();
    until(|| async { backend.broker().kick(envelope("after", "x"), Expect::Any).await.is_ok() }).await;
    assert_eq!(waiting.await.unwrap().as_str(), "after");
}

#[tokio::test]
async fn a_deleted_consumer_is_declared_again() {
    let (backend, prefix, url) = support::with_prefix().await;
    let mut worker = Worker::new(&backend, &["x"]).await;
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    worker.one().await.receipt.ack().await.unwrap();
    let client = async_nats::connect(url).await.unwrap();
    let delete = format!("$JS.API.CONSUMER.DELETE.{}_JOBS.x-normal", prefix.to_uppercase());
    client.request(delete, bytes::Bytes::new()).await.unwrap();
    backend.broker().kick(envelope("b", "x"), Expect::Any).await.unwrap();
    assert_eq!(worker.one().await.id.as_str(), "b");
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

/// All that a filter lets through, page by page, until one is short.
async fn in_pages(broker: &Arc<dyn Broker>, filter: &QueuedFilter, first: Page) -> Vec<Queued> {
    let (mut rows, mut page): (Vec<Queued>, _) = (Vec::new(), first);
    loop {
        let found = broker.list(filter, page).await.unwrap();
        let is_last = found.len() < page.limit;
        rows.extend(found);
        match rows.last() {
            Some(last) if !is_last => page = first.after(last.position),
            _ => return rows,
        }
    }
}

async fn remove(broker: &Arc<dyn Broker>, message: &Queued) -> bool {
    broker.remove(std::slice::from_ref(message)).await.pop().unwrap().unwrap()
}

/// What JetStream says of the stream `<PREFIX>_<KIND>`.
async fn stream_info(url: &str, prefix: &str, kind: &str, request: &'static str) -> Value {
    let client = async_nats::connect(url).await.unwrap();
    let info = format!("$JS.API.STREAM.INFO.{}_{kind}", prefix.to_uppercase());
    serde_json::from_slice(&client.request(info, request.into()).await.unwrap().payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_messages_have_no_gap_and_no_repetition() {
    let backend = backend().await;
    let broker = backend.broker();
    let envelopes = (0..3000).map(|n| {
        let mut envelope = envelope(&n.to_string(), ["a", "b"][n % 2]);
        envelope.priority = Priority::new([0, 5, 9][n % 3]).unwrap();
        // Few among many, and more of them at the oldest end.
        if n % 100 == 1 || n < 700 {
            envelope.not_before = Some(Timestamp::now() + Duration::from_secs(3600));
            envelope.attempt = if n % 200 == 1 { 2 } else { 1 };
        }
        (envelope, Expect::Any)
    });
    assert!(broker.kick_all(envelopes.collect()).await.into_iter().all(|kicked| kicked.is_ok()));
    let all = in_pages(broker, &QueuedFilter::new(), Page::newest(1000)).await;
    assert_eq!(all.len(), 3000);
    assert!(all.windows(2).all(|pair| pair[0].position > pair[1].position));
    let at = |row: &Queued| row.id.as_str().parse::<usize>().unwrap();
    let expected = |test: &dyn Fn(usize) -> bool| (0..3000).rev().filter(|n| test(*n)).collect::<Vec<_>>();
    let retrying = |n: usize| n % 200 == 1;
    let scheduled = |n: usize| (n % 100 == 1 || n < 700) && !retrying(n);
    for (filter, expected) in [
        (QueuedFilter::new(), expected(&|_| true)),
        (QueuedFilter::new().queue("b"), expected(&|n| n % 2 == 1)),
        (QueuedFilter::new().waiting(Waiting::Ready), expected(&|n| !retrying(n) && !scheduled(n))),
        (QueuedFilter::new().waiting(Waiting::Scheduled), expected(&scheduled)),
        (QueuedFilter::new().waiting(Waiting::Retrying).queue("b"), expected(&retrying)),
        (QueuedFilter::new().queue("c"), Vec::new()),
    ] {
        for limit in [7, 400, 5000] {
            let newest = in_pages(broker, &filter, Page::newest(limit)).await;
            assert_eq!(newest.iter().map(at).collect::<Vec<_>>(), expected, "{filter:?} by {limit}");
            let mut oldest = in_pages(broker, &filter, Page::oldest(limit)).await;
            oldest.reverse();
            assert_eq!(oldest.iter().map(at).collect::<Vec<_>>(), expected, "{filter:?} by {limit}");
        }
        let page = Page { order: Order::NewestFirst, after: None, limit: 10 };
        for row in broker.list(&filter, page).await.unwrap() {
            let found = broker.find(&row.id).await.unwrap().unwrap();
            assert_eq!((found.position, found.revision), (row.position, row.revision));
            assert_eq!(row.ready, !scheduled(at(&row)) && !retrying(at(&row)));
        }
    }
}

#[tokio::test]
async fn odd_names_are_queues_that_can_be_listed_and_emptied() {
    let backend = backend().await;
    let broker = backend.broker();
    for queue in ODD_NAMES {
        for id in ODD_NAMES {
            broker.kick(envelope(&format!("{queue}/{id}"), queue), Expect::Absent).await.unwrap();
        }
    }
    let mut sorted = ODD_NAMES;
    sorted.sort_unstable();
    assert_eq!(broker.queues().await.unwrap(), sorted);
    for queue in ODD_NAMES {
        let rows = broker.list(&QueuedFilter::new().queue(queue), Page::oldest(100)).await.unwrap();
        let ids: Vec<_> = rows.iter().map(|row| row.id.as_str().to_owned()).collect();
        assert_eq!(ids, ODD_NAMES.map(|id| format!("{queue}/{id}")), "{queue:?}");
        assert!(rows.iter().all(|row| row.queue == queue && row.body == row.id.as_str()));
        assert!(broker.remove(&rows).await.into_iter().all(Result::unwrap));
        assert!(broker.remove(&rows).await.into_iter().all(|removed| !removed.unwrap()));
    }
    assert!(broker.list(&QueuedFilter::new(), Page::newest(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_queue_is_known_from_its_first_kick_or_listener_on() {
    let (backend, prefix, url) = support::with_prefix().await;
    let broker = backend.broker();
    assert!(broker.queues().await.unwrap().is_empty());
    let queues = ["b", "a", "a", "b", "", "c"].into_iter().enumerate();
    let kicks = queues.map(|(n, queue)| (envelope(&n.to_string(), queue), Expect::Any));
    broker.kick_all(kicks.collect()).await;
    assert_eq!(broker.queues().await.unwrap(), ["a", "b", "c"]);
    let _worker = Worker::new(&backend, &["d.e", "a"]).await;
    assert_eq!(broker.queues().await.unwrap(), ["a", "b", "c", "d.e"]);
    let written = stream_info(&url, &prefix, "KV", "").await["state"]["last_seq"].as_u64();
    broker.kick(envelope("9", "a"), Expect::Any).await.unwrap();
    assert_eq!(stream_info(&url, &prefix, "KV", "").await["state"]["last_seq"].as_u64(), written);
    let other: Backend = Nats::new(url).prefix(prefix).into();
    support::start(&other).await;
    assert_eq!(other.broker().queues().await.unwrap(), ["a", "b", "c", "d.e"]);
}

#[tokio::test]
async fn a_removed_message_for_later_does_not_come() {
    let backend = backend().await;
    let broker = backend.broker();
    let due = Timestamp::now() + Duration::from_millis(1500);
    for (id, delay) in [("removed", Duration::ZERO), ("kept", Duration::from_millis(700))] {
        let mut later = envelope(id, "x");
        later.not_before = Some(due + delay);
        broker.kick(later, Expect::Absent).await.unwrap();
    }
    let queued = broker.find(&"removed".into()).await.unwrap().unwrap();
    assert!(remove(broker, &queued).await);
    assert!(!remove(broker, &queued).await);
    // The one behind it comes, and nothing before.
    assert_eq!(Worker::new(&backend, &["x"]).await.one().await.id.as_str(), "kept");
    assert!(Timestamp::now() >= due + Duration::from_millis(700));
    assert!(broker.find(&"removed".into()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_holder_of_a_removed_message_changes_nothing_any_more() {
    let backend = backend().await;
    let broker = backend.broker();
    broker.kick(envelope("a", "x"), Expect::Any).await.unwrap();
    let held = Worker::new(&backend, &["x"]).await.one().await;
    assert!(remove(broker, &broker.find(&"a".into()).await.unwrap().unwrap()).await);
    assert!(!held.receipt.is_newest().await.unwrap());
    assert_eq!(held.receipt.replace(envelope("a", "x")).await.unwrap(), Replaced::Lost);
    held.receipt.release(Duration::ZERO).await.unwrap();
    broker.kick(envelope("a", "x"), Expect::Absent).await.unwrap();
    held.receipt.ack().await.unwrap();
    assert_eq!(next_one(&backend, "x").await.deliveries, 1);
}

#[tokio::test]
async fn the_oldest_message_is_the_one_that_nobody_holds() {
    let backend = backend().await;
    let broker = backend.broker();
    let oldest = async |queue: &str| broker.depths(&[queue.to_owned()]).await.unwrap().pop().unwrap().oldest;
    assert_eq!(oldest("lanes").await, None);
    let start = Timestamp::now();
    for priority in [9, 0] {
        let mut envelope = envelope(&priority.to_string(), "lanes");
        envelope.priority = Priority::new(priority).unwrap();
        broker.kick(envelope, Expect::Any).await.unwrap();
        let first = oldest("lanes").await.unwrap();
        assert!((start..=Timestamp::now()).contains(&first), "{first}");
        broker.kick(Envelope::new("later".into(), "lanes", ""), Expect::Any).await.unwrap();
        assert_eq!(oldest("lanes").await, Some(first));
    }
    for id in ["a", "b"] {
        broker.kick(envelope(id, "x"), Expect::Any).await.unwrap();
    }
    let first = oldest("x").await.unwrap();
    let mut worker = Worker::new(&backend, &["x"]).await;
    let _held = worker.one().await;
    assert!(oldest("x").await.unwrap() > first);
    let _held_too = worker.one().await;
    assert_eq!(oldest("x").await, None);
}

#[tokio::test]
async fn a_watch_tells_what_is_kicked_and_ends_with_the_broker() {
    let backend = backend().await;
    let broker = backend.broker();
    broker.kick(envelope("before", "x"), Expect::Any).await.unwrap();
    let mut watch = broker.watch().await.unwrap();
    broker.kick(envelope("a b", "mail.out"), Expect::Absent).await.unwrap();
    let (mut later, mut retry) = (envelope("later", "x"), envelope("retry", "x"));
    later.not_before = Some(Timestamp::now() + Duration::from_secs(3600));
    (retry.not_before, retry.attempt) = (later.not_before, 2);
    broker.kick(later, Expect::Any).await.unwrap();
    backend.jobs().unwrap().put(completed("a b"), Expect::Any, None).await.unwrap();
    broker.kick_all(vec![(retry, Expect::Any)]).await;
    let seen: Vec<Queued> = timeout(PATIENCE, watch.by_ref().take(3).collect()).await.unwrap();
    let seen: HashSet<_> =
        seen.iter().map(|row| (row.id.as_str(), row.queue.as_str(), row.ready, &row.body[..])).collect();
    let expected = [
        ("a b", "mail.out", true, &b"a b"[..]),
        ("later", "x", false, &b"later"[..]),
        ("retry", "x", false, &b"retry"[..]),
    ];
    assert_eq!(seen, expected.into());
    // The stores go on.
    broker.shutdown().await.unwrap();
    assert!(timeout(PATIENCE, watch.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_watch_ends_when_the_connection_broke() {
    let mut server = NatsServer::start().await.unwrap();
    let backend: Backend = Nats::new(server.url()).into();
    support::start(&backend).await;
    let mut watch = backend.broker().watch().await.unwrap();
    server.restart().await.unwrap();
    assert!(timeout(PATIENCE, watch.next()).await.unwrap().is_none());
}

fn completed(id: &str) -> Arc<JobRecord> {
    Arc::new(JobRecord::unreadable(id.into(), "x", Status::Completed))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_leave_nothing_behind_but_their_records() {
    const JOBS: usize = 10_000;
    let (backend, prefix, url) = support::with_prefix().await;
    let envelopes = (0..JOBS).map(|n| (envelope(&n.to_string(), "x"), Expect::Any)).collect();
    backend.broker().kick_all(envelopes).await;
    let mut worker = Worker::new(&backend, &["x"]).await;
    let mut done = 0;
    while done < JOBS {
        let deliveries = worker.take(Demand { now: 500, prefetch: 500 }).await;
        let finish = deliveries.iter().map(async |delivery| {
            let record = completed(delivery.id.as_str());
            backend.jobs().unwrap().put(record, Expect::Absent, None).await.unwrap();
            delivery.receipt.ack().await.unwrap();
        });
        done += futures_util::future::join_all(finish).await.len();
    }
    let jobs =
        async || stream_info(&url, &prefix, "JOBS", r#"{"subjects_filter":">"}"#).await["state"].clone();
    until(async || jobs().await["messages"] == 0).await;
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
