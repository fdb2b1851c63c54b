//! Messages and queues on a real server, as they are found, listed and watched.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aioq::broker::{Broker, Expect, Order, Page, Queued, QueuedFilter, Waiting};
use aioq::message::{Envelope, Priority};
use aioq::{Backend, Timestamp};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, PATIENCE};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::support;
use crate::support::{ODD_NAMES, TestListener, backend, completed, envelope, stream_info};

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
        for limit in [70, 400, 5000] {
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
    let _listener = TestListener::new(&backend, &["d.e", "a"]).await;
    assert_eq!(broker.queues().await.unwrap(), ["a", "b", "c", "d.e"]);
    let written = stream_info(&url, &prefix, "KV", "").await["state"]["last_seq"].as_u64();
    broker.kick(envelope("9", "a"), Expect::Any).await.unwrap();
    assert_eq!(stream_info(&url, &prefix, "KV", "").await["state"]["last_seq"].as_u64(), written);
    let other: Backend = Nats::new(url).prefix(prefix).into();
    support::start(&other).await;
    assert_eq!(other.broker().queues().await.unwrap(), ["a", "b", "c", "d.e"]);
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
    let mut listener = TestListener::new(&backend, &["x"]).await;
    let _held = listener.one().await;
    assert!(oldest("x").await.unwrap() > first);
    let _held_too = listener.one().await;
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
