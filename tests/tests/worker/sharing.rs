//! Workers that share queues: prefetching, pauses and even shares.

use std::time::Duration;

use aioq::Result;
use aioq::prelude::*;
use aioq::store::Status;
use aioq::worker::WorkerOptions;
use aioq_tests::{Bed, PATIENCE, Running, on_each_backend, until};

use crate::bodies::{add, flaky, hold};
use crate::{options, probed};

#[task]
async fn thousandth_of_a_second() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[task]
async fn tenth_of_a_second() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Many short jobs, so that the worker fetches ahead, and behind them such as fill it.
async fn gives_back_what_it_had_fetched_ahead(bed: Bed, own: WorkerOptions) {
    const LONG: usize = 100;
    let client = bed.client().await;
    let short = client.kiq_all((0..4_000).map(|_| thousandth_of_a_second())).await;
    let long = client.kiq_all((0..LONG).map(|_| hold())).await;
    assert!(short.iter().all(Result::is_ok) && long.iter().all(Result::is_ok));
    let (app, probe) = probed(&bed);
    let worker = Running::start(app.worker_options(own.concurrency(16))).await;
    until("it is full", async || probe.runs() == 16).await;
    let (app, others) = probed(&bed);
    let other = Running::start(app.worker_options(options().concurrency(LONG))).await;
    let rest = || others.runs() as usize == LONG - 16;
    until("the rest runs elsewhere", async || rest()).await;
    other.crash();
    worker.crash();
}

on_each_backend! {
    async fn a_worker_that_is_full_of_long_jobs_gives_back_what_it_had_fetched_ahead(bed: Bed) {
        gives_back_what_it_had_fetched_ahead(bed, options()).await;
    }

    async fn a_full_worker_in_burst_mode_gives_back_what_it_had_fetched_ahead(bed: Bed) {
        gives_back_what_it_had_fetched_ahead(bed, options().burst(true)).await;
    }

    async fn workers_share_a_queue_evenly(bed: Bed) {
        const JOBS: usize = 400;
        let few = || options().concurrency(10);
        let one = Running::start(probed(&bed).0.worker_options(few())).await;
        let two = Running::start(probed(&bed).0.worker_options(few())).await;
        let kicks = one.client.kiq_all((0..JOBS).map(|_| tenth_of_a_second())).await;
        for kicked in kicks {
            kicked.unwrap().result_within(PATIENCE).await.unwrap();
        }
        let taken = [one.stop().await.jobs, two.stop().await.jobs];
        println!("{taken:?}");
        assert!(taken.iter().all(|taken| *taken as usize >= JOBS * 9 / 20), "{taken:?}");
    }

    async fn a_paused_queue_is_left_alone_by_all_workers_until_it_is_resumed(bed: Bed) {
        let (app, probe) = probed(&bed);
        let first = Running::start(app.worker_options(WorkerOptions::new().queues(["default", "a.b"]))).await;
        let client = bed.client().await;
        assert_eq!(client.kiq(add(1, 1)).await.unwrap().result_within(PATIENCE).await.unwrap(), 2);
        client.queues().pause("default").await.unwrap();
        client.queues().pause("default").await.unwrap();
        assert_eq!(client.queues().paused().await.unwrap().into_iter().collect::<Vec<_>>(), ["default"]);
        // A worker that starts later knows of it too.
        let second = Running::start(probed(&bed).0).await;
        // The first one learns of it: from some moment on, jobs stay.
        let waiting = async {
            loop {
                let handle = client.kiq(flaky(0)).await.unwrap();
                if handle.result_within("100ms").await.is_err() {
                    return handle;
                }
            }
        };
        let waiting = tokio::time::timeout(PATIENCE, waiting).await.expect("the pause is felt");
        let runs = probe.runs();
        // Other queues go on.
        assert_eq!(client.kiq(add(2, 2).queue("a.b")).await.unwrap().result_within(PATIENCE).await.unwrap(), 4);
        assert_eq!(waiting.record().await.unwrap().status, Status::Pending);
        assert!(client.queues().resume("default").await.unwrap());
        assert!(!client.queues().resume("default").await.unwrap());
        assert_eq!(waiting.result_within(PATIENCE).await.unwrap(), 1);
        assert!(probe.runs() <= runs + 1);
        first.stop().await;
        second.stop().await;
    }
}
