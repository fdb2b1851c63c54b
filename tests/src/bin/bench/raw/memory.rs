//! In memory: a channel, a spawned task for each job, MessagePack.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};

use super::wire::{Message, encoded, new_id};
use crate::Plan;
use crate::args::Work;
use crate::jobs::Tally;
use crate::measure::{Sample, Stopwatch, at_once, steadily};

/// A job in the channel: its body, and where its result goes.
struct Job<R> {
    body: Bytes,
    reply: R,
}

type Reply = oneshot::Sender<Vec<u8>>;

/// Does a work once; `None` if there is nothing to do without the framework.
pub(crate) async fn run(work: Work, plan: Plan) -> Option<Sample> {
    Some(match work {
        Work::Kick => kick(plan).await,
        Work::Bulk => bulk(plan),
        Work::Drain => drain(plan).await,
        Work::Both => both(plan).await,
        Work::Latency => latency(plan).await,
        Work::Idle | Work::Look | Work::All => return None,
    })
}

async fn kick(plan: Plan) -> Sample {
    let (jobs, _kept) = unbounded_channel();
    let watch = Stopwatch::start();
    let spans = kick_at_once(&jobs, plan.jobs).await;
    watch.stop(plan.jobs).with("", spans)
}

async fn kick_at_once(jobs: &UnboundedSender<Job<()>>, count: usize) -> Vec<Duration> {
    let jobs = jobs.clone();
    let kick = move |number| {
        let jobs = jobs.clone();
        async move { send(&jobs, number) }
    };
    at_once(count, kick).await
}

fn send(jobs: &UnboundedSender<Job<()>>, number: usize) {
    let body = encoded(&new_id(), number as u64).into();
    assert!(jobs.send(Job { body, reply: () }).is_ok(), "the other end is kept");
}

fn bulk(plan: Plan) -> Sample {
    let (jobs, _kept) = unbounded_channel();
    let watch = Stopwatch::start();
    (0..plan.jobs).for_each(|number| send(&jobs, number));
    watch.stop(plan.jobs)
}

async fn drain(plan: Plan) -> Sample {
    let (jobs, waiting) = unbounded_channel();
    (0..plan.jobs).for_each(|number| send(&jobs, number));
    let watch = Stopwatch::start();
    work_off(plan, waiting).await;
    watch.stop(plan.jobs)
}

async fn both(plan: Plan) -> Sample {
    let (jobs, waiting) = unbounded_channel();
    let watch = Stopwatch::start();
    let working = tokio::spawn(work_off(plan, waiting));
    let spans = kick_at_once(&jobs, plan.jobs).await;
    working.await.expect("the worker does not panic");
    watch.stop(plan.jobs).with("", spans)
}

/// Runs all jobs of a plan, and keeps what they return.
async fn work_off(plan: Plan, mut waiting: UnboundedReceiver<Job<()>>) {
    let tally = Tally::of(plan.jobs);
    let slots = Arc::new(Semaphore::new(plan.concurrency));
    let (results, mut kept) = unbounded_channel();
    for _ in 0..plan.jobs {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
        let job = waiting.recv().await.expect("a job");
        let (tally, results) = (tally.clone(), results.clone());
        tokio::spawn(async move {
            let message = Message::read(&job.body);
            std::hint::black_box((message.kwargs.number, message.kwargs.text));
            tally.count();
            let result = (message.task_id.to_owned(), encoded_result());
            assert!(results.send(result).is_ok(), "the other end is kept");
            drop(slot);
        });
    }
    for _ in 0..plan.jobs {
        kept.recv().await.expect("a result");
    }
}

fn encoded_result() -> Vec<u8> {
    rmp_serde::to_vec_named(&()).expect("nothing is plain data")
}

async fn latency(plan: Plan) -> Sample {
    let tally = Tally::of(plan.jobs);
    let (jobs, waiting) = unbounded_channel();
    let working = tokio::spawn(answer(waiting, tally.clone()));
    let watch = Stopwatch::start();
    let spans = steadily(plan.jobs, |_| stamp_one(jobs.clone(), tally.clone())).await;
    let sample = watch.stop(plan.jobs);
    drop(jobs);
    working.await.expect("the worker does not panic");
    sample.with("start", tally.starts()).with("result", spans)
}

async fn stamp_one(jobs: UnboundedSender<Job<Reply>>, tally: Tally) {
    let (reply, result) = oneshot::channel();
    let body = encoded(&new_id(), tally.now()).into();
    assert!(jobs.send(Job { body, reply }).is_ok(), "the other end is kept");
    result.await.expect("a result");
}

/// Runs jobs as they come and sends back what they return.
async fn answer(mut waiting: UnboundedReceiver<Job<Reply>>, tally: Tally) {
    while let Some(Job { body, reply }) = waiting.recv().await {
        let tally = tally.clone();
        tokio::spawn(async move {
            tally.started(Message::read(&body).kwargs.number);
            reply.send(encoded_result()).expect("somebody waits");
        });
    }
}
