//! Looking at jobs and steering them, among many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aioq::store::{Expect, JobRecord, Retention, Status};
use aioq::{Client, JobFilter, JobId, Timestamp, Worker, task};

use crate::Plan;
use crate::framework::Running;
use crate::jobs::{QUEUE, TEXT, noop};
use crate::measure::{Sample, Stopwatch, at_once};

/// How often each thing is done.
const TIMES: usize = 50;
/// One record in so many is of a failed job.
const RARE: usize = 1_000;
const QUEUES: usize = 10;

/// Waits to be stopped.
#[task(name = "bench.wait", queue = "bench")]
pub(crate) async fn wait() {
    std::future::pending::<()>().await;
}

/// Fills the store, then looks at it and steers jobs.
pub(crate) async fn run(client: &Client, plan: Plan, worker: Worker) -> Sample {
    fill(client, plan.jobs).await;
    for queue in 0..QUEUES {
        client.kiq(noop(1, TEXT).queue(format!("{QUEUE}-{queue}")).delay("1h")).await.expect("a kick");
    }
    let watch = Stopwatch::start();
    let jobs = client.jobs();
    let page = async |filter: JobFilter| {
        let list = jobs.list(filter, 50).await.expect("a page");
        assert_eq!(list.jobs.len(), 50);
    };
    let pages = timed(async || page(JobFilter::new().status(Status::Completed)).await).await;
    let rare = timed(async || page(JobFilter::new().status(Status::Failed)).await).await;
    let all = timed(async || page(JobFilter::new()).await).await;
    let counts = timed(async || drop(client.queues().stats().await.expect("counts"))).await;
    let running = Running::start(worker);
    let (cancels, aborts) = (cancel(client).await, abort(client).await);
    running.stop().await;
    let started = Instant::now();
    let gone = jobs.clean(Status::Completed, "0s", 10_000).await.expect("a clean");
    assert_eq!(gone.len(), 10_000);
    let clean = vec![started.elapsed()];
    let sample = watch.stop(plan.jobs).with("page", pages).with("rare_page", rare).with("page_of_all", all);
    sample.with("counts", counts).with("cancel", cancels).with("abort", aborts).with("clean", clean)
}

async fn timed(work: impl AsyncFn()) -> Vec<Duration> {
    let mut spans = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let started = Instant::now();
        work().await;
        spans.push(started.elapsed());
    }
    spans
}

async fn fill(client: &Client, records: usize) {
    let store = Arc::clone(client.backend().jobs().expect("a store"));
    let ttl = Some(Retention::new().span(Status::Completed));
    let put = move |number: usize| {
        let store = Arc::clone(&store);
        async move {
            let status = if number.is_multiple_of(RARE) { Status::Failed } else { Status::Completed };
            let queue = format!("{QUEUE}-{}", number % QUEUES);
            let mut record = JobRecord::unreadable(JobId::from(number.to_string()), queue, status);
            record.task = "bench.noop".into();
            record.finished_at = Some(Timestamp::now());
            store.put(Arc::new(record), Expect::Absent, ttl).await.expect("a record");
        }
    };
    at_once(records, put).await;
}

async fn cancel(client: &Client) -> Vec<Duration> {
    let mut spans = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let handle = client.kiq(noop(1, TEXT).delay("1h")).await.expect("a kick");
        let started = Instant::now();
        assert!(handle.cancel().await.expect("a cancel"));
        spans.push(started.elapsed());
    }
    spans
}

/// From the request to the end of a body that waits.
async fn abort(client: &Client) -> Vec<Duration> {
    let mut spans = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let handle = client.kiq(wait()).await.expect("a kick");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let started = Instant::now();
        assert!(handle.abort("10s").await.expect("an abort"));
        spans.push(started.elapsed());
    }
    spans
}
