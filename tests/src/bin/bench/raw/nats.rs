//! On NATS: the client library on streams as the framework declares them, with its subjects and headers.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aioq::broker::Subscription;
use aioq::{Backend, Client};
use aioq_nats::Nats;
use aioq_tests::unique_prefix;
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::context::{Context, PublishAckFuture};
use async_nats::jetstream::{self, Message as Delivery};
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::wire::{Message, Record, encoded, new_id, now_us};
use crate::Plan;
use crate::args::Work;
use crate::jobs::{QUEUE, Tally};
use crate::measure::{Sample, Stopwatch, at_once, steadily};

/// Messages that may be unconfirmed in bulk: the framework's number.
const WINDOW: usize = 4096;

/// Messages to ask for at a time.
const BATCH: usize = 500;

/// Does a work once, under a prefix of its own; `None` if there is nothing to do without the framework.
pub(crate) async fn run(work: Work, plan: Plan, url: &str) -> Option<Sample> {
    if matches!(work, Work::Idle | Work::Look) {
        return None;
    }
    let site = Site::declare(url).await;
    let sample = match work {
        Work::Kick => site.kick(plan).await,
        Work::Bulk => site.bulk(plan).await,
        Work::Drain => site.drain(plan).await,
        Work::Both => site.both(plan).await,
        _ => site.latency(plan).await,
    };
    delete_streams(url, &site.prefix).await;
    Some(sample)
}

/// Removes the streams under a prefix.
pub(crate) async fn delete_streams(url: &str, prefix: &str) {
    let context = jetstream::new(connect(url).await);
    for kind in ["JOBS", "RECORDS", "KV"] {
        context.delete_stream(stream(prefix, kind)).await.expect("the stream goes");
    }
}

fn stream(prefix: &str, kind: &str) -> String {
    format!("{}_{kind}", prefix.to_uppercase())
}

async fn connect(url: &str) -> async_nats::Client {
    // The buffers are those of the framework.
    let options = async_nats::ConnectOptions::new().client_capacity(4096);
    options.connect(url).await.expect("a connection")
}

/// Streams and consumers of the framework, without the framework.
#[derive(Clone)]
struct Site {
    context: Context,
    prefix: Arc<str>,
}

impl Site {
    /// Has the framework declare everything, so that all settings are its own.
    async fn declare(url: &str) -> Self {
        let prefix = unique_prefix();
        let backend: Backend = Nats::new(url).prefix(&prefix).into();
        let client = Client::connect(backend).await.expect("the backend starts");
        let listening = client.backend().broker().listen(Subscription::new([QUEUE])).await;
        listening.expect("a listener").stop().await.expect("it stops");
        client.shutdown().await.expect("the backend shuts down");
        Self { context: jetstream::new(connect(url).await), prefix: prefix.into() }
    }

    async fn kick(&self, plan: Plan) -> Sample {
        let watch = Stopwatch::start();
        let spans = self.kick_at_once(plan.jobs).await;
        watch.stop(plan.jobs).with("", spans)
    }

    async fn kick_at_once(&self, jobs: usize) -> Vec<Duration> {
        let site = self.clone();
        let kick = move |number| {
            let site = site.clone();
            async move { drop(site.send(&new_id(), number as u64).await.await.expect("an ack")) }
        };
        at_once(jobs, kick).await
    }

    /// Publishes a job on the condition that its subject is new.
    async fn send(&self, id: &str, number: u64) -> PublishAckFuture {
        let subject = format!("{}.q.{QUEUE}.normal.{id}", self.prefix);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        let body = encoded(id, number).into();
        self.context.publish_with_headers(subject, headers, body).await.expect("it is sent")
    }

    async fn bulk(&self, plan: Plan) -> Sample {
        let watch = Stopwatch::start();
        self.kick_all(plan.jobs).await;
        watch.stop(plan.jobs)
    }

    async fn kick_all(&self, jobs: usize) {
        let mut acks = VecDeque::with_capacity(WINDOW);
        for number in 0..jobs {
            if acks.len() == WINDOW
                && let Some(oldest) = acks.pop_front()
            {
                confirmed(oldest).await;
            }
            acks.push_back(self.send(&new_id(), number as u64).await);
        }
        for ack in acks {
            confirmed(ack).await;
        }
    }

