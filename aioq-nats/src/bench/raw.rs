//! Benchmarks without aioq: the client library on streams as aioq declares them, with its subjects
//! and headers.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use aioq::bench::{
    BenchSite, Plan, QUEUE, RawMessage, RawRecord, Sample, Stopwatch, Tally, Work, at_once, now_us, steadily,
};
use aioq::broker::Subscription;
use aioq::{BoxError, Client, Error, ErrorKind, Result};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::context::{Context, PublishAckFuture};
use async_nats::jetstream::{self, Message as Delivery};
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Site;
use crate::link::{Deadline, connect};

/// Number of unconfirmed messages in a bulk kick, as in aioq.
const WINDOW: usize = 4096;

/// Number of messages per pull request.
const BATCH: usize = 500;

/// Runs a benchmark once; `None` if it has no counterpart without aioq.
pub(super) async fn run(site: &Site, work: Work, plan: Plan) -> Result<Option<Sample>> {
    if work == Work::Idle {
        return Ok(None);
    }
    let raw = Raw::declare(site).await?;
    let sample = match work {
        Work::Kick => raw.kick(plan).await,
        Work::Bulk => raw.bulk(plan).await,
        Work::Drain => raw.drain(plan).await,
        Work::Both => raw.both(plan).await,
        Work::Latency => raw.latency(plan).await,
        _ => return Ok(None),
    };
    // An error here means that the connection is closed already.
    let _ = raw.context.client().drain().await;
    sample.map(Some)
}

/// Error of the client library.
fn failed(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Backend, "the raw program").with_source(error)
}

fn ended() -> Error {
    Error::new(ErrorKind::Backend, "the raw program ended early")
}

/// Client library on aioq's streams and consumers.
#[derive(Clone)]
struct Raw {
    context: Context,
    prefix: Arc<str>,
    stream: Arc<str>,
}

impl Raw {
    /// Lets aioq declare the streams and consumers, so that the settings are the same.
    async fn declare(site: &Site) -> Result<Self> {
        let client = Client::connect(site.backend()).await?;
        client.backend().broker().listen(Subscription::new([QUEUE])).await?.stop().await?;
        client.shutdown().await?;
        let options = &site.options;
        let client = connect(options, Deadline::within(options.deadline), |_| ready(())).await?;
        let (prefix, stream) = (options.prefix.as_str().into(), site.names.jobs.as_str().into());
        Ok(Self { context: jetstream::new(client), prefix, stream })
    }

    async fn kick(&self, plan: Plan) -> Result<Sample> {
        let watch = Stopwatch::start();
        let spans = self.kick_at_once(plan.jobs).await?;
        Ok(watch.stop(plan.jobs).with("kick", spans))
    }

    async fn kick_at_once(&self, jobs: usize) -> Result<Vec<Duration>> {
        let raw = self.clone();
        let kick = move |number| {
            let raw = raw.clone();
            async move { confirmed(raw.send(&RawMessage::new_id(), number as u64).await?).await }
        };
        at_once(jobs, kick).await
    }

    /// Publishes a job if its subject is new.
    async fn send(&self, id: &str, number: u64) -> Result<PublishAckFuture> {
        let subject = format!("{}.q.{QUEUE}.normal.{id}", self.prefix);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        let body = RawMessage::encoded(id, number).into();
        self.context.publish_with_headers(subject, headers, body).await.map_err(failed)
    }

    async fn bulk(&self, plan: Plan) -> Result<Sample> {
        let watch = Stopwatch::start();
        self.kick_all(plan.jobs).await?;
        Ok(watch.stop(plan.jobs))
    }

    async fn kick_all(&self, jobs: usize) -> Result<()> {
        let mut acks = VecDeque::with_capacity(WINDOW);
        for number in 0..jobs {
            if acks.len() == WINDOW
                && let Some(oldest) = acks.pop_front()
            {
                confirmed(oldest).await?;
            }
            acks.push_back(self.send(&RawMessage::new_id(), number as u64).await?);
        }
        for ack in acks {
            confirmed(ack).await?;
        }
        Ok(())
    }

    async fn drain(&self, plan: Plan) -> Result<Sample> {
        self.kick_all(plan.jobs).await?;
        let watch = Stopwatch::start();
        self.work_off(plan, plan.jobs, Tally::of(plan.jobs)).await?;
        Ok(watch.stop(plan.jobs))
    }

