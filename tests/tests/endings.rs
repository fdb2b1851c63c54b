//! Jobs that cannot go well end all the same, with a reason, on memory and on NATS.

#![allow(clippy::unwrap_used)]

use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aioq::broker::{Expect, Kicked};
use aioq::prelude::*;
use aioq::store::{JobRecord, Status};
use aioq::{
    Arguments, Call, Codec, ErrorKind, KickOptions, Message, Next, Outcome, Reason, Summary, TaskDef,
    TaskHandle, Worker, WorkerOptions, async_trait,
};
use aioq_tests::{Bed, on_each_backend, until};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Nothing in these tests takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A worker that runs, and its client.
struct Running {
    client: Client,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<aioq::Result<Summary>>,
}

async fn start(app: App) -> Running {
    run(app.worker().await.unwrap())
}

fn run(worker: Worker) -> Running {
    let (stop, stopped) = oneshot::channel::<()>();
    let client = worker.client().clone();
    let shutdown = async move { drop(stopped.await) };
    Running { client, stop, ended: tokio::spawn(worker.run(shutdown)) }
}

impl Running {
    async fn stop(self) -> Summary {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap()
    }
}

/// An app whose tasks have their state.
fn app(bed: &Bed) -> (App, Gauge) {
    let gauge = Gauge::default();
    (bed.app().state(gauge.clone()), gauge)
}

async fn ended<O>(handle: &TaskHandle<O>) -> JobRecord {
    tokio::time::timeout(PATIENCE, handle.wait()).await.expect("the job ends").unwrap()
}

