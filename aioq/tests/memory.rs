//! The memory backend beyond the conformance suite: exact times, exact order, few wakes.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use aioq::broker::{Delivery, Demand, Expect, Listener, Replaced, Subscription};
use aioq::message::{Envelope, Priority};
use aioq::store::{JobRecord, Status, Watched};
use aioq::{Backend, ErrorKind, JobId, Memory, Timestamp};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);

async fn started() -> (Memory, Backend) {
    let memory = Memory::new();
    let backend = Backend::from(memory.clone());
    start(&backend).await;
    (memory, backend)
}

async fn start(backend: &Backend) {
    backend.broker().startup().await.unwrap();
    backend.jobs().unwrap().startup().await.unwrap();
    backend.kv().startup().await.unwrap();
}

async fn listen(backend: &Backend, queues: &[&str]) -> Box<dyn Listener> {
    backend.broker().listen(Subscription::new(queues.iter().copied()).ack_wait(10 * SECOND)).await.unwrap()
}

async fn kick(backend: &Backend, queue: &str, id: &str) {
    backend.broker().kick(envelope(queue, id), Expect::Absent).await.unwrap();
}

fn envelope(queue: &str, id: &str) -> Envelope {
    Envelope::new(id.into(), queue, id.to_owned())
}

fn demand(now: usize) -> Demand {
    Demand { now, prefetch: 0 }
}

