//! Blocking bodies: threads, slots and queues.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aioq::error::Reason;
use aioq::prelude::*;
use aioq::store::Status;
use aioq_tests::{Bed, PATIENCE, Probe, Running, ended, on_each_backend, record_when};

use crate::bodies::{Gauge, add, gauged, gauged_blocking};
use crate::{options, probed, stateful};

static OVERLAPS: AtomicUsize = AtomicUsize::new(0);

#[task(timeout = "50ms", retry(max = 1, backoff = "1ms"))]
fn stubborn(#[inject] ctx: &Context, #[inject] probe: &Probe) {
    static INSIDE: AtomicUsize = AtomicUsize::new(0);
    if INSIDE.fetch_add(1, Ordering::SeqCst) > 0 {
        OVERLAPS.fetch_add(1, Ordering::SeqCst);
    }
    probe.run(ctx.attempt());
    while !ctx.is_cancelled() {
        std::thread::yield_now();
    }
    // Goes on after it was told to stop: a retry must not start before it returns.
    std::thread::sleep(Duration::from_millis(50));
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

on_each_backend! {
    async fn no_more_jobs_run_at_once_than_the_worker_may(bed: Bed) {
        let gauge = Gauge::default();
        let app = stateful(bed.app()).state(gauge.clone());
        let worker = Running::start(app.worker_options(options().concurrency(3).blocking_threads(2))).await;
        // Four blocking jobs: two run, two wait, and none keeps an async one from running.
        let blocking = worker.client.kiq_all((0..4).map(|_| gauged_blocking())).await;
        gauge.blocking_full.acquire_many(2).await.unwrap().forget();
        let handles = worker.client.kiq_all((0..20).map(|_| gauged())).await;
        gauge.full.acquire_many(3).await.unwrap().forget();
        gauge.open.add_permits(1000);
        for handle in handles.into_iter().chain(blocking) {
            handle.unwrap().result_within(PATIENCE).await.unwrap();
        }
        assert_eq!(gauge.most.load(Ordering::SeqCst), 3);
        assert_eq!(gauge.most_blocking.load(Ordering::SeqCst), 2);
        worker.stop().await;
    }

    async fn a_worker_takes_no_more_blocking_jobs_of_a_queue_of_their_own_than_it_has_threads_for(bed: Bed) {
        let gauge = Gauge::default();
        let worker_with = async |threads: usize| {
            let options = options().concurrency(2).blocking_threads(threads);
            Running::start(stateful(bed.app()).state(gauge.clone()).worker_options(options)).await
        };
        let first = worker_with(2).await;
        let blocking = first.client.kiq_all((0..8).map(|_| gauged_blocking())).await;
        gauge.blocking_full.acquire_many(2).await.unwrap().forget();
        for handle in first.client.kiq_all((0..20).map(|n| add(n, n))).await {
            handle.unwrap().result_within(PATIENCE).await.unwrap();
        }
        // The others are for a worker that has threads.
        let second = worker_with(6).await;
        tokio::time::timeout(PATIENCE, gauge.blocking_full.acquire_many(6)).await.unwrap().unwrap().forget();
        gauge.open.add_permits(1000);
        for handle in blocking {
            handle.unwrap().result_within(PATIENCE).await.unwrap();
        }
        first.stop().await;
        second.stop().await;
    }

    async fn a_crowd_of_blocking_jobs_holds_up_nothing_but_its_own_queue(bed: Bed) {
        let gauge = Gauge::default();
        let options = options().concurrency(2).blocking_threads(1).max_prefetch(0).queues(["default", "other"]);
        let worker = Running::start(stateful(bed.app()).state(gauge.clone()).worker_options(options)).await;
        // Async ones go to that queue, too.
        let blocking = worker.client.kiq_all((0..30).map(|_| gauged_blocking().queue("default"))).await;
        gauge.blocking_full.acquire().await.unwrap().forget();
        for handle in worker.client.kiq_all((0..20).map(|n| add(n, n).queue("other"))).await {
            handle.unwrap().result_within(PATIENCE).await.unwrap();
        }
        gauge.open.add_permits(1000);
        for handle in blocking {
            handle.unwrap().result_within(PATIENCE).await.unwrap();
        }
        worker.stop().await;
    }

    async fn a_blocking_job_that_waits_for_a_thread_is_given_back_at_the_end(bed: Bed) {
        let gauge = Gauge::default();
        let app = stateful(bed.app()).state(gauge.clone());
        let options = options().blocking_threads(1).grace(Duration::from_millis(50));
        let worker = Running::start(app.worker_options(options)).await;
        let client = bed.client().await;
        let first = client.kiq(gauged_blocking()).await.unwrap();
        gauge.blocking_full.acquire().await.unwrap().forget();
        let waiting = client.kiq(gauged_blocking()).await.unwrap();
        // Once it is held, it waits for the only thread.
        record_when(&client, first.id(), |record| record.status == Status::Running).await;
        worker.tell_to_stop();
        let other = Running::start(stateful(bed.app()).state(gauge.clone())).await;
        // The second is run elsewhere, while the first still holds its thread here.
        gauge.blocking_full.acquire().await.unwrap().forget();
        gauge.open.add_permits(10);
        assert_eq!(waiting.wait().await.unwrap().attempt, 1);
        other.stop().await;
        worker.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_body_that_ignores_its_timeout_is_waited_for() {
    let (app, probe) = probed(&Bed::memory());
    let worker = Running::start(app).await;
    let record = ended(&worker.client.kiq(stubborn()).await.unwrap()).await;
    assert_eq!((record.status, record.reason, record.attempt), (Status::Failed, Some(Reason::Timeout), 2));
    assert_eq!(probe.attempts(), [1, 2]);
    assert_eq!(OVERLAPS.load(Ordering::SeqCst), 0);
    worker.stop().await;
}