    async fn both(&self, plan: Plan) -> Result<Sample> {
        let watch = Stopwatch::start();
        let working = self.start_to_work(plan, plan.jobs, &Tally::of(plan.jobs));
        let spans = self.kick_at_once(plan.jobs).await?;
        joined(working).await?;
        Ok(watch.stop(plan.jobs).with("kick", spans))
    }

    /// Runs [`work_off`](Self::work_off) in a task that ends with its owner.
    fn start_to_work(&self, plan: Plan, jobs: usize, tally: &Tally) -> JoinSet<Result<()>> {
        let (raw, tally) = (self.clone(), tally.clone());
        let mut working = JoinSet::new();
        working.spawn(async move { raw.work_off(plan, jobs, tally).await });
        working
    }

    /// Pulls `jobs` jobs and runs each in a task of its own, within the plan's concurrency.
    async fn work_off(&self, plan: Plan, jobs: usize, tally: Tally) -> Result<()> {
        let slots = Arc::new(Semaphore::new(plan.concurrency));
        let worker_id: Arc<str> = RawMessage::new_id().into();
        let consumer = self.consumer().await?;
        let stream = consumer.stream().max_messages_per_batch(BATCH);
        let mut deliveries = stream.messages().await.map_err(failed)?;
        let mut running = JoinSet::new();
        for _ in 0..jobs {
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(failed)?;
            let delivery = deliveries.next().await.ok_or_else(ended)?.map_err(failed)?;
            let job = self.clone().finish(delivery, Arc::clone(&worker_id), tally.clone());
            running.spawn(async move {
                let finished = job.await;
                drop(slot);
                finished
            });
            while let Some(finished) = running.try_join_next() {
                finished.map_err(failed)??;
            }
        }
        joined(running).await
    }

    async fn consumer(&self) -> Result<Consumer<pull::Config>> {
        let consumer = format!("{QUEUE}-normal");
        self.context.get_consumer_from_stream(consumer, &*self.stream).await.map_err(failed)
    }

    /// Runs a job: writes its record if there is none, waits for the confirmation, acks.
    async fn finish(self, delivery: Delivery, worker_id: Arc<str>, tally: Tally) -> Result<()> {
        let started_at = now_us();
        let message = RawMessage::read(&delivery.payload)?;
        tally.started(message.run());
        tally.count();
        let record = RawRecord::encoded(&message, &worker_id, started_at);
        let (prefix, id) = (&self.prefix, message.id());
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", format!("{prefix}.r.{QUEUE}.*.{id}"));
        headers.insert("Nats-TTL", "86400s");
        let subject = format!("{prefix}.r.{QUEUE}.completed.{id}");
        let sent = self.context.publish_with_headers(subject, headers, record.into()).await;
        confirmed(sent.map_err(failed)?).await?;
        delivery.ack().await.map_err(failed)
    }

    async fn latency(&self, plan: Plan) -> Result<Sample> {
        let tally = Tally::with_starts(plan.jobs + 1);
        let working = self.start_to_work(plan, plan.jobs + 1, &tally);
        self.clone().stamp_one(tally.clone()).await?;
        let watch = Stopwatch::start();
        let spans = steadily(plan.jobs, |_| self.clone().stamp_one(tally.clone())).await?;
        let sample = watch.stop(plan.jobs);
        joined(working).await?;
        // Without the first job, which ran before the measurement.
        Ok(sample.with("start", tally.starts().split_off(1)).with("result", spans))
    }

    /// Publishes a job and waits for the notification of its record.
    async fn stamp_one(self, tally: Tally) -> Result<()> {
        let (kicked, id) = (tally.now(), RawMessage::new_id());
        let told = format!("{}.done.{QUEUE}.*.{id}", self.prefix);
        let mut told = self.context.client().subscribe(told).await.map_err(failed)?;
        confirmed(self.send(&id, kicked).await?).await?;
        told.next().await.map(drop).ok_or_else(ended)
    }
}

async fn joined(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(task) = tasks.join_next().await {
        task.map_err(failed)??;
    }
    Ok(())
}

async fn confirmed(ack: PublishAckFuture) -> Result<()> {
    ack.await.map(drop).map_err(failed)
}