async fn next(listener: &mut Box<dyn Listener>) -> Delivery {
    let mut deliveries = timeout(600 * SECOND, listener.next(demand(1))).await.unwrap().unwrap();
    assert_eq!(deliveries.len(), 1);
    deliveries.remove(0)
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.id.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_lease_runs_out_at_its_end_and_not_before() {
    let (_, backend) = started().await;
    let mut listener = listen(&backend, &["q"]).await;
    kick(&backend, "q", "1").await;
    let start = Instant::now();
    assert_eq!(next(&mut listener).await.deliveries, 1);
    assert_eq!(next(&mut listener).await.deliveries, 2);
    let late = start.elapsed() - 10 * SECOND;
    assert!(late <= Duration::from_millis(1), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_runs_out_in_time_when_those_who_watched_the_clock_are_gone() {
    let (_, backend) = started().await;
    let mut holder = listen(&backend, &["q"]).await;
    kick(&backend, "q", "1").await;
    next(&mut holder).await;
    let start = Instant::now();
    let (mut first, mut second) = (listen(&backend, &["q"]).await, listen(&backend, &["q"]).await);
    let mut third = listen(&backend, &["q"]).await;
    {
        let (mut first, mut second) = (first.next(demand(1)), second.next(demand(1)));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        let mut third = third.next(demand(1));
        assert!((&mut third).now_or_never().is_none());
        // The second is woken to keep the time, and is dropped before it does.
        drop(first);
        drop(second);
        timeout(60 * SECOND, third).await.unwrap().unwrap();
    }
    let late = start.elapsed() - 10 * SECOND;
    assert!(late <= Duration::from_millis(1), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_comes_at_its_time() {
    let (_, backend) = started().await;
    let mut listener = listen(&backend, &["q"]).await;
    let start = Instant::now();
    let mut delayed = envelope("q", "1");
    delayed.not_before = Some(Timestamp::now() + 3600 * SECOND);
    backend.broker().kick(delayed, Expect::Absent).await.unwrap();
    let delivery = timeout(2 * 3600 * SECOND, listener.next(demand(1))).await.unwrap().unwrap();
    assert_eq!(ids(&delivery), ["1"]);
    // Exact except for the time between the readings of two clocks, which is longer on a busy
    // machine.
    let off = start.elapsed().abs_diff(3600 * SECOND);
    assert!(off < SECOND, "{off:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_is_ready_since_what_hid_it_ended() {
    let (_, backend) = started().await;
    let oldest = async || backend.broker().depths(&["q".to_owned()]).await.unwrap()[0].oldest;
    let is_since = |oldest: Option<Timestamp>, time: Timestamp| {
        let off = oldest.unwrap().as_micros().abs_diff(time.as_micros());
        assert!(off < 1_000_000, "{oldest:?}, not {time}");
    };
    kick(&backend, "q", "1").await;
    is_since(oldest().await, Timestamp::now());
    let mut listener = listen(&backend, &["q"]).await;
    let lease_ends = Timestamp::now() + 10 * SECOND;
    next(&mut listener).await;
    assert_eq!(oldest().await, None);
    // Long afterwards, without a look at the messages in between.
    tokio::time::advance(60 * SECOND).await;
    is_since(oldest().await, lease_ends);

    let delivery = next(&mut listener).await;
    tokio::time::advance(5 * SECOND).await;
    delivery.receipt.release(Duration::ZERO).await.unwrap();
    is_since(oldest().await, Timestamp::now());
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_waits_hears_of_an_earlier_delay() {
    let (_, backend) = started().await;
    let mut listener = listen(&backend, &["q"]).await;
    let start = Instant::now();
    for (id, seconds) in [("late", 100), ("early", 10)] {
        let mut envelope = envelope("q", id);
        envelope.not_before = Some(Timestamp::now() + seconds * SECOND);
        assert!(listener.next(demand(1)).now_or_never().is_none());
        backend.broker().kick(envelope, Expect::Absent).await.unwrap();
    }
    let waiting = async {
        let delivery = next(&mut listener).await;
        (delivery.id, start.elapsed().as_secs())
    };
    let earlier = async {
        tokio::time::sleep(SECOND).await;
        let mut envelope = envelope("q", "earliest");
        envelope.not_before = Some(Timestamp::now() + SECOND);
        backend.broker().kick(envelope, Expect::Absent).await.unwrap();
    };
    let ((id, seconds), ()) = tokio::join!(waiting, earlier);
    assert_eq!((id.as_str(), seconds), ("earliest", 2));
}

#[tokio::test]
async fn messages_come_by_priority_then_in_order_of_their_kicks() {
    let (_, backend) = started().await;
    for (index, value) in [5, 9, 0, 5, 3, 0, 9, 3].into_iter().enumerate() {
        let mut envelope = envelope("q", &format!("{value}-{index}"));
        envelope.priority = Priority::new(value).unwrap();
        backend.broker().kick(envelope, Expect::Absent).await.unwrap();
    }
    let mut listener = listen(&backend, &["q"]).await;
    let all = listener.next(demand(100)).await.unwrap();
    assert_eq!(ids(&all), ["0-2", "0-5", "3-4", "3-7", "5-0", "5-3", "9-1", "9-6"]);
}

#[tokio::test(start_paused = true)]
async fn a_place_in_line_is_kept_through_release_replace_and_delay() {
    let (_, backend) = started().await;
    let mut listener = listen(&backend, &["q"]).await;
    for id in ["released", "replaced", "delayed"] {
        kick(&backend, "q", id).await;
    }
    let held = listener.next(demand(3)).await.unwrap();
    kick(&backend, "q", "later").await;
    held[2].receipt.release(SECOND).await.unwrap();
    held[0].receipt.release(Duration::ZERO).await.unwrap();
    assert_eq!(held[1].receipt.replace(envelope("q", "replaced")).await.unwrap(), Replaced::Done);
    tokio::time::advance(2 * SECOND).await;
    let again = listener.next(demand(10)).await.unwrap();
    assert_eq!(ids(&again), ["released", "replaced", "delayed", "later"]);
    assert_eq!(again.iter().map(|delivery| delivery.deliveries).collect::<Vec<_>>(), [2, 1, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_stale_holder_does_not_touch_the_new_one() {
    let (_, backend) = started().await;
    let mut listener = listen(&backend, &["q"]).await;
    kick(&backend, "q", "1").await;
    let stale = next(&mut listener).await.receipt;
    let fresh = next(&mut listener).await.receipt;
    tokio::time::advance(6 * SECOND).await;

    stale.ack().await.unwrap();
    stale.release(Duration::ZERO).await.unwrap();
    stale.extend().await.unwrap();
    assert_eq!(stale.replace(envelope("q", "1")).await.unwrap(), Replaced::Lost);
    assert!(stale.is_newest().await.unwrap(), "the message is the same one");
    assert!(listener.next(demand(1)).now_or_never().is_none(), "the new holder still holds it");

    tokio::time::advance(5 * SECOND).await;
    assert_eq!(next(&mut listener).await.deliveries, 3, "the stale holder did not extend it");
    assert_eq!(fresh.replace(envelope("q", "1")).await.unwrap(), Replaced::Lost);
}

#[tokio::test(start_paused = true)]
async fn who_released_a_message_has_no_say_any_more() {
    let (_, backend) = started().await;
    let mut listener = listen(&backend, &["q"]).await;
    kick(&backend, "q", "1").await;
    for (deliveries, delay) in [(1, Duration::ZERO), (2, SECOND)] {
        let delivery = next(&mut listener).await;
        assert_eq!(delivery.deliveries, deliveries);
        delivery.receipt.release(delay).await.unwrap();
        delivery.receipt.ack().await.unwrap();
        delivery.receipt.extend().await.unwrap();
        assert_eq!(delivery.receipt.replace(envelope("q", "1")).await.unwrap(), Replaced::Lost);
    }
    assert_eq!(next(&mut listener).await.deliveries, 3);
}

#[tokio::test]
async fn the_queues_of_a_listener_take_turns() {
    let (_, backend) = started().await;
    for index in 0..3 {
        kick(&backend, "full", &format!("full-{index}")).await;
    }
    kick(&backend, "other", "other-0").await;
    let mut listener = listen(&backend, &["full", "other", "empty"]).await;
    assert_eq!(ids(&listener.next(demand(2)).await.unwrap()), ["full-0", "other-0"]);
    assert_eq!(ids(&listener.next(demand(9)).await.unwrap()), ["full-1", "full-2"]);
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls once. The bell counts the wakes.
fn poll<F: Future + ?Sized>(future: std::pin::Pin<&mut F>, bell: &Arc<Bell>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(bell.clone())))
}

#[tokio::test]
async fn a_message_wakes_one_of_those_that_wait() {
    let (_, backend) = started().await;
    let bell = Arc::new(Bell::default());
    let mut listeners = Vec::new();
    for _ in 0..10 {
        listeners.push(listen(&backend, &["q"]).await);
    }
    let mut waiting: Vec<_> =
        listeners.iter_mut().map(|listener| Box::pin(listener.next(demand(1)))).collect();
    assert!(waiting.iter_mut().all(|next| poll(next.as_mut(), &bell).is_pending()));
    kick(&backend, "q", "1").await;
    assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    kick(&backend, "q", "2").await;
    assert_eq!(bell.0.load(Ordering::SeqCst), 2);
    let got = waiting.iter_mut().filter_map(|next| match poll(next.as_mut(), &bell) {
        Poll::Ready(deliveries) => Some(deliveries.unwrap().len()),
        Poll::Pending => None,
    });
    assert_eq!(got.collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn who_is_woken_and_gives_up_wakes_another() {
    let (_, backend) = started().await;
    let bell = Arc::new(Bell::default());
    let (mut first, mut second) = (listen(&backend, &["q"]).await, listen(&backend, &["q"]).await);
    for _ in 0..10 {
        let mut gives_up = first.next(demand(1));
        assert!(poll(gives_up.as_mut(), &bell).is_pending());
        let mut stays = second.next(demand(1));
        assert!(poll(stays.as_mut(), &bell).is_pending());
        kick(&backend, "q", "1").await;
        drop(gives_up);
        let deliveries = timeout(SECOND, stays).await.expect("the other one was woken").unwrap();
        deliveries[0].receipt.ack().await.unwrap();
        std::mem::swap(&mut first, &mut second);
    }
}

#[tokio::test]
async fn who_takes_from_one_queue_leaves_the_other_to_others() {
    let (_, backend) = started().await;
    let bell = Arc::new(Bell::default());
    let (mut both, mut one) = (listen(&backend, &["a", "b"]).await, listen(&backend, &["a"]).await);
    // The first waiter keeps the time and is woken last: here the message of `a` is for `both`.
    let mut waits = one.next(demand(1));
    assert!(poll(waits.as_mut(), &bell).is_pending());
    let mut takes = both.next(demand(1));
    assert!(poll(takes.as_mut(), &bell).is_pending());
    kick(&backend, "b", "b").await;
    kick(&backend, "a", "a").await;
    let (first, second) = (takes.await.unwrap(), timeout(SECOND, waits).await.unwrap().unwrap());
    assert_eq!((ids(&first), ids(&second)), (vec!["b"], vec!["a"]));
}

#[tokio::test(start_paused = true)]
async fn a_lease_runs_out_for_whoever_still_waits() {
    let (_, backend) = started().await;
    let mut holder = listen(&backend, &["q"]).await;
    let mut others = [listen(&backend, &["q"]).await, listen(&backend, &["q"]).await];
    let bell = Arc::new(Bell::default());
    let [keeper, other] = &mut others;
    let mut keeper = keeper.next(demand(1));
    assert!(poll(keeper.as_mut(), &bell).is_pending());
    kick(&backend, "q", "1").await;
    let _held = next(&mut holder).await;
    let late = pin!(next(other));
    let gives_up = async {
        tokio::time::sleep(SECOND).await;
        drop(keeper);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        delivery = late => assert_eq!(delivery.deliveries, 2),
        () = gives_up => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn idle_is_when_nothing_is_ready_or_held() {
    let (memory, backend) = started().await;
    memory.wait_idle().await;
    let mut scheduled = envelope("q", "later");
    scheduled.not_before = Some(Timestamp::now() + 100 * SECOND);
    backend.broker().kick(scheduled, Expect::Absent).await.unwrap();
    kick(&backend, "q", "1").await;
    assert!(timeout(SECOND, memory.wait_idle()).await.is_err(), "a message is ready");
    let delivery = next(&mut listen(&backend, &["q"]).await).await;
    assert!(timeout(SECOND, memory.wait_idle()).await.is_err(), "a message is held");
    let acked = async {
        tokio::time::sleep(SECOND).await;
        delivery.receipt.ack().await.unwrap();
    };
    tokio::join!(memory.wait_idle(), acked);
    tokio::time::advance(100 * SECOND).await;
    assert!(timeout(SECOND, memory.wait_idle()).await.is_err(), "the scheduled message is due");
}

#[tokio::test]
async fn the_content_outlives_a_shutdown() {
    let (_, backend) = started().await;
    kick(&backend, "q", "1").await;
    backend.kv().put("key", "value".into(), Expect::Any, None).await.unwrap();
    let mut listener = listen(&backend, &["q"]).await;
    let held = next(&mut listener).await;
    let waits = listener.next(demand(1));
    let stops = async {
        tokio::task::yield_now().await;
        backend.broker().shutdown().await.unwrap();
        backend.kv().shutdown().await.unwrap();
    };
    let (ended, ()) = timeout(SECOND, async { tokio::join!(waits, stops) }).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::NotStarted);
    assert_eq!(held.receipt.ack().await.unwrap_err().kind(), ErrorKind::NotStarted);

    start(&backend).await;
    assert_eq!(backend.kv().get("key").await.unwrap().unwrap().value, "value");
    held.receipt.ack().await.unwrap();
    assert!(backend.broker().find(&"1".into()).await.unwrap().is_none());
}

fn record(id: &str, status: Status) -> JobRecord {
    JobRecord::unreadable(id.into(), "q", status)
}

#[tokio::test]
async fn the_records_that_ended_first_make_room() {
    let memory = Memory::new().max_records(2);
    let backend = Backend::from(memory);
    start(&backend).await;
    let jobs = backend.jobs().unwrap();
    let put = async |id, status| jobs.put(record(id, status).into(), Expect::Any, None).await.unwrap();
    put("open", Status::Running).await;
    put("a", Status::Completed).await;
    put("b", Status::Failed).await;
    put("a", Status::Completed).await;
    put("c", Status::Completed).await;
    let kept = async |id: &str| jobs.get(&JobId::from(id)).await.unwrap().is_some();
    assert!(!kept("b").await, "`a` ended again after `b`");
    assert!(kept("open").await && kept("a").await && kept("c").await);
}

#[tokio::test]
async fn a_slow_watcher_holds_nobody_up_and_sees_the_latest() {
    let (_, backend) = started().await;
    let jobs = backend.jobs().unwrap();
    let mut slow = jobs.watch(Watched::Job { id: "1".into(), queue: "q".into() }).await.unwrap();
    for attempt in 1..=10_000 {
        let mut record = record("1", Status::Running);
        record.attempt = attempt;
        jobs.put(record.into(), Expect::Any, None).await.unwrap();
    }
    let seen: Vec<u32> =
        std::iter::from_fn(|| slow.next().now_or_never().flatten()).map(|record| record.attempt).collect();
    assert!(seen.len() < 100 && seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.last(), Some(&10_000));
}

#[tokio::test(start_paused = true)]
async fn what_vanished_by_its_ttl_is_not_there_in_any_way() {
    let (_, backend) = started().await;
    let kv = backend.kv();
    let first = kv.put("a.1", "x".into(), Expect::Any, Some(SECOND)).await.unwrap();
    kv.put("a.2", "x".into(), Expect::Any, Some(3 * SECOND)).await.unwrap();
    tokio::time::advance(2 * SECOND).await;
    assert!(kv.get("a.1").await.unwrap().is_none());
    assert_eq!(kv.scan("a.").await.unwrap().len(), 1);
    assert!(kv.put("a.1", "y".into(), Expect::Revision(first), None).await.is_err());
    assert!(!kv.delete("a.1", Expect::Any).await.unwrap());
    assert!(kv.put("a.1", "y".into(), Expect::Absent, None).await.unwrap() > first);
    tokio::time::advance(2 * SECOND).await;
    let left: Vec<String> = kv.scan("").await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(left, ["a.1"], "the new value has no end");
}

#[test]
fn no_kick_is_overlooked_by_a_listener_that_is_about_to_sleep() {
    kick_in_rounds(1, 1, 30_000);
}

#[test]
fn no_kick_is_overlooked_by_listeners_on_other_threads() {
    kick_in_rounds(4, 3, 1_500);
}

/// Each producer waits after a few kicks until all of them have arrived, so that listeners fall
/// asleep at any moment.
fn kick_in_rounds(kickers: usize, listeners: usize, rounds: usize) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let (memory, backend) = runtime.block_on(started());
    let came: Arc<Vec<AtomicUsize>> = Arc::new((0..kickers).map(|_| AtomicUsize::new(0)).collect());
    for _ in 0..listeners {
        let (backend, came) = (backend.clone(), Arc::clone(&came));
        runtime.spawn(async move {
            let mut listener = listen(&backend, &["q"]).await;
            loop {
                for delivery in listener.next(demand(2)).await.unwrap() {
                    delivery.receipt.ack().await.unwrap();
                    let kicker: usize = delivery.id.as_str().split('-').next().unwrap().parse().unwrap();
                    came[kicker].fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    std::thread::scope(|scope| {
        for (kicker, came) in came.iter().enumerate() {
            let (backend, runtime) = (&backend, &runtime);
            scope.spawn(move || {
                let mut kicked = 0;
                for round in 0..rounds {
                    for _ in 0..=round % kickers {
                        let envelope = envelope("q", &format!("{kicker}-{kicked}"));
                        runtime.block_on(backend.broker().kick(envelope, Expect::Any)).unwrap();
                        kicked += 1;
                    }
                    let begun = std::time::Instant::now();
                    while came.load(Ordering::SeqCst) < kicked {
                        assert!(begun.elapsed() < 5 * SECOND, "a kick was overlooked");
                        std::hint::spin_loop();
                    }
                }
                // More would be a message that arrived twice.
                assert_eq!(came.load(Ordering::SeqCst), kicked);
            });
        }
    });
    // The acks have arrived too.
    runtime.block_on(async { timeout(10 * SECOND, memory.wait_idle()).await }).unwrap();
}
