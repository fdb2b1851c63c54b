//! The works as a user of aioq would write them.

use std::time::Duration;

use aioq::{App, Client, Result, Summary, Worker, WorkerOptions};
use aioq_tests::Bed;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::Plan;
use crate::args::Work;
use crate::jobs::{QUEUE, TEXT, Tally, noop, stamp};
use crate::measure::{Sample, Stopwatch, at_once, steadily};

/// How long to look at a worker without work, after it has come to rest.
const IDLE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(1);

/// Does a work once, on an empty bed.
pub(crate) async fn run(work: Work, plan: Plan, bed: &Bed) -> Sample {
    let client = bed.client().await;
    let sample = match work {
        Work::Kick => kick(&client, plan).await,
        Work::Bulk => bulk(&client, plan).await,
        Work::Drain => drain(&client, plan, bed).await,
        Work::Both => both(&client, plan, bed).await,
        Work::Latency => latency(&client, plan, bed).await,
        Work::Idle => idle(plan, bed).await,
        Work::Look => crate::look::run(&client, plan, worker(plan, bed, &Tally::of(0)).await).await,
        Work::All => unreachable!("it is taken apart before"),
    };
    client.shutdown().await.expect("the backend shuts down");
    sample
}

/// Kicks that many jobs and leaves them in the queue.
pub(crate) async fn fill(bed: &Bed, jobs: usize) {
    let client = bed.client().await;
    kick_all(&client, jobs).await;
    client.shutdown().await.expect("the backend shuts down");
}

async fn kick(client: &Client, plan: Plan) -> Sample {
    let watch = Stopwatch::start();
    let spans = kick_at_once(client, plan.jobs).await;
    watch.stop(plan.jobs).with("", spans)
}

async fn kick_at_once(client: &Client, jobs: usize) -> Vec<Duration> {
    let client = client.clone();
    let kick = move |number| {
        let client = client.clone();
        async move { drop(client.kiq(noop(number as u64, TEXT)).await.expect("a kick")) }
    };
    at_once(jobs, kick).await
}

async fn bulk(client: &Client, plan: Plan) -> Sample {
    let watch = Stopwatch::start();
    kick_all(client, plan.jobs).await;
    watch.stop(plan.jobs)
}

async fn kick_all(client: &Client, jobs: usize) {
    let calls = (0..jobs).map(|number| noop(number as u64, TEXT));
    for kicked in client.kiq_all(calls).await {
        kicked.expect("a kick");
    }
}

async fn drain(client: &Client, plan: Plan, bed: &Bed) -> Sample {
    kick_all(client, plan.jobs).await;
    let tally = Tally::of(plan.jobs);
    let worker = worker(plan, bed, &tally).await;
    let watch = Stopwatch::start();
    // It ends when all that it has taken is settled.
    worker.run(tally.full()).await.expect("the worker ends well");
    watch.stop(plan.jobs)
}

async fn both(client: &Client, plan: Plan, bed: &Bed) -> Sample {
    let tally = Tally::of(plan.jobs);
    let worker = worker(plan, bed, &tally).await;
    let watch = Stopwatch::start();
    let working = tokio::spawn(async move { worker.run(tally.full()).await });
    let spans = kick_at_once(client, plan.jobs).await;
    working.await.expect("the worker does not panic").expect("the worker ends well");
    watch.stop(plan.jobs).with("", spans)
}

async fn latency(client: &Client, plan: Plan, bed: &Bed) -> Sample {
    let tally = Tally::of(plan.jobs);
    let running = Running::start(worker(plan, bed, &tally).await);
    stamp_one(client.clone(), tally.clone()).await;
    tally.starts();
    let watch = Stopwatch::start();
    let spans = steadily(plan.jobs, |_| stamp_one(client.clone(), tally.clone())).await;
    let sample = watch.stop(plan.jobs);
    running.stop().await;
    sample.with("start", tally.starts()).with("result", spans)
}

async fn stamp_one(client: Client, tally: Tally) {
    let handle = client.kiq(stamp(tally.now(), TEXT)).await.expect("a kick");
    handle.result().await.expect("a result");
}

async fn idle(plan: Plan, bed: &Bed) -> Sample {
    let running = Running::start(worker(plan, bed, &Tally::of(0)).await);
    tokio::time::sleep(REST).await;
    let watch = Stopwatch::start();
    tokio::time::sleep(IDLE).await;
    let sample = watch.stop(0);
    running.stop().await;
    sample
}

async fn worker(plan: Plan, bed: &Bed, tally: &Tally) -> Worker {
    let options = WorkerOptions::new().queues([QUEUE]).concurrency(plan.concurrency);
    let app: App = bed.app().worker_options(options).records(plan.records).state(tally.clone());
    app.worker().await.expect("the backend starts")
}

/// A worker that runs until it is stopped.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<Summary>>,
}

impl Running {
    pub(crate) fn start(worker: Worker) -> Self {
        let (stop, stopped) = oneshot::channel();
        let until = async {
            // An error says that nobody will stop it any more.
            let _ = stopped.await;
        };
        Self { stop, ended: tokio::spawn(worker.run(until)) }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).expect("the worker still runs");
        self.ended.await.expect("the worker does not panic").expect("the worker ends well");
    }
}
