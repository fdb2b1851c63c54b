//! Helpers of the cases.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;
use crate::backend::Backend;
use crate::broker::{Delivery, Demand, Expect, Kicked, Listener, Page, Queued, QueuedFilter, Subscription};
use crate::error::{ErrorKind, Result};
use crate::message::{Envelope, Priority};
use crate::time::Timestamp;

/// Lease for cases about its end.
pub(super) const SHORT: Duration = Duration::from_secs(1);
/// Lease for cases in which it must not end.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// Possible difference between the clocks of a backend and of this process.
pub(super) const CLOCK_SLACK: Duration = Duration::from_millis(50);

/// The value; panics with the name of the failed step.
#[track_caller]
pub(super) fn ok<T>(result: Result<T>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what} failed: {error:?}"))
}

/// The kind of the expected error.
#[track_caller]
pub(super) fn refused<T>(result: Result<T>, what: &str) -> ErrorKind {
    match result {
        Ok(_) => panic!("{what} must be refused"),
        Err(error) => error.kind(),
    }
}

/// The output of the future; panics if it takes too long.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("nothing for {PATIENCE:?}: {what}"),
    }
}

/// Repeats a check until it returns a value.
pub(super) async fn until<T>(what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    let repeated = async {
        loop {
            match check().await {
                Some(found) => return found,
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    soon(what, repeated).await
}

/// Runs all futures concurrently, on tasks of their own, and returns their outputs.
pub(super) async fn at_once<T, F>(futures: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    join_all(tasks).await.into_iter().map(|task| task.expect("a task of this case panicked")).collect()
}

/// A message whose body is its id.
pub(super) fn envelope(queue: &str, id: &str) -> Envelope {
    Envelope::new(id.into(), queue, format!("body of {id}"))
}

/// The same with a priority.
pub(super) fn with_priority(queue: &str, id: &str, priority: u8) -> Envelope {
    let priority = ok(Priority::new(priority), "a priority");
    Envelope { priority, ..envelope(queue, id) }
}

/// The same with a delay.
pub(super) fn later(queue: &str, id: &str, delay: Duration) -> Envelope {
    Envelope { not_before: Some(Timestamp::now() + delay), ..envelope(queue, id) }
}

/// Kicks a message that must be new.
#[track_caller]
pub(super) fn kick(backend: &Backend, envelope: Envelope) -> impl Future<Output = ()> + Send + use<> {
    let (broker, id) = (backend.broker().clone(), envelope.id.clone());
    async move {
        let kicked = ok(broker.kick(envelope, Expect::Absent).await, "a kick");
        assert_eq!(kicked, Kicked::New, "`{id}` was not in the broker");
    }
}

/// Listens to one queue.
pub(super) async fn listen(backend: &Backend, queue: &str, ack_wait: Duration) -> Ear {
    listen_to(backend, &[queue], ack_wait).await
}

/// Listens to queues.
pub(super) async fn listen_to(backend: &Backend, queues: &[&str], ack_wait: Duration) -> Ear {
    let subscription = Subscription::new(queues.iter().copied()).ack_wait(ack_wait);
    Ear(ok(backend.broker().listen(subscription).await, "listen"))
}

/// A listener with a time limit.
pub(super) struct Ear(pub(super) Box<dyn Listener>);

impl Ear {
    /// The next deliveries, at least one.
    pub(super) async fn next(&mut self, demand: Demand) -> Vec<Delivery> {
        let deliveries = ok(soon("a delivery", self.0.next(demand)).await, "next");
        assert!(!deliveries.is_empty(), "`next` of a listener that was not stopped gave nothing");
        assert!(deliveries.len() <= demand.now, "`next` gave more than {}", demand.now);
        deliveries
    }

    /// The next delivery.
    pub(super) async fn one(&mut self) -> Delivery {
        self.next(Demand { now: 1, prefetch: 0 }).await.remove(0)
    }

    /// That many deliveries.
    pub(super) async fn some(&mut self, count: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            let now = count - deliveries.len();
            deliveries.extend(self.next(Demand { now, prefetch: 0 }).await);
        }
        deliveries
    }

    /// Asserts that nothing arrives in that time.
    pub(super) async fn nothing_for(&mut self, time: Duration, why: &str) {
        if let Ok(got) = timeout(time, self.0.next(Demand { now: 1, prefetch: 0 })).await {
            panic!("{why}, yet there came {:?}", ok(got, "next"));
        }
    }

    pub(super) async fn stop(&mut self) {
        ok(soon("the end of a listener", self.0.stop()).await, "stop");
    }
}

/// Acks a delivery.
pub(super) async fn ack(delivery: &Delivery) {
    ok(delivery.receipt.ack().await, "ack");
}

/// The message of an id, which must be in the broker.
pub(super) async fn find(backend: &Backend, id: &str) -> Queued {
    let found = ok(backend.broker().find(&id.into()).await, "find");
    found.unwrap_or_else(|| panic!("`{id}` is in the broker"))
}

/// The messages that a filter selects.
pub(super) async fn list(backend: &Backend, filter: &QueuedFilter, page: Page) -> Vec<Queued> {
    let rows = ok(backend.broker().list(filter, page).await, "list");
    assert!(rows.len() <= page.limit, "a page of {} rows, not {}", rows.len(), page.limit);
    rows
}

/// The ids of the selected messages as one page, oldest first.
pub(super) async fn listed(backend: &Backend, filter: QueuedFilter) -> Vec<String> {
    let rows = list(backend, &filter, Page::oldest(1000)).await;
    rows.into_iter().map(|row| row.id.as_str().to_owned()).collect()
}

/// Removes a message. Returns true if it was there.
pub(super) async fn remove(backend: &Backend, message: &Queued) -> bool {
    let mut fates = backend.broker().remove(std::slice::from_ref(message)).await;
    assert_eq!(fates.len(), 1, "one message has one fate");
    ok(fates.remove(0), "remove")
}

/// The ids of deliveries in their order.
pub(super) fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.id.as_str()).collect()
}

/// Each id with its number of deliveries.
pub(super) fn tally<'a>(ids: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut tally = BTreeMap::new();
    for id in ids {
        *tally.entry(id).or_default() += 1;
    }
    tally
}

/// Waits until a value is gone, which must not happen earlier than `least` after `start`.
pub(super) async fn gone_after(start: Instant, least: Duration, what: &str, gone: impl AsyncFn() -> bool) {
    until(what, async || gone().await.then_some(())).await;
    let took = start.elapsed();
    assert!(took + CLOCK_SLACK >= least, "{what}: after {took:?}, not {least:?}");
}

/// Names with the characters that a backend may have to escape.
pub(super) const ODD_NAMES: [&str; 14] = [
    "with.dot",
    ".",
    "..",
    "with space",
    "*",
    ">",
    "a.*.>",
    "=",
    "=2E",
    "a/b\\c",
    "Ünïcödé 任务 🦀",
    "tab\tand\nline",
    "%2e$-_~",
    "UPPER",
];
