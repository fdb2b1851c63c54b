//! The raw program in memory: a channel, a spawned Tokio task for each job, MessagePack.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::bench::{Plan, RawMessage, Sample, Stopwatch, Tally, Work, at_once, steadily};
use crate::error::{Error, ErrorKind, Result};

/// A job in the channel: its encoded body, and the sender for its result.
struct Job<R> {
    body: Bytes,
    reply: R,
}

type Reply = oneshot::Sender<Vec<u8>>;

/// Runs a work once; `None` if the work has no raw program.
pub(super) async fn run(work: Work, plan: Plan) -> Result<Option<Sample>> {
    match work {
        Work::Kick => kick(plan).await,
        Work::Bulk => bulk(plan),
        Work::Drain => drain(plan).await,
        Work::Both => both(plan).await,
        Work::Latency => latency(plan).await,
        Work::Idle => return Ok(None),
    }
    .map(Some)
}

async fn kick(plan: Plan) -> Result<Sample> {
    let (jobs, _kept) = unbounded_channel();
    let watch = Stopwatch::start();
    let spans = kick_at_once(&jobs, plan.jobs).await?;
    Ok(watch.stop(plan.jobs).with("kick", spans))
}

async fn kick_at_once(jobs: &UnboundedSender<Job<()>>, count: usize) -> Result<Vec<Duration>> {
    let jobs = jobs.clone();
    let kick = move |number| {
        let jobs = jobs.clone();
        async move { send(&jobs, number as u64, ()) }
    };
    at_once(count, kick).await
}

fn send<R>(jobs: &UnboundedSender<Job<R>>, number: u64, reply: R) -> Result<()> {
    let body = RawMessage::encoded(&RawMessage::new_id(), number).into();
    jobs.send(Job { body, reply }).map_err(|_| gone())
}

/// Error for a channel whose other end is gone.
fn gone() -> Error {
    Error::new(ErrorKind::Backend, "the raw program ended early")
}

fn send_all(jobs: &UnboundedSender<Job<()>>, count: usize) -> Result<()> {
    (0..count).try_for_each(|number| send(jobs, number as u64, ()))
}

fn bulk(plan: Plan) -> Result<Sample> {
    let (jobs, _kept) = unbounded_channel();
    let watch = Stopwatch::start();
    send_all(&jobs, plan.jobs)?;
    Ok(watch.stop(plan.jobs))
}

async fn drain(plan: Plan) -> Result<Sample> {
    let (jobs, waiting) = unbounded_channel();
    send_all(&jobs, plan.jobs)?;
    let watch = Stopwatch::start();
    joined(started(work_off(plan, waiting))).await?;
    Ok(watch.stop(plan.jobs))
}

async fn both(plan: Plan) -> Result<Sample> {
    let (jobs, waiting) = unbounded_channel();
    let watch = Stopwatch::start();
    let working = started(work_off(plan, waiting));
    let spans = kick_at_once(&jobs, plan.jobs).await?;
    joined(working).await?;
    Ok(watch.stop(plan.jobs).with("kick", spans))
}

/// Spawns a Tokio task that is aborted with its owner.
fn started(work: impl Future<Output = Result<()>> + Send + 'static) -> JoinSet<Result<()>> {
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    tasks
}

async fn joined(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    match tasks.join_next().await {
        Some(Ok(ended)) => ended,
        _ => Err(gone()),
    }
}

/// Runs all jobs of a plan, and receives their results.
async fn work_off(plan: Plan, mut waiting: UnboundedReceiver<Job<()>>) -> Result<()> {
    let (tally, slots) = (Tally::of(plan.jobs), Arc::new(Semaphore::new(plan.concurrency)));
    let (results, mut kept) = unbounded_channel();
    for _ in 0..plan.jobs {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(|_| gone())?;
        let job = waiting.recv().await.ok_or_else(gone)?;
        let (tally, results) = (tally.clone(), results.clone());
        tokio::spawn(async move {
            let done = finish(&job.body, &tally);
            // An error shows below: a result is missing.
            let _ = results.send(done);
            drop(slot);
        });
    }
    for _ in 0..plan.jobs {
        kept.recv().await.ok_or_else(gone)??;
    }
    Ok(())
}

/// Runs a job. Returns its id and its encoded result.
fn finish(body: &Bytes, tally: &Tally) -> Result<(String, Vec<u8>)> {
    let message = RawMessage::read(body)?;
    tally.started(message.run());
    tally.count();
    Ok((message.id().to_owned(), encoded_result()?))
}

fn encoded_result() -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(&())
        .map_err(|error| Error::new(ErrorKind::Encode, "no result").with_source(error))
}

async fn latency(plan: Plan) -> Result<Sample> {
    let tally = Tally::with_starts(plan.jobs);
    let (jobs, waiting) = unbounded_channel();
    let working = started(answer(waiting, tally.clone()));
    let watch = Stopwatch::start();
    let spans = steadily(plan.jobs, |_| stamp_one(jobs.clone(), tally.clone())).await?;
    let sample = watch.stop(plan.jobs);
    drop(jobs);
    joined(working).await?;
    Ok(sample.with("start", tally.starts()).with("result", spans))
}

async fn stamp_one(jobs: UnboundedSender<Job<Reply>>, tally: Tally) -> Result<()> {
    let (reply, result) = oneshot::channel();
    send(&jobs, tally.now(), reply)?;
    result.await.map(drop).map_err(|_| gone())
}

/// Runs jobs as they come, and sends back their results.
async fn answer(mut waiting: UnboundedReceiver<Job<Reply>>, tally: Tally) -> Result<()> {
    while let Some(Job { body, reply }) = waiting.recv().await {
        let tally = tally.clone();
        tokio::spawn(async move {
            tally.started(RawMessage::read(&body)?.run());
            // The producer may have stopped waiting.
            let _ = reply.send(encoded_result()?);
            Ok::<_, Error>(())
        });
    }
    Ok(())
}
