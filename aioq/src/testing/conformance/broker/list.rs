//! Lists of messages.

use std::time::Duration;

use crate::backend::Backend;
use crate::broker::{Expect, Kicked, Order, Page, Queued, QueuedFilter, Replaced, Waiting};
use crate::message::Envelope;
use crate::testing::conformance::kit::{
    LONG, ack, envelope, find, kick, later, list, listed, listen, ok, remove, until, with_priority,
};
use crate::time::Timestamp;

/// A delay that no case waits for.
const HOUR: Duration = Duration::from_secs(3600);

fn all() -> QueuedFilter {
    QueuedFilter::new()
}

fn names(rows: &[Queued]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

/// A message that is ready, held or delayed, of any priority, is listed as `find` returns it.
pub async fn a_message_is_listed_as_it_is_found(backend: &Backend) {
    kick(backend, envelope("q", "held")).await;
    assert_eq!(listen(backend, "q", LONG).await.one().await.id.as_str(), "held");
    kick(backend, with_priority("q", "low", 9)).await;
    kick(backend, later("other", "later", HOUR)).await;
    kick(backend, Envelope { attempt: 2, ..later("q", "retry", HOUR) }).await;
    kick(backend, with_priority("q", "high", 0)).await;

    let rows = list(backend, &all(), Page::oldest(10)).await;
    assert_eq!(names(&rows), ["held", "low", "later", "retry", "high"]);
    for row in rows {
        let found = find(backend, row.id.as_str()).await;
        assert_eq!((&row.queue, &row.body, row.ready), (&found.queue, &found.body, found.ready));
        assert_eq!((row.position, row.revision), (found.position, found.revision), "of `{}`", row.id);
        assert_eq!(row.body, format!("body of {}", row.id));
    }
}

/// Positions rise with the order of the kicks, across queues, priorities and delays.
pub async fn messages_are_listed_in_the_order_of_their_kicks(backend: &Backend) {
    let mut kicked = Vec::new();
    for round in 0..4 {
        for (priority, queue, delay) in [(9, "b", None), (0, "a", None), (5, "a", Some(HOUR)), (0, "b", None)]
        {
            let id = format!("{round}-{priority}-{queue}");
            let not_before = delay.map(|delay| Timestamp::now() + delay);
            kick(backend, Envelope { not_before, ..with_priority(queue, &id, priority) }).await;
            kicked.push(id);
        }
    }
    let oldest_first = list(backend, &all(), Page::oldest(100)).await;
    assert_eq!(names(&oldest_first), kicked);
    assert!(oldest_first.is_sorted_by(|a, b| a.position < b.position), "positions tell them apart");
    kicked.reverse();
    let newest_first = list(backend, &all(), Page::newest(100)).await;
    assert_eq!(names(&newest_first), kicked);
    assert_eq!(names(&list(backend, &all(), Page::newest(3)).await), kicked[..3]);
}

/// A filter by queue selects exactly the messages of that queue.
pub async fn a_filter_by_queue_shows_that_queue(backend: &Backend) {
    for (queue, id) in [("a", "1"), ("b", "2"), ("a.b", "3"), ("a", "4")] {
        kick(backend, envelope(queue, id)).await;
    }
    kick(backend, later("a", "5", HOUR)).await;
    assert_eq!(listed(backend, all().queue("a")).await, ["1", "4", "5"]);
    assert_eq!(listed(backend, all().queue("b")).await, ["2"]);
    assert_eq!(listed(backend, all().queue("a.b")).await, ["3"]);
    assert_eq!(listed(backend, all()).await, ["1", "2", "3", "4", "5"]);
}

/// A held message counts as ready. A delayed message waits for a first or a later attempt, whether
/// it was kicked so or replaced another one.
pub async fn a_filter_tells_ready_from_scheduled_and_retrying(backend: &Backend) {
    for id in ["held", "retried", "put off", "ready"] {
        kick(backend, envelope("q", id)).await;
    }
    kick(backend, later("q", "scheduled", HOUR)).await;
    kick(backend, Envelope { attempt: 3, ..later("q", "kicked as a retry", HOUR) }).await;
    kick(backend, Envelope { attempt: 3, ..envelope("q", "a retry that is due") }).await;
    kick(backend, later("other", "of another queue", HOUR)).await;
    let held = listen(backend, "q", LONG).await.some(3).await;
    let retry = Envelope { attempt: 2, ..later("q", "retried", HOUR) };
    assert_eq!(ok(held[1].receipt.replace(retry).await, "replace"), Replaced::Done);
    let put_off = later("q", "put off", HOUR);
    assert_eq!(ok(held[2].receipt.replace(put_off).await, "replace"), Replaced::Done);

    let of_queue = |waiting| all().queue("q").waiting(waiting);
    shows(backend, of_queue(Waiting::Ready), &["a retry that is due", "held", "ready"]).await;
    shows(backend, of_queue(Waiting::Scheduled), &["put off", "scheduled"]).await;
    shows(backend, of_queue(Waiting::Retrying), &["kicked as a retry", "retried"]).await;
    let of_any = all().waiting(Waiting::Scheduled);
    shows(backend, of_any, &["of another queue", "put off", "scheduled"]).await;
    let rows = list(backend, &all(), Page::newest(10)).await;
    for waiting in [Waiting::Ready, Waiting::Scheduled, Waiting::Retrying] {
        for id in listed(backend, all().waiting(waiting)).await {
            let row = rows.iter().find(|row| row.id.as_str() == id).expect("it is listed without a filter");
            assert_eq!(row.ready, waiting == Waiting::Ready, "`{id}` is {waiting:?}");
        }
    }
}

/// The filter selects these, in any order: a successor may have the position of its predecessor or
/// its own.
async fn shows(backend: &Backend, filter: QueuedFilter, wanted: &[&str]) {
    // A message that has just been replaced may still be on its way out.
    until(&format!("{wanted:?} for {filter:?}"), async || {
        let mut ids = listed(backend, filter.clone()).await;
        ids.sort_unstable();
        (ids == wanted).then_some(())
    })
    .await;
}

/// A delayed message is listed as ready, and only so, from its time on.
pub async fn a_delayed_message_is_listed_as_ready_in_its_time(backend: &Backend) {
    kick(backend, later("q", "1", Duration::from_millis(2500))).await;
    assert_eq!(listed(backend, all().waiting(Waiting::Scheduled)).await, ["1"]);
    assert_eq!(listed(backend, all().waiting(Waiting::Ready)).await, [""; 0]);
    until("the message to be listed as ready", async || {
        (listed(backend, all().waiting(Waiting::Ready)).await == ["1"]).then_some(())
    })
    .await;
    assert_eq!(listed(backend, all().waiting(Waiting::Scheduled)).await, [""; 0]);
    assert_eq!(listed(backend, all()).await, ["1"]);
}

/// An acked message is not listed. A replaced one is listed once, as its successor.
pub async fn what_has_left_the_broker_is_not_listed(backend: &Backend) {
    for id in ["acked", "replaced", "waits"] {
        kick(backend, envelope("q", id)).await;
    }
    let before = find(backend, "replaced").await;
    let held = listen(backend, "q", LONG).await.some(2).await;
    ack(&held[0]).await;
    let next = Envelope { attempt: 2, ..Envelope::new("replaced".into(), "q", "successor") };
    assert_eq!(ok(held[1].receipt.replace(next).await, "replace"), Replaced::Done);
    until("the acked message to be gone", async || (listed(backend, all()).await.len() == 2).then_some(()))
        .await;
    let rows = list(backend, &all(), Page::newest(10)).await;
    let row = rows.iter().find(|row| row.id.as_str() == "replaced").expect("the successor is there");
    assert_eq!((row.body.as_ref(), row.ready), (b"successor".as_slice(), true));
    assert_ne!(row.revision, before.revision, "the revision tells it from its predecessor");
}

/// The list is empty if nothing was kicked, nothing is selected, or nothing follows the position.
pub async fn a_list_may_be_empty(backend: &Backend) {
    assert_eq!(listed(backend, all()).await, [""; 0]);
    kick(backend, envelope("q", "1")).await;
    assert_eq!(listed(backend, all().queue("unused")).await, [""; 0]);
    assert_eq!(listed(backend, all().queue("*")).await, [""; 0]);
    assert_eq!(listed(backend, all().waiting(Waiting::Retrying)).await, [""; 0]);
    let only = find(backend, "1").await.position;
    for page in [Page::newest(10).after(only), Page::oldest(10).after(only), Page::newest(10).after(0)] {
        assert!(list(backend, &all(), page).await.is_empty(), "{page:?}");
    }
    assert_eq!(names(&list(backend, &all(), Page::newest(10).after(u64::MAX)).await), ["1"]);
}

/// Pages of any length, in either direction, show each message once and in order.
pub async fn pages_have_no_gap_and_no_repetition(backend: &Backend) {
    for index in 0..30 {
        let envelope = with_priority(["a", "b"][index % 2], &format!("m-{index}"), [0, 5, 9][index % 3]);
        let delay = (index % 5 == 0).then(|| Timestamp::now() + HOUR);
        kick(backend, Envelope { not_before: delay, ..envelope }).await;
    }
    // Leaves gaps between the positions.
    for index in [3, 10, 11, 29] {
        assert!(remove(backend, &find(backend, &format!("m-{index}")).await).await);
    }
    for filter in
        [all(), all().queue("a"), all().waiting(Waiting::Scheduled), all().queue("b").waiting(Waiting::Ready)]
    {
        let mut whole = listed(backend, filter.clone()).await;
        for limit in [1, 4, 13, 100] {
            assert_eq!(in_pages(backend, &filter, Page::oldest(limit)).await, whole, "{filter:?}");
        }
        whole.reverse();
        for limit in [1, 4, 13, 100] {
            assert_eq!(in_pages(backend, &filter, Page::newest(limit)).await, whole, "{filter:?}");
        }
    }
}

/// More than the number of messages in any case.
const MOST: usize = 1000;

/// The ids of all rows, page by page, until a page is short.
async fn in_pages(backend: &Backend, filter: &QueuedFilter, first: Page) -> Vec<String> {
    let (mut ids, mut page) = (Vec::new(), first);
    loop {
        let rows = list(backend, filter, page).await;
        ids.extend(rows.iter().map(|row| row.id.as_str().to_owned()));
        assert!(ids.len() <= MOST, "the pages do not end: {ids:?}");
        match rows.last() {
            Some(last) if rows.len() == page.limit => page = first.after(last.position),
            _ => return ids,
        }
    }
}

/// Pages stay full while rows are left, even if the filter selects few of many: a short page is the
/// last one.
pub async fn a_page_is_full_while_there_is_more(backend: &Backend) {
    let bulk = (0..600).map(|index| {
        let (id, attempt) = (format!("m-{index}"), 1 + index % 2);
        let envelope = match index % 60 {
            30 => Envelope { attempt: 2, ..later("rare", &id, HOUR) },
            29 => envelope("rare", &id),
            _ => Envelope { attempt, ..envelope("common", &id) },
        };
        (envelope, Expect::Any)
    });
    let fates = backend.broker().kick_all(bulk.collect()).await;
    assert!(fates.into_iter().all(|fate| ok(fate, "a bulk kick") == Kicked::New));
    let rare = all().queue("rare");
    for (filter, count) in [
        (rare.clone().waiting(Waiting::Retrying), 10),
        (all().waiting(Waiting::Retrying), 10),
        (rare.clone().waiting(Waiting::Ready), 10),
        (rare, 20),
    ] {
        for first in [Page::newest(4), Page::oldest(4)] {
            let page = list(backend, &filter, first).await;
            assert_eq!(page.len(), 4, "there are {count} of {filter:?}");
            assert_eq!(in_pages(backend, &filter, first).await.len(), count, "{filter:?}");
        }
    }
    assert_eq!(in_pages(backend, &all(), Page::newest(250)).await.len(), 600);
}

/// Messages may come and go during paging. A message that was there all the time is shown once.
pub async fn messages_may_come_and_go_between_two_pages(backend: &Backend) {
    for id in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        kick(backend, envelope("q", id)).await;
    }
    let newest = list(backend, &all(), Page::newest(3)).await;
    let oldest = list(backend, &all(), Page::oldest(3)).await;
    assert_eq!((names(&newest), names(&oldest)), (vec!["8", "7", "6"], vec!["1", "2", "3"]));
    kick(backend, envelope("q", "9")).await;
    // Rows that were shown, among them the one that the next page starts after, and one that was
    // not.
    for gone in [&newest[2], &oldest[2], &find(backend, "4").await] {
        assert!(remove(backend, gone).await);
    }
    let after = async |order, rows: &[Queued]| {
        let page = Page { order, after: Some(rows[2].position), limit: 10 };
        names(&list(backend, &all(), page).await).join(" ")
    };
    assert_eq!(after(Order::NewestFirst, &newest).await, "5 2 1");
    assert_eq!(after(Order::OldestFirst, &oldest).await, "5 7 8 9");
}