/// Panics when it is dropped.
#[derive(Debug)]
struct Spiteful(&'static str);

impl Drop for Spiteful {
    fn drop(&mut self) {
        panic!("spite");
    }
}

impl std::fmt::Display for Spiteful {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Spiteful {}

#[task]
async fn returns_spite() -> Result<(), Spiteful> {
    Err(Spiteful("my own text"))
}

#[task]
fn returns_spite_from_a_thread() -> Result<(), Spiteful> {
    Err(Spiteful("my own text"))
}

#[task]
async fn panics_with_spite() {
    panic_any(Spiteful("a payload"));
}

#[task]
fn panics_with_spite_on_a_thread() {
    panic_any(Spiteful("a payload"));
}

#[task(timeout = "50ms")]
async fn outlasts_its_time_with_spite() {
    let _spite = Spiteful("held");
    std::future::pending::<()>().await;
}

#[task(timeout = "50ms")]
fn returns_spite_too_late(#[inject] ctx: &Context) -> Result<(), Spiteful> {
    while !ctx.is_cancelled() {
        std::thread::yield_now();
    }
    Err(Spiteful("too late"))
}

#[task(timeout = "50ms")]
async fn endless() {
    std::future::pending::<()>().await;
}

#[task]
async fn sum(a: i64, b: i64) -> i64 {
    a + b
}

#[task]
async fn says_much(bytes: usize, #[inject] ctx: &Context) -> String {
    ctx.progress(1, 1, "ä".repeat(bytes));
    ctx.log("ä".repeat(bytes));
    "x".repeat(bytes / 2)
}

#[task]
async fn fails_after_saying_much(bytes: usize, #[inject] ctx: &Context) -> Result<(), String> {
    ctx.progress(1, 1, "x".repeat(bytes));
    Err("x".repeat(bytes))
}

#[task(retry(max = 1, backoff = "1ms"))]
async fn fails_twice() -> Result<(), String> {
    Err("not this time".to_owned())
}

/// Measures how many bodies are inside at once.
#[derive(Clone)]
struct Gauge {
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
    entered: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gauge {
    fn default() -> Self {
        let (inside, most, others) = Default::default();
        let (entered, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        Self { inside, most, others, entered, open }
    }
}

#[task]
async fn gauged(ms: u64, #[inject] gauge: &Gauge) {
    let inside = gauge.inside.fetch_add(1, Ordering::SeqCst) + 1;
    gauge.most.fetch_max(inside, Ordering::SeqCst);
    gauge.entered.add_permits(1);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    gauge.inside.fetch_sub(1, Ordering::SeqCst);
}

/// Stays as long as the door is closed.
#[task]
async fn gated(#[inject] gauge: &Gauge) {
    gauge.entered.add_permits(1);
    gauge.open.acquire().await.unwrap().forget();
}

/// How many suspects were inside while it was.
#[task]
async fn beside(ms: u64, #[inject] gauge: &Gauge) {
    for _ in 0..ms {
        tokio::time::sleep(Duration::from_millis(1)).await;
        gauge.others.fetch_max(gauge.inside.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// A job as workers leave it that died on it: started so often, so often of these with no other suspect beside it.
async fn left_by_the_dead<T: aioq::Task>(
    client: &Client,
    call: Call<T>,
    starts: u32,
    solo: u32,
) -> TaskHandle<T::Output> {
    let handle = client.kiq(call).await.unwrap();
    let mut record = handle.record().await.unwrap();
    (record.status, record.worker_id) = (Status::Running, Some("the dead".into()));
    (record.starts, record.solo) = (starts, solo);
    client.backend().jobs().unwrap().put(record.into(), Expect::Absent, None).await.unwrap();
    handle
}

/// Takes what is in the queue, and gives it back.
async fn redeliver(client: &Client, jobs: usize) {
    let mut held = Vec::new();
    while held.len() < jobs {
        held.push(client.dequeue(&["default"], PATIENCE).await.unwrap().expect("it is there"));
    }
    for delivery in held {
        delivery.receipt.release(Duration::ZERO).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn suspects_run_one_at_a_time_beside_other_jobs_and_only_starts_alone_make_poison() {
    let bed = Bed::memory();
    let client = bed.client().await;
    let mut suspects = Vec::new();
    for starts in [3, 4, 9] {
        suspects.push(left_by_the_dead(&client, gauged(1000), starts, 4).await);
    }
    let poison = left_by_the_dead(&client, gauged(1000), 9, 5).await;
    redeliver(&client, 4).await;
    let other = client.kiq(beside(2000)).await.unwrap();
    let (app, gauge) = app(&bed);
    let worker = start(app).await;
    for suspect in suspects {
        let record = ended(&suspect).await;
        assert_eq!((record.status, record.attempt), (Status::Completed, 1));
    }
    assert_eq!(gauge.most.load(Ordering::SeqCst), 1, "one at a time");
    assert_eq!(ended(&other).await.status, Status::Completed);
    assert_eq!(gauge.others.load(Ordering::SeqCst), 1, "others go on meanwhile");
    let record = ended(&poison).await;
    assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Poison)));
    let text = record.error.unwrap().message;
    assert!(text.contains("9 times") && text.contains("5 of them with no other suspect"), "{text}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_cut_off_once_waits_for_nobody() {
    let bed = Bed::memory();
    let client = bed.client().await;
    let mut handles = Vec::new();
    for _ in 0..3 {
        handles.push(left_by_the_dead(&client, gauged(1000), 1, 0).await);
    }
    redeliver(&client, 3).await;
    let (app, gauge) = app(&bed);
    let worker = start(app).await;
    for handle in handles {
        assert_eq!(ended(&handle).await.status, Status::Completed);
    }
    assert_eq!(gauge.most.load(Ordering::SeqCst), 3);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_waits_is_given_back_at_once_when_its_worker_ends() {
    let bed = Bed::memory();
    let client = bed.client().await;
    let first = left_by_the_dead(&client, gated(), 5, 0).await;
    let second = left_by_the_dead(&client, gated(), 5, 0).await;
    redeliver(&client, 2).await;
    let (app_of_first, gauge) = app(&bed);
    let worker = start(app_of_first).await;
    gauge.entered.acquire().await.unwrap().forget();
    // Until the other one has been fetched, and waits.
    tokio::time::sleep(Duration::from_secs(10)).await;
    worker.stop.send(()).unwrap();
    let next = start(bed.app().state(gauge.clone())).await;
    let entered = tokio::time::timeout(Duration::from_secs(5), gauge.entered.acquire()).await;
    entered.expect("the grace period is longer than that").unwrap().forget();
    gauge.open.add_permits(2);
    for handle in [first, second] {
        assert_eq!(ended(&handle).await.status, Status::Completed);
    }
    worker.ended.await.unwrap().unwrap();
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_lasts_lets_others_go_on_and_its_start_counts_no_more() {
    let bed = Bed::memory();
    let client = bed.client().await;
    // The first one kicked is the first one to run.
    let long = left_by_the_dead(&client, gauged(3 * 3600 * 1000), 2, 1).await;
    let short = left_by_the_dead(&client, gauged(1000), 2, 1).await;
    redeliver(&client, 2).await;
    let (app, gauge) = app(&bed);
    let worker = start(app).await;
    gauge.entered.acquire().await.unwrap().forget();
    let begun = Instant::now();
    gauge.entered.acquire().await.unwrap().forget();
    let short_record = client.jobs().get(short.id()).await.unwrap();
    assert!((300..600).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let long_record = client.jobs().get(long.id()).await.unwrap();
    assert_eq!((long_record.status, long_record.starts, long_record.solo), (Status::Running, 3, 1));
    assert_eq!((short_record.status, short_record.starts, short_record.solo), (Status::Running, 3, 1));
    tokio::time::timeout(4 * 3600 * PATIENCE, long.wait()).await.unwrap().unwrap();
    assert_eq!(ended(&short).await.status, Status::Completed);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_this_release_does_not_know_is_left_to_a_newer_one_for_a_time_and_then_failed() {
    let patience = Duration::from_secs(10 * 60);
    let worker = start(app(&Bed::memory()).0.worker_options(WorkerOptions::new().patience(patience))).await;
    let client = &worker.client;
    let begun = Instant::now();
    let late = || KickOptions::new().delay("1h");
    for (name, args, options, reason, text, after) in [
        ("summ", json!({}), KickOptions::new(), Reason::UnknownTask, "did you mean `sum`?", 600),
        (
            "sum",
            json!({"a": 1, "b": 2, "c": 3}),
            KickOptions::new(),
            Reason::BadArguments,
            "argument `c`",
            1200,
        ),
        ("sum", json!({"a": 1}), late(), Reason::BadArguments, "argument `b`", 1200 + 3600 + 600),
    ] {
        let handle = client.kiq_by_name(name, &args, options).await.unwrap();
        let record = tokio::time::timeout(400 * PATIENCE, handle.wait()).await.unwrap().unwrap();
        assert_eq!((record.status, record.reason, record.attempt), (Status::Failed, Some(reason), 1));
        assert!(record.error.unwrap().message.contains(text));
        let took = begun.elapsed().as_secs();
        assert!((after..after + 60).contains(&took), "{name} {args}: {took} s");
    }
    worker.stop().await;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfOldRelease {
    a: i64,
}

#[derive(Deserialize)]
struct OfNewRelease {
    a: i64,
    b: i64,
}

/// Tells when it has seen a run.
struct Seen(Arc<Notify>);

#[async_trait]
impl Middleware for Seen {
    async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
        let outcome = next.run(ctx).await;
        self.0.notify_one();
        outcome
    }
}

on_each_backend! {
    async fn a_job_with_an_argument_of_a_newer_release_is_run_by_that(bed: Bed) {
        let old = |_: Context, OfOldRelease { a }| async move { Ok::<_, TaskError>(a) };
        let new = |_: Context, OfNewRelease { a, b }| async move { Ok::<_, TaskError>(a + b) };
        let seen = Arc::<Notify>::default();
        let patient = WorkerOptions::new().patience(Duration::from_secs(600)).max_crashes(1);
        let app_of_old = app(&bed).0.task(TaskDef::from_fn("grown", old)).middleware(Seen(Arc::clone(&seen)));
        let old = start(app_of_old.worker_options(patient.clone())).await;
        let client = bed.client().await;
        let handle = client.kiq_by_name("grown", &json!({"a": 1, "b": 2}), KickOptions::new()).await.unwrap();
        tokio::time::timeout(PATIENCE, seen.notified()).await.expect("the old one looks at it first");
        old.stop().await;
        let new = start(app(&bed).0.task(TaskDef::from_fn("grown", new)).worker_options(patient)).await;
        let record = ended(&handle).await;
        assert_eq!((record.status, record.attempt), (Status::Completed, 1));
        assert_eq!(record.result.unwrap().decode::<i64>().unwrap(), 3);
        new.stop().await;
    }

    async fn an_argument_that_does_not_fit_is_quoted_if_the_worker_may(bed: Bed) {
        for quote in [false, true] {
            let options = WorkerOptions::new().quote_arguments(quote).patience(Duration::ZERO);
            let worker = start(app(&bed).0.worker_options(options)).await;
            let wrong = json!({"a": "hunter2", "b": 1});
            let handle = worker.client.kiq_by_name("sum", &wrong, KickOptions::new()).await.unwrap();
            let error = ended(&handle).await.error.unwrap().to_string();
            assert_eq!(error.contains("hunter2"), quote, "{error}");
            assert!(error.contains("expected i64"), "{error}");
            worker.stop().await;
        }
    }

    async fn a_panic_in_a_drop_fails_the_job_at_once_and_keeps_its_own_text(bed: Bed) {
        let worker = start(app(&bed).0).await;
        let client = &worker.client;
        for (call, text) in [
            (client.kiq(returns_spite()).await.unwrap(), "my own text"),
            (client.kiq(returns_spite_from_a_thread()).await.unwrap(), "my own text"),
            (client.kiq(outlasts_its_time_with_spite()).await.unwrap(), "timed out after 50ms (timeout of the task)"),
        ] {
            let record = ended(&call).await;
            let error = record.error.unwrap();
            let found = (record.status, record.reason, record.attempt, error.message.as_str());
            assert_eq!(found, (Status::Failed, Some(Reason::Panic), 1, text));
            assert!(error.chain.iter().any(|cause| cause.contains("spite")), "{error:?}");
        }
        for handle in [
            client.kiq(panics_with_spite()).await.unwrap(),
            client.kiq(panics_with_spite_on_a_thread()).await.unwrap(),
        ] {
            let record = ended(&handle).await;
            assert_eq!((record.status, record.reason, record.attempt), (Status::Failed, Some(Reason::Panic), 1));
        }
        let late = client.kiq(returns_spite_too_late()).await.unwrap();
        assert_eq!(ended(&late).await.reason, Some(Reason::Timeout));
        assert_eq!(client.kiq(sum(1, 2)).await.unwrap().result_within(PATIENCE).await.unwrap(), 3);
        worker.stop().await;
    }

    async fn a_timeout_says_which_limit_and_how_long(bed: Bed) {
        let worker = start(app(&bed).0).await;
        for (options, text) in [
            (KickOptions::new(), "timed out after 50ms (timeout of the task)"),
            (KickOptions::new().timeout("80ms"), "timed out after 80ms (timeout of the call)"),
        ] {
            let call = endless().options(options);
            let error = ended(&worker.client.kiq(call).await.unwrap()).await.error.unwrap();
            // What Python calls it.
            let python = (error.exc_type.as_str(), error.module.as_deref(), error.message.as_str());
            assert_eq!(python, ("TimeoutError", Some("builtins"), text));
        }
        worker.stop().await;
    }

    async fn a_job_ends_however_much_it_says_and_carries(bed: Bed) {
        const MUCH: usize = 1024 * 1024;
        let worker = start(app(&bed).0).await;
        let client = &worker.client;
        let record = ended(&client.kiq(says_much(MUCH)).await.unwrap()).await;
        let note = record.progress.unwrap().note.unwrap();
        assert_eq!((record.status, note.len()), (Status::Completed, JobRecord::MAX_LOG_BYTES));
        assert_eq!(record.logs[0].line.len(), JobRecord::MAX_LOG_BYTES);

        let label = "l".repeat(MUCH * 3 / 4);
        let handle = client.kiq(says_much(MUCH).label("long", label.as_str())).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap().len(), MUCH / 2);
        // The message, which tells the label, is needed to run it again.
        let handle = client.kiq(fails_after_saying_much(MUCH).label("long", label.as_str())).await.unwrap();
        let record = ended(&handle).await;
        assert_eq!((record.status, record.attempt, record.dead_lettered), (Status::Failed, 1, true));
        assert_eq!(record.labels["long"], label.as_str().into());
        assert!(client.jobs().retry(handle.id()).await.unwrap());
        // Called off while it waits, its record has to fit as well.
        let waiting = client.kiq(sum(1, 1).delay("1h").label("long", label.as_str())).await.unwrap();
        assert!(client.jobs().cancel(waiting.id()).await.unwrap());
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_leaves_room_for_what_attempts_add_and_what_does_not_fit_ends_as_failed() {
    let bed = Bed::nats().await;
    let worker = start(app(&bed).0).await;
    let client = &worker.client;
    let limit = client.backend().broker().info().max_body_bytes;
    let with_label = |bytes: usize| client.kiq(fails_twice().label("long", "l".repeat(bytes)));
    let mut bytes = limit;
    let handle = loop {
        match with_label(bytes).await {
            Ok(handle) => break handle,
            Err(error) => assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}"),
        }
        bytes -= 100;
    };
    let record = ended(&handle).await;
    assert_eq!(
        (record.status, record.attempt),
        (Status::Failed, 2),
        "the largest that is taken is run again"
    );

    // Whoever kicks without that room has a job that cannot be run again.
    let no_arguments = Arguments::from_json(Codec::MessagePack, "{}").unwrap();
    let mut message = Message::new("too-large".into(), "fails_twice", no_arguments);
    message.labels.insert("long".to_owned(), "l".repeat(bytes).into());
    let room = limit - message.seal().body.len() - 1;
    message.labels.insert("long".to_owned(), "l".repeat(bytes + room).into());
    let id = message.id.clone();
    assert_eq!(client.backend().broker().kick(message.seal(), Expect::Any).await.unwrap(), Kicked::New);
    let record = ended(&client.handle::<()>(id.clone()).await.unwrap()).await;
    let error = record.error.unwrap();
    let found = (record.status, record.reason, record.attempt, error.message.as_str());
    assert_eq!(found, (Status::Failed, Some(Reason::Error), 1, "not this time"));
    assert!(error.chain[0].contains("cannot run again"), "{error:?}");
    // The ack comes after the record.
    until(PATIENCE, "the message is gone", async || {
        client.backend().broker().find(&id).await.unwrap().is_none()
    })
    .await;
    worker.stop().await;
}
