//! Measures the NATS broker against the bare client on one server.
//!
//! `cargo run --release -p aioq-tests --example nats_bench [messages]`

use std::time::{Duration, Instant};

use aioq::broker::{Demand, Expect, Subscription};
use aioq::store::{JobRecord, Status};
use aioq::{Backend, Envelope, JobId};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, unique_prefix};
use async_nats::jetstream;
use futures_util::StreamExt;

const BODY: [u8; 150] = [7; 150];

#[tokio::main]
async fn main() {
    let count: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(50_000);
    let server = NatsServer::start().await.expect("a nats-server");
    let runs = 3;
    for run in 0..runs {
        println!("run {} of {runs}, {count} messages", run + 1);
        raw(&server.url(), count).await;
        ours(&server.url(), count).await;
    }
}

fn report(what: &str, count: usize, took: Duration) {
    println!("  {what:<40} {:>8.0}/s", count as f64 / took.as_secs_f64());
}

async fn raw(url: &str, count: usize) {
    let client = async_nats::connect(url).await.expect("a connection");
    let context = jetstream::new(client);
    let name = unique_prefix();
    let config = jetstream::stream::Config {
        name: name.clone(),
        subjects: vec![format!("{name}.>")],
        retention: jetstream::stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let stream = context.create_stream(config).await.expect("a stream");
    let started = Instant::now();
    let mut acks = std::collections::VecDeque::new();
    for number in 0..count {
        if acks.len() == 1024 {
            let ack: jetstream::context::PublishAckFuture = acks.pop_front().expect("a full window");
            ack.await.expect("an ack");
        }
        acks.push_back(
            context.publish(format!("{name}.{number}"), BODY.to_vec().into()).await.expect("sent"),
        );
    }
    for ack in acks {
        ack.await.expect("an ack");
    }
    report("raw publish, window 1024", count, started.elapsed());
    raw_conditional(&context, &name, count).await;
    stream.purge().await.expect("a purge");
    for number in 0..count {
        context.client().publish(format!("{name}.{number}"), BODY.to_vec().into()).await.expect("sent");
    }
    while stream.get_info().await.expect("info").state.messages < count as u64 {}
    let config = jetstream::consumer::pull::Config {
        durable_name: Some("c".to_owned()),
        max_ack_pending: 100_000,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let started = Instant::now();
    let mut messages = consumer.stream().max_messages_per_batch(1000).messages().await.expect("messages");
    for _ in 0..count {
        messages.next().await.expect("more").expect("a message").ack().await.expect("acked");
    }
    report("raw stream() and ack", count, started.elapsed());
    context.delete_stream(name).await.expect("deleted");
}

/// The same with the condition that a kick has.
async fn raw_conditional(context: &jetstream::Context, name: &str, count: usize) {
    let started = Instant::now();
    let mut acks = std::collections::VecDeque::new();
    for number in 0..count {
        if acks.len() == 1024 {
            let ack: jetstream::context::PublishAckFuture = acks.pop_front().expect("a full window");
            ack.await.expect("an ack");
        }
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        let subject = format!("{name}.c.{number}");
        acks.push_back(
            context.publish_with_headers(subject, headers, BODY.to_vec().into()).await.expect("sent"),
        );
    }
    for ack in acks {
        ack.await.expect("an ack");
    }
    report("raw publish, expecting 0, window 1024", count, started.elapsed());
}

async fn ours(url: &str, count: usize) {
    let prefix = unique_prefix();
    let backend: Backend = Nats::new(url).prefix(&prefix).into();
    backend.broker().startup().await.expect("a start");
    backend.jobs().expect("jobs").startup().await.expect("a start");
    let envelopes = |from: usize| -> Vec<_> {
        (from..from + count).map(|n| (Envelope::new(id(n), "x", BODY.to_vec()), Expect::Any)).collect()
    };
    let all = envelopes(0);
    let started = Instant::now();
    for fate in backend.broker().kick_all(all).await {
        fate.expect("a kick");
    }
    report("kick_all", count, started.elapsed());
    drain(&backend, count, Demand { now: 64, prefetch: 64 }).await;
    let absent: Vec<_> =
        envelopes(count).into_iter().map(|(envelope, _)| (envelope, Expect::Absent)).collect();
    let started = Instant::now();
    for fate in backend.broker().kick_all(absent).await {
        fate.expect("a kick");
    }
    report("kick_all, Expect::Absent", count, started.elapsed());
    drain(&backend, count, Demand { now: 256, prefetch: 256 }).await;
    for tasks in [1, 64, 256] {
        let count = if tasks == 1 { count / 10 } else { count };
        kick_by(&backend, tasks, envelopes(2 * count)[..count].to_vec()).await;
        let demand = if tasks == 256 {
            Demand { now: 256, prefetch: 1000 }
        } else {
            Demand { now: tasks, prefetch: 0 }
        };
        drain(&backend, count, demand).await;
    }
    put_by(&backend, 256, count).await;
    latency(&backend).await;
    backend.broker().shutdown().await.expect("a shutdown");
    delete(url, &prefix).await;
}

async fn delete(url: &str, prefix: &str) {
    let context = jetstream::new(async_nats::connect(url).await.expect("a connection"));
    for kind in ["JOBS", "RECORDS", "KV"] {
        context.delete_stream(format!("{}_{kind}", prefix.to_uppercase())).await.expect("deleted");
    }
}

fn id(number: usize) -> JobId {
    format!("0190a1b2c3d4e5f60718293a{number:08x}").into()
}

async fn kick_by(backend: &Backend, tasks: usize, envelopes: Vec<(Envelope, Expect)>) {
    let count = envelopes.len();
    let started = Instant::now();
    let chunks = envelopes.chunks(count.div_ceil(tasks)).map(|chunk| {
        let (chunk, broker) = (chunk.to_vec(), backend.broker().clone());
        tokio::spawn(async move {
            for (envelope, expect) in chunk {
                broker.kick(envelope, expect).await.expect("a kick");
            }
        })
    });
    for chunk in chunks.collect::<Vec<_>>() {
        chunk.await.expect("a task");
    }
    report(&format!("kick by {tasks} tasks"), count, started.elapsed());
}

async fn put_by(backend: &Backend, tasks: usize, count: usize) {
    let started = Instant::now();
    let puts = (0..tasks).map(|task| {
        let jobs = backend.jobs().expect("jobs").clone();
        tokio::spawn(async move {
            for number in (task..count).step_by(tasks) {
                let record = JobRecord::unreadable(id(number), "x", Status::Completed);
                jobs.put(record, Expect::Absent, Some(Duration::from_secs(86400))).await.expect("a put");
            }
        })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.expect("a task");
    }
    report(&format!("records put by {tasks} tasks"), count, started.elapsed());
}

/// From the start of a kick to the delivery, one at a time.
async fn latency(backend: &Backend) {
    let mut listener = backend.broker().listen(Subscription::new(["l"])).await.expect("a listener");
    let mut took = Vec::new();
    for number in 0..2000 {
        let started = Instant::now();
        let kick = backend.broker().kick(Envelope::new(id(number), "l", BODY.to_vec()), Expect::Any);
        let (kicked, deliveries) = tokio::join!(kick, listener.next(Demand { now: 1, prefetch: 0 }));
        kicked.expect("a kick");
        took.push(started.elapsed());
        deliveries.expect("a delivery")[0].receipt.ack().await.expect("an ack");
    }
    took.sort();
    println!("  kick to delivery: p50 {:?}, p99 {:?}", took[1000], took[1980]);
}

async fn drain(backend: &Backend, count: usize, demand: Demand) {
    let mut listener = backend.broker().listen(Subscription::new(["x"])).await.expect("a listener");
    let (started, mut got, mut again) = (Instant::now(), 0, 0);
    while got < count {
        for delivery in listener.next(demand).await.expect("deliveries") {
            delivery.receipt.ack().await.expect("an ack");
            again += usize::from(delivery.deliveries > 1);
            got += 1;
        }
    }
    report(
        &format!("drain and ack, {} + {}, {again} again", demand.now, demand.prefetch),
        count,
        started.elapsed(),
    );
    listener.stop().await.expect("a stop");
    while backend.broker().depths(&["x".to_owned()]).await.expect("a depth")[0].held > 0 {}
}