    async fn drain(&self, plan: Plan) -> Sample {
        self.kick_all(plan.jobs).await;
        let watch = Stopwatch::start();
        self.work_off(plan).await;
        watch.stop(plan.jobs)
    }

    async fn both(&self, plan: Plan) -> Sample {
        let watch = Stopwatch::start();
        let site = self.clone();
        let working = tokio::spawn(async move { site.work_off(plan).await });
        let spans = self.kick_at_once(plan.jobs).await;
        working.await.expect("the worker does not panic");
        watch.stop(plan.jobs).with("", spans)
    }

    /// Runs all jobs of a plan.
    async fn work_off(&self, plan: Plan) {
        let tally = Tally::of(plan.jobs);
        self.deliver(plan, plan.jobs, move |site, delivery, worker_id| {
            let tally = tally.clone();
            async move { site.finish(&delivery, &worker_id, |_| tally.count()).await }
        })
        .await;
    }

    /// Pulls that many jobs and has `job` run each in a task of its own, as many at once as the plan says.
    async fn deliver<F, R>(&self, plan: Plan, count: usize, job: F)
    where
        F: Fn(Self, Delivery, Arc<str>) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(plan.concurrency));
        let worker_id: Arc<str> = new_id().into();
        let consumer = self.consumer().await;
        let stream = consumer.stream().max_messages_per_batch(BATCH);
        let mut deliveries = stream.messages().await.expect("messages");
        let mut running = JoinSet::new();
        for _ in 0..count {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
            let delivery = deliveries.next().await.expect("more").expect("a message");
            let job = job(self.clone(), delivery, Arc::clone(&worker_id));
            running.spawn(async move {
                job.await;
                drop(slot);
            });
            while running.try_join_next().is_some() {}
        }
        running.join_all().await;
    }

    async fn consumer(&self) -> Consumer<pull::Config> {
        let consumer = format!("{QUEUE}-normal");
        let found = self.context.get_consumer_from_stream(consumer, stream(&self.prefix, "JOBS")).await;
        found.expect("the framework has declared it")
    }

    /// Runs a job, writes its record if there is none, waits for the confirmation, acks.
    async fn finish(&self, delivery: &Delivery, worker_id: &str, body: impl FnOnce(u64)) {
        let started_at = now_us();
        let message = Message::read(&delivery.payload);
        std::hint::black_box(message.kwargs.text);
        body(message.kwargs.number);
        let record = Record::encoded(&message, worker_id, started_at);
        let (prefix, id) = (&self.prefix, message.task_id);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", format!("{prefix}.r.{QUEUE}.*.{id}"));
        headers.insert("Nats-TTL", "86400s");
        let subject = format!("{prefix}.r.{QUEUE}.completed.{id}");
        let sent = self.context.publish_with_headers(subject, headers, record.into()).await;
        confirmed(sent.expect("it is sent")).await;
        delivery.ack().await.expect("it is acked");
    }

    async fn latency(&self, plan: Plan) -> Sample {
        let tally = Tally::of(plan.jobs);
        let (site, counted) = (self.clone(), tally.clone());
        let working = tokio::spawn(async move {
            let job = |site: Self, delivery: Delivery, worker_id: Arc<str>| {
                let tally = counted.clone();
                async move { site.finish(&delivery, &worker_id, |kicked| tally.started(kicked)).await }
            };
            site.deliver(plan, plan.jobs + 1, job).await;
        });
        self.stamp_one(&tally).await;
        tally.starts();
        let watch = Stopwatch::start();
        let stamp = |_| {
            let (site, tally) = (self.clone(), tally.clone());
            async move { site.stamp_one(&tally).await }
        };
        let spans = steadily(plan.jobs, stamp).await;
        let sample = watch.stop(plan.jobs);
        working.await.expect("the worker does not panic");
        sample.with("start", tally.starts()).with("result", spans)
    }

    /// Publishes a job and waits for the first word of its record.
    async fn stamp_one(&self, tally: &Tally) {
        let (kicked, id) = (tally.now(), new_id());
        let told = format!("{}.done.{QUEUE}.*.{id}", self.prefix);
        let mut told = self.context.client().subscribe(told).await.expect("a subscription");
        confirmed(self.send(&id, kicked).await).await;
        told.next().await.expect("a record");
    }
}

async fn confirmed(ack: PublishAckFuture) {
    ack.await.expect("a confirmation");
}
