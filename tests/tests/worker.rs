//! What a worker does with a job, on memory and on NATS.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::broker::{Expect, Kicked};
use aioq::prelude::*;
use aioq::store::{JobRecord, Status};
use aioq::{
    Arguments, Codec, Envelope, ErrorKind, JobId, KickNext, KickOptions, Label, Message, Reason, Result,
    Summary, Worker, WorkerOptions, async_trait,
};
use aioq_tests::{Bed, on_each_backend, until};
use serde_json::json;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;

/// Nothing in these tests takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

#[task]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[task]
async fn parse(text: &str) -> Result<i64, std::num::ParseIntError> {
    text.parse()
}

/// Counts runs, and lets tests hold bodies.
#[derive(Clone, Default)]
struct Probe {
    runs: Arc<AtomicU32>,
    attempts: Arc<Mutex<Vec<u32>>>,
    started: Arc<Notify>,
    finish: Arc<Notify>,
}

impl Probe {
    fn run(&self, attempt: u32) {
        self.attempts.lock().unwrap().push(attempt);
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.started.notify_one();
    }

    fn attempts(&self) -> Vec<u32> {
        self.attempts.lock().unwrap().clone()
    }
}

#[task(retry(max = 3, backoff = "20ms"))]
async fn flaky(failures: u32, #[inject] ctx: &Context, #[inject] probe: &Probe) -> Result<u32, String> {
    probe.run(ctx.attempt());
    if ctx.attempt() <= failures { Err(format!("failure {}", ctx.attempt())) } else { Ok(ctx.attempt()) }
}

#[task(retry(max = 5, backoff = "10ms", when = is_passing))]
async fn picky(passing: bool, #[inject] ctx: &Context, #[inject] probe: &Probe) -> Result<(), String> {
    probe.run(ctx.attempt());
    Err(if passing { "passing" } else { "lasting" }.to_owned())
}

fn is_passing(error: &String) -> bool {
    error == "passing"
}

#[task(retry(max = 2, backoff = "1h"))]
async fn steered(how: &str, #[inject] ctx: &Context, #[inject] probe: &Probe) -> TaskResult<u32> {
    probe.run(ctx.attempt());
    match (how, probe.runs.load(Ordering::SeqCst)) {
        ("retry_in", 1) => Err(TaskError::retry_in("20ms", "soon")),
        ("snooze", 1) => Err(TaskError::snooze("20ms")),
        ("fatal", _) => Err(TaskError::fatal("never again")),
        ("cancel", _) => Err(TaskError::cancel("not wanted any more")),
        _ => Ok(ctx.attempt()),
    }
}

#[task]
async fn explode(#[inject] probe: &Probe) {
    probe.run(1);
    panic!("kaboom {}", 7);
}

#[task]
async fn hold(#[inject] ctx: &Context, #[inject] probe: &Probe) -> u32 {
    probe.run(ctx.attempt());
    probe.finish.notified().await;
    ctx.attempt()
}

#[task(timeout = "100ms")]
async fn endless(#[inject] probe: &Probe) {
    probe.run(1);
    std::future::pending::<()>().await;
}

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

#[task]
async fn huge(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// Lists in lists.
#[task]
async fn nested(levels: usize) -> serde_json::Value {
    (0..levels).fold(json!([]), |inner, _| serde_json::Value::Array(vec![inner]))
}

#[task]
async fn thousandth_of_a_second() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[task]
async fn tenth_of_a_second() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[task]
async fn parent(n: i64) -> TaskResult<JobId> {
    Ok(add(n, n).kiq().await?.id().clone())
}

#[task]
fn blocking_parent(n: i64) -> TaskResult<JobId> {
    Ok(add(n, n).kiq_blocking()?.id().clone())
}

/// A worker that runs until the test lets it go.
struct Running {
    client: Client,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<Summary>>,
}

async fn start(app: App) -> Running {
    run(app.worker().await.unwrap())
}

fn run(worker: Worker) -> Running {
    let (stop, stopped) = oneshot::channel();
    let client = worker.client().clone();
    let ended = tokio::spawn(worker.run(async {
        let _ = stopped.await;
    }));
    Running { client, stop, ended }
}

impl Running {
    async fn stop(self) -> Summary {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.ended).await.expect("the worker ends").unwrap().unwrap()
    }

    /// Ends it as a crash would: nothing is given back, nothing is written.
    fn crash(self) {
        self.ended.abort();
    }
}

fn short_lease() -> WorkerOptions {
    WorkerOptions::new().ack_wait(Duration::from_secs(1)).grace(Duration::from_millis(50))
}

async fn ended<O>(handle: &TaskHandle<O>) -> JobRecord {
    tokio::time::timeout(PATIENCE, handle.wait()).await.expect("the job ends").unwrap()
}

/// Waits until the record of a job is as wanted.
async fn record_when(client: &Client, id: &JobId, wanted: impl Fn(&JobRecord) -> bool) -> JobRecord {
    let found = async {
        loop {
            match client.jobs().get(id).await {
                Ok(record) if wanted(&record) => return record,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the record gets there")
}

fn probed(bed: &Bed) -> (App, Probe) {
    let probe = Probe::default();
    (bed.app().state(probe.clone()).state(Gauge::default()), probe)
}

/// Many short jobs, so that the worker fetches ahead, and behind them such as fill it.
async fn gives_back_what_it_had_fetched_ahead(bed: Bed, options: WorkerOptions) {
    const LONG: usize = 100;
    let client = bed.client().await;
    let short = client.kiq_all((0..4_000).map(|_| thousandth_of_a_second())).await;
    let long = client.kiq_all((0..LONG).map(|_| hold())).await;
    assert!(short.iter().all(Result::is_ok) && long.iter().all(Result::is_ok));
    let (app, probe) = probed(&bed);
    let worker = start(app.worker_options(options.concurrency(16))).await;
    until(PATIENCE, "it is full", async || probe.runs.load(Ordering::SeqCst) == 16).await;
    let (app, others) = probed(&bed);
    let other = start(app.worker_options(WorkerOptions::new().concurrency(LONG))).await;
    let rest = || others.runs.load(Ordering::SeqCst) as usize == LONG - 16;
    until(PATIENCE, "the rest runs elsewhere", async || rest()).await;
    other.crash();
    worker.crash();
}

on_each_backend! {
    async fn a_kicked_job_runs_and_its_result_is_pushed_to_the_handle(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        let handle = bed.client().await.kiq(add(2, 3)).await.unwrap();
        assert!(!handle.existing());
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 5);
        let record = handle.record().await.unwrap();
        assert_eq!((record.status, record.attempt, record.task.as_str()), (Status::Completed, 1, "add"));
        assert_eq!(record.arguments.unwrap().to_json(), r#"{"a":2,"b":3}"#);
        assert!(record.kicked_at <= record.started_at && record.started_at <= record.finished_at);
        assert!(record.worker_id.is_some());
        assert_eq!(worker.stop().await.jobs, 1);
    }

    async fn a_job_exists_the_moment_its_kick_returns(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(add(1, 1).label("team", "growth").priority(2)).await.unwrap();
        let record = handle.record().await.unwrap();
        assert_eq!((record.status, record.priority.value()), (Status::Pending, 2));
        assert_eq!(record.labels["team"], Label::from("growth"));
        assert_eq!(handle.get_result().await.unwrap_err().kind(), ErrorKind::NotReady);
        assert_eq!(handle.result_within("20ms").await.unwrap_err().kind(), ErrorKind::NotReady);
    }

    async fn an_unknown_job_is_not_found(bed: Bed) {
        let client = bed.client().await;
        let error = client.jobs().get(&"nobody".into()).await.unwrap_err();
        assert_eq!((error.kind(), error.id().unwrap().as_str()), (ErrorKind::NotFound, "nobody"));
        assert_eq!(client.handle::<i64>("nobody").await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    async fn an_error_of_the_body_fails_the_job_with_its_type_and_text(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        let handle = worker.client.kiq(parse("seven")).await.unwrap();
        let error = handle.result_within(PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::JobFailed);
        assert_eq!(error.job_error().unwrap().exc_type, "ParseIntError");
        let record = handle.record().await.unwrap();
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Error)));
        assert!(record.dead_lettered && record.message.is_some());
        assert_eq!(worker.client.kiq(parse("7")).await.unwrap().result_within(PATIENCE).await.unwrap(), 7);
    }

    async fn retries_run_until_one_succeeds_and_the_record_tells_of_each_failure(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        let handle = worker.client.kiq(flaky(2)).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 3);
        assert_eq!(probe.attempts(), [1, 2, 3]);
        let record = handle.record().await.unwrap();
        assert_eq!((record.attempt, record.max_retries), (3, 3));
        let told: Vec<_> = record.errors.iter().map(|e| (e.attempt, e.error.message.as_str())).collect();
        assert_eq!(told, [(1, "failure 1"), (2, "failure 2")]);
    }

    async fn used_up_retries_fail_the_job_after_max_and_one_runs(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        let record = ended(&worker.client.kiq(flaky(99)).await.unwrap()).await;
        assert_eq!((record.status, record.attempt), (Status::Failed, 4));
        assert_eq!(probe.attempts(), [1, 2, 3, 4]);
        assert_eq!(record.errors.len(), 4);
        // The call may say otherwise.
        let record = ended(&worker.client.kiq(flaky(99).retries(0)).await.unwrap()).await;
        assert_eq!((record.attempt, record.max_retries), (1, 0));
    }

    async fn only_errors_that_when_accepts_are_retried(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        assert_eq!(ended(&worker.client.kiq(picky(false)).await.unwrap()).await.attempt, 1);
        assert_eq!(ended(&worker.client.kiq(picky(true)).await.unwrap()).await.attempt, 6);
        assert_eq!(probe.runs.load(Ordering::SeqCst), 7);
    }

    async fn a_waiting_retry_holds_no_slot_and_reads_as_retrying(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app.worker_options(WorkerOptions::new().concurrency(1))).await;
        let waiting = worker.client.kiq(steered("fail").retries(0)).await.unwrap();
        assert_eq!(waiting.result_within(PATIENCE).await.unwrap(), 1);
        probe.runs.store(10, Ordering::SeqCst);
        let retried = worker.client.kiq_by_name("slow_to_retry", &json!({}), KickOptions::new()).await.unwrap();
        let record = record_when(&worker.client, retried.id(), |record| record.status == Status::Retrying).await;
        assert!(record.run_at.unwrap() > aioq::Timestamp::now());
        assert_eq!(worker.client.kiq(add(1, 1)).await.unwrap().result_within(PATIENCE).await.unwrap(), 2);
    }

    async fn a_body_can_ask_for_a_retry_soon(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        let handle = worker.client.kiq(steered("retry_in")).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 2);
        assert_eq!(probe.attempts(), [1, 2]);
    }

    async fn a_snooze_spends_no_attempt(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        let handle = worker.client.kiq(steered("snooze")).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        assert_eq!(probe.attempts(), [1, 1]);
    }

    async fn a_fatal_error_is_not_retried(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        let record = ended(&worker.client.kiq(steered("fatal")).await.unwrap()).await;
        assert_eq!((record.status, record.attempt, probe.attempts()), (Status::Failed, 1, vec![1]));
    }

    async fn a_body_can_call_its_job_off(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        let handle = worker.client.kiq(steered("cancel")).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(handle.record().await.unwrap().status, Status::Cancelled);
    }

    async fn a_panic_fails_the_attempt_and_the_worker_goes_on(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        let record = ended(&worker.client.kiq(explode()).await.unwrap()).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Panic)));
        assert_eq!(record.error.unwrap().message, "kaboom 7");
        assert_eq!(worker.client.kiq(add(1, 1)).await.unwrap().result_within(PATIENCE).await.unwrap(), 2);
    }

    async fn an_attempt_that_takes_too_long_is_dropped(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        let record = ended(&worker.client.kiq(endless()).await.unwrap()).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Timeout)));
        assert_eq!(record.error.unwrap().exc_type, "TimeoutError");
    }

    async fn bad_messages_fail_with_a_reason_and_hold_nobody_up(bed: Bed) {
        let impatient = WorkerOptions::new().patience(Duration::ZERO);
        let worker = start(probed(&bed).0.worker_options(impatient)).await;
        let client = &worker.client;
        let undecodable = Envelope::new("broken".into(), "default", &b"\xc1 not a message"[..]);
        assert_eq!(client.backend().broker().kick(undecodable, Expect::Any).await.unwrap(), Kicked::New);
        let record = record_when(client, &"broken".into(), |record| record.status.is_terminal()).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Undecodable)));
        assert!(record.dead_lettered);

        let options = KickOptions::new;
        for (args, named) in [
            (json!({"a": 1}), "missing argument `b`"),
            (json!({"a": 1, "b": 2, "c": 3}), "unexpected argument `c`"),
            (json!({"a": 1, "b": "hunter2"}), "argument `b` does not fit i64: invalid type: string, expected i64"),
            (json!({"a": 1, "b": [[[[[[[[[[[1]]]]]]]]]]]}), "argument `b` does not fit i64: invalid type: sequence"),
        ] {
            let handle = client.kiq_by_name("add", &args, options()).await.unwrap();
            let record = ended(&handle).await;
            assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::BadArguments)));
            let message = record.error.unwrap().message;
            assert!(message.contains(named) && !message.contains("hunter2"), "{message}");
        }
        for levels in [128, 1_000] {
            let record = ended(&client.kiq(nested(levels)).await.unwrap()).await;
            assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Unencodable)));
        }
        let record = ended(&client.kiq(huge(2 * 1024 * 1024)).await.unwrap()).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::ResultTooLarge)));
        assert_eq!(client.kiq(add(1, 1)).await.unwrap().result_within(PATIENCE).await.unwrap(), 2);
    }

    async fn arguments_over_the_limit_are_refused_before_anything_is_sent(bed: Bed) {
        let client = bed.client().await;
        let call = parse("x".repeat(2 * 1024 * 1024)).id("large");
        let error = client.kiq(call).await.unwrap_err();
        assert_eq!((error.kind(), error.id().unwrap().as_str()), (ErrorKind::TooLarge, "large"));
        assert_eq!(client.jobs().get(&"large".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    async fn options_that_make_no_sense_are_refused_at_the_kick(bed: Bed) {
        let client = bed.client().await;
        for call in [
            add(1, 1).delay("soon"),
            add(1, 1).priority(10),
            add(1, 1).queue(""),
            add(1, 1).id(""),
            add(1, 1).label("_retries", 3),
            add(1, 1).timeout("99999999d"),
            add(1, 1).at("tomorrow"),
            add(1, 1).label("x".repeat(129), 1),
            (0..129).fold(add(1, 1).delay("0s"), |call, number| call.label(format!("label-{number}"), number)),
        ] {
            let error = client.kiq(call.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{call:?}: {error}");
        }
        let error = client.kiq_by_name(&"x".repeat(256), &json!({}), KickOptions::new()).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().len() < 300), (ErrorKind::InvalidArgument, true), "{error}");
    }

    async fn a_job_that_was_not_started_in_time_expires_unrun(bed: Bed) {
        let (app, probe) = probed(&bed);
        let client = bed.client().await;
        let handle = client.kiq(flaky(0).ttl("1ms")).await.unwrap();
        record_when(&client, handle.id(), |record| record.status == Status::Expired).await;
        let worker = start(app).await;
        assert_eq!(handle.result_within(PATIENCE).await.unwrap_err().kind(), ErrorKind::Expired);
        let record = handle.record().await.unwrap();
        assert_eq!((record.reason, record.dead_lettered), (Some(Reason::Expired), true));
        assert_eq!(probe.runs.load(Ordering::SeqCst), 0);
        worker.stop().await;
    }

    async fn a_second_kick_under_a_chosen_id_is_the_first_job(bed: Bed) {
        let (app, probe) = probed(&bed);
        let client = bed.client().await;
        let first = client.kiq(flaky(0).id("order-1")).await.unwrap();
        let second = client.kiq(flaky(0).id("order-1")).await.unwrap();
        assert!(!first.existing() && second.existing());
        let worker = start(app).await;
        assert_eq!(first.result_within(PATIENCE).await.unwrap(), 1);
        // Ended, but remembered.
        let third = client.kiq(flaky(0).id("order-1")).await.unwrap();
        assert!(third.existing());
        assert_eq!(third.result_within(PATIENCE).await.unwrap(), 1);
        assert_eq!(probe.runs.load(Ordering::SeqCst), 1);
        // Forgotten, the id is free, once its message is acked.
        let acked = async {
            while client.backend().broker().find(&"order-1".into()).await.unwrap().is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, acked).await.expect("it is acked");
        assert!(client.jobs().remove(&"order-1".into()).await.unwrap());
        let fourth = client.kiq(flaky(0).id("order-1")).await.unwrap();
        assert!(!fourth.existing());
        assert_eq!(fourth.result_within(PATIENCE).await.unwrap(), 1);
        assert_eq!(probe.runs.load(Ordering::SeqCst), 2);
        worker.stop().await;
    }

    async fn a_delayed_job_reads_as_scheduled_and_runs_when_it_is_due(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        for delay in [Duration::from_millis(300), Duration::from_millis(1500)] {
            let handle = worker.client.kiq(add(1, 1).delay(delay)).await.unwrap();
            let waiting = handle.record().await.unwrap();
            assert!(!waiting.status.is_terminal(), "{waiting:?}");
            handle.result_within(PATIENCE).await.unwrap();
            let record = handle.record().await.unwrap();
            assert!(record.started_at.unwrap().since(record.kicked_at.unwrap()) >= delay);
        }
        let far = worker.client.kiq(add(1, 1).delay("30d")).await.unwrap();
        assert_eq!(far.record().await.unwrap().status, Status::Scheduled);
    }

    async fn bulk_kicks_report_each_fate_in_order(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        let calls = (0..500).map(|n| match n {
            77 => add(n, n).priority(77),
            _ => add(n, n).priority(5),
        });
        let fates = worker.client.kiq_all(calls).await;
        assert_eq!(fates.len(), 500);
        for (n, fate) in fates.into_iter().enumerate() {
            match n {
                77 => assert_eq!(fate.unwrap_err().kind(), ErrorKind::InvalidArgument),
                n => assert_eq!(fate.unwrap().result_within(PATIENCE).await.unwrap(), 2 * n as i64),
            }
        }
    }

    async fn ten_thousand_jobs_through_three_workers_run_once_each_with_the_right_results(bed: Bed) {
        let (mut workers, mut probes) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (app, probe) = probed(&bed);
            workers.push(start(app).await);
            probes.push(probe);
        }
        let client = bed.client().await;
        let sums = client.kiq_all((0..5_000).map(|n| add(n, 1))).await;
        let counted = client.kiq_all((0..5_000).map(|_| flaky(0))).await;
        for (n, sum) in sums.into_iter().enumerate() {
            assert_eq!(sum.unwrap().result_within(PATIENCE).await.unwrap(), n as i64 + 1);
        }
        for job in counted {
            assert_eq!(job.unwrap().result_within(PATIENCE).await.unwrap(), 1);
        }
        assert_eq!(probes.iter().map(|probe| probe.runs.load(Ordering::SeqCst)).sum::<u32>(), 5_000);
        for worker in workers {
            worker.stop().await;
        }
    }

    async fn a_body_kicks_through_its_workers_client(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        for kicked in [worker.client.kiq(parent(4)).await.unwrap(), worker.client.kiq(blocking_parent(4)).await.unwrap()] {
            let child = kicked.result_within(PATIENCE).await.unwrap();
            let child = worker.client.handle::<i64>(child).await.unwrap();
            assert_eq!(child.result_within(PATIENCE).await.unwrap(), 8);
        }
    }

    async fn both_codecs_are_read_by_one_worker(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        for codec in [Codec::Json, Codec::MessagePack] {
            let client = Client::builder(bed.backend()).codec(codec).connect().await.unwrap();
            assert_eq!(client.kiq(add(20, 22)).await.unwrap().result_within(PATIENCE).await.unwrap(), 42);
        }
        worker.stop().await;
    }

    async fn no_more_jobs_run_at_once_than_the_worker_may(bed: Bed) {
        let gauge = Gauge::default();
        let app = bed.app().state(gauge.clone()).state(Probe::default());
        let worker = start(app.worker_options(WorkerOptions::new().concurrency(3).blocking_threads(2))).await;
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
            let options = WorkerOptions::new().concurrency(2).blocking_threads(threads);
            start(bed.app().state(gauge.clone()).state(Probe::default()).worker_options(options)).await
        };
        let first = worker_with(2).await;
        let blocking = first.client.kiq_all((0..8).map(|_| gauged_blocking())).await;
        gauge.blocking_full.acquire_many(2).await.unwrap().forget();
        for handle in first.client.kiq_all((0..20).map(|n| add(n, n))).await {
            handle.unwrap().result_within(PATIENCE).await.unwrap();
        }
        // The others are for whoever has threads.
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
        let options = WorkerOptions::new().concurrency(2).blocking_threads(1).queues(["default", "other"]);
        let worker = start(bed.app().state(gauge.clone()).state(Probe::default()).worker_options(options)).await;
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

    async fn shutdown_lets_running_jobs_finish_and_gives_back_what_has_not_started(bed: Bed) {
        let (app, probe) = probed(&bed);
        let options = WorkerOptions::new().concurrency(1).max_prefetch(50);
        let worker = start(app.worker_options(options)).await;
        let client = bed.client().await;
        let first = client.kiq(hold()).await.unwrap();
        probe.started.notified().await;
        let rest = client.kiq_all((0..20).map(|n| add(n, 1))).await;
        worker.stop.send(()).unwrap();
        // Another worker has the rest while the first still runs its last job.
        let other = start(probed(&bed).0).await;
        for handle in rest {
            handle.unwrap().result_within(PATIENCE).await.unwrap();
        }
        assert_eq!(first.get_result().await.unwrap_err().kind(), ErrorKind::NotReady);
        probe.finish.notify_one();
        assert_eq!(first.result_within(PATIENCE).await.unwrap(), 1);
        worker.ended.await.unwrap().unwrap();
        other.stop().await;
    }

    async fn after_the_grace_period_running_jobs_are_given_back_without_spending_an_attempt(bed: Bed) {
        let (app, probe) = probed(&bed);
        let options = WorkerOptions::new().grace(Duration::from_millis(50));
        let worker = start(app.worker_options(options)).await;
        let client = bed.client().await;
        let handle = client.kiq(hold()).await.unwrap();
        probe.started.notified().await;
        assert_eq!(worker.stop().await.cut_off, 0);
        let (app, probe) = probed(&bed);
        let other = start(app).await;
        tokio::time::timeout(PATIENCE, probe.started.notified()).await.expect("it starts again at once");
        probe.finish.notify_one();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        other.stop().await;
    }

    async fn a_job_of_a_crashed_worker_runs_elsewhere_after_ack_wait(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app.worker_options(short_lease())).await;
        let client = bed.client().await;
        let handle = client.kiq(hold()).await.unwrap();
        probe.started.notified().await;
        crash(worker);
        let (app, probe) = probed(&bed);
        let other = start(app.worker_options(short_lease())).await;
        tokio::time::timeout(PATIENCE, probe.started.notified()).await.expect("it comes back");
        probe.finish.notify_one();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        other.stop().await;
    }

    async fn a_job_that_outlasts_its_lease_runs_once_and_reads_as_running(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app.worker_options(short_lease())).await;
        let rival = start(probed(&bed).0.worker_options(short_lease())).await;
        let handle = worker.client.kiq(outlast()).await.unwrap();
        let record = record_when(&worker.client, handle.id(), |record| record.status == Status::Running).await;
        assert!(record.worker_id.is_some() && record.started_at.is_some());
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        rival.stop().await;
        worker.stop().await;
        drop(probe);
    }

    async fn a_job_that_ended_before_its_ack_is_not_run_again(bed: Bed) {
        // As after a crash between save and ack: the record is there, and the message too.
        let client = bed.client().await;
        let handle = client.kiq(flaky(0)).await.unwrap();
        let store = client.backend().jobs().unwrap();
        let mut record = handle.record().await.unwrap();
        record.status = Status::Completed;
        record.result = Some(Codec::MessagePack.encode(&99).unwrap());
        store.put(record.into(), Expect::Absent, None).await.unwrap();
        redeliver(&client, "default").await;
        let (app, probe) = probed(&bed);
        let worker = app.worker_options(short_lease().burst(true)).worker().await.unwrap();
        worker.run(std::future::pending()).await.unwrap();
        assert_eq!(probe.runs.load(Ordering::SeqCst), 0);
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 99);
        assert!(client.backend().broker().find(handle.id()).await.unwrap().is_none());
    }

    async fn a_retry_that_was_announced_but_not_kicked_is_finished(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(flaky(0)).await.unwrap();
        let store = client.backend().jobs().unwrap();
        let mut record = handle.record().await.unwrap();
        record.status = Status::Retrying;
        record.run_at = Some(aioq::Timestamp::now());
        store.put(record.into(), Expect::Absent, None).await.unwrap();
        redeliver(&client, "default").await;
        let (app, probe) = probed(&bed);
        let worker = start(app.worker_options(short_lease())).await;
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 2);
        assert_eq!(probe.attempts(), [2]);
        worker.stop().await;
    }

    async fn a_job_whose_process_died_each_time_is_poison(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(flaky(0)).await.unwrap();
        let store = client.backend().jobs().unwrap();
        let mut record = handle.record().await.unwrap();
        record.status = Status::Running;
        (record.starts, record.solo) = (5, 5);
        store.put(record.into(), Expect::Absent, None).await.unwrap();
        redeliver(&client, "default").await;
        let (app, probe) = probed(&bed);
        let worker = start(app.worker_options(short_lease())).await;
        let record = ended(&handle).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Poison)));
        assert_eq!(probe.runs.load(Ordering::SeqCst), 0);
        worker.stop().await;
    }

    async fn releases_of_what_had_not_started_do_not_count_as_crashes(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(flaky(0)).await.unwrap();
        for _ in 0..10 {
            redeliver(&client, "default").await;
        }
        let worker = start(probed(&bed).0.worker_options(short_lease())).await;
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        worker.stop().await;
    }

    async fn a_worker_that_lost_its_job_neither_overwrites_nor_acks(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        let handle = worker.client.kiq(hold()).await.unwrap();
        probe.started.notified().await;
        // Somebody else claims the job, as after a long freeze of this worker.
        let store = worker.client.backend().jobs().unwrap().clone();
        let mut record = handle.record().await.unwrap();
        record.status = Status::Running;
        record.worker_id = Some("the other".into());
        let found = store.get(handle.id()).await.unwrap();
        let expect = found.map_or(Expect::Absent, |stored| Expect::Revision(stored.revision));
        store.put(record.into(), expect, None).await.unwrap();
        probe.finish.notify_one();
        worker.stop().await;
        let client = bed.client().await;
        let record = handle_record(&client, handle.id()).await;
        assert_eq!((record.status, record.worker_id.as_deref()), (Status::Running, Some("the other")));
        assert!(client.backend().broker().find(handle.id()).await.unwrap().is_some(), "the message is still there");
    }

    async fn burst_ends_when_nothing_is_ready_and_does_not_wait_for_later(bed: Bed) {
        let client = bed.client().await;
        let later = client.kiq(add(1, 1).delay("1h")).await.unwrap();
        let now = client.kiq_all((0..50).map(|n| add(n, 1))).await;
        let worker = probed(&bed).0.worker_options(WorkerOptions::new().burst(true)).worker().await.unwrap();
        let summary = tokio::time::timeout(PATIENCE, worker.run(std::future::pending())).await.unwrap().unwrap();
        assert_eq!(summary.jobs, 50);
        for handle in now {
            handle.unwrap().get_result().await.unwrap();
        }
        assert_eq!(later.record().await.unwrap().status, Status::Scheduled);
    }

    async fn middlewares_stand_around_runs_and_kicks_in_the_order_listed(bed: Bed) {
        let log = Log::default();
        let app = probed(&bed).0.middleware(Named("outer", log.clone())).middleware(Named("inner", log.clone()));
        let worker = start(app).await;
        worker.client.kiq(add(1, 1)).await.unwrap().result_within(PATIENCE).await.unwrap();
        let expected = ["outer kick", "inner kick", "outer run", "inner run", "inner ran", "outer ran"];
        assert_eq!(*log.0.lock().unwrap(), expected);
        worker.stop().await;
    }

    async fn a_panic_in_a_middleware_fails_the_job_and_settles_it(bed: Bed) {
        let worker = start(probed(&bed).0.middleware(Clumsy)).await;
        let record = ended(&worker.client.kiq(add(1, 1)).await.unwrap()).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Panic)));
        worker.stop().await;
    }

    async fn a_hook_can_refuse_a_kick(bed: Bed) {
        let client = Client::builder(bed.backend()).hook(Refuse).connect().await.unwrap();
        assert_eq!(client.kiq(add(1, 1)).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        let fates = client.kiq_all([add(1, 1), add(2, 2)]).await;
        assert!(fates.iter().all(Result::is_err));
    }

    async fn tasks_registered_at_run_time_run(bed: Bed) {
        #[derive(serde::Deserialize)]
        struct Triple {
            n: i64,
        }
        let triple = aioq::TaskDef::from_fn("triple", |_ctx: Context, Triple { n }| async move {
            Ok::<_, TaskError>(3 * n)
        });
        let worker = start(probed(&bed).0.task(triple)).await;
        let handle = worker.client.kiq_by_name("triple", &json!({"n": 14}), KickOptions::new()).await.unwrap();
        let record = ended(&handle).await;
        assert_eq!(record.result.unwrap().decode::<i64>().unwrap(), 42);
        worker.stop().await;
    }

    async fn a_paused_queue_is_left_alone_by_all_workers_until_it_is_resumed(bed: Bed) {
        let (app, probe) = probed(&bed);
        let first = start(app.worker_options(WorkerOptions::new().queues(["default", "a.b"]))).await;
        let client = bed.client().await;
        assert_eq!(client.kiq(add(1, 1)).await.unwrap().result_within(PATIENCE).await.unwrap(), 2);
        client.queues().pause("default").await.unwrap();
        client.queues().pause("default").await.unwrap();
        assert_eq!(client.queues().paused().await.unwrap().into_iter().collect::<Vec<_>>(), ["default"]);
        // A worker that starts later knows of it too.
        let second = start(probed(&bed).0).await;
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
        let runs = probe.runs.load(Ordering::SeqCst);
        // Other queues go on.
        assert_eq!(client.kiq(add(2, 2).queue("a.b")).await.unwrap().result_within(PATIENCE).await.unwrap(), 4);
        assert_eq!(waiting.record().await.unwrap().status, Status::Pending);
        assert!(client.queues().resume("default").await.unwrap());
        assert!(!client.queues().resume("default").await.unwrap());
        assert_eq!(waiting.result_within(PATIENCE).await.unwrap(), 1);
        assert!(probe.runs.load(Ordering::SeqCst) <= runs + 1);
        first.stop().await;
        second.stop().await;
    }

    async fn a_worker_that_is_full_of_long_jobs_gives_back_what_it_had_fetched_ahead(bed: Bed) {
        gives_back_what_it_had_fetched_ahead(bed, WorkerOptions::new()).await;
    }

    async fn a_full_worker_in_burst_mode_gives_back_what_it_had_fetched_ahead(bed: Bed) {
        gives_back_what_it_had_fetched_ahead(bed, WorkerOptions::new().burst(true)).await;
    }

    async fn workers_share_a_queue_evenly(bed: Bed) {
        const JOBS: usize = 400;
        let few = || WorkerOptions::new().concurrency(10);
        let one = start(probed(&bed).0.worker_options(few())).await;
        let two = start(probed(&bed).0.worker_options(few())).await;
        let kicks = one.client.kiq_all((0..JOBS).map(|_| tenth_of_a_second())).await;
        for kicked in kicks {
            kicked.unwrap().result_within(PATIENCE).await.unwrap();
        }
        let taken = [one.stop().await.jobs, two.stop().await.jobs];
        println!("{taken:?}");
        assert!(taken.iter().all(|taken| *taken as usize >= JOBS * 9 / 20), "{taken:?}");
    }

    async fn a_failed_job_runs_again_once_when_it_is_retried(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        let jobs = worker.client.jobs();
        let handle = worker.client.kiq(steered("fatal")).await.unwrap();
        assert_eq!(ended(&handle).await.status, Status::Failed);
        // Of many that ask at once, one is first, and the job runs once.
        let retries = futures_util::future::join_all((0..8).map(|_| jobs.retry(handle.id()))).await;
        let done = retries.into_iter().filter(|retried| *retried.as_ref().unwrap()).count();
        assert!(done >= 1, "one retry takes");
        let again = async {
            while probe.runs.load(Ordering::SeqCst) < 1 + done as u32 {
                probe.started.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("it runs again");
        let record = ended(&handle).await;
        assert_eq!((record.status, record.attempt), (Status::Failed, 1));
        let fine = worker.client.kiq(add(1, 1)).await.unwrap();
        fine.result_within(PATIENCE).await.unwrap();
        assert!(!jobs.retry(fine.id()).await.unwrap(), "a completed job is not run again");
        assert_eq!(jobs.retry(&"nobody".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
        worker.stop().await;
    }

    async fn a_failed_job_with_the_largest_arguments_is_settled_and_can_be_retried(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        let limit = worker.client.max_payload_bytes().min(1024 * 1024) - 64;
        let handle = worker.client.kiq(parse("x".repeat(limit))).await.unwrap();
        let record = ended(&handle).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Error)));
        assert!(record.arguments.is_some_and(|arguments| arguments.len() > limit), "they are told by the message");
        assert!(worker.client.jobs().retry(handle.id()).await.unwrap());
        worker.stop().await;
    }

    async fn a_job_with_a_history_of_long_errors_is_settled(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        let record = ended(&worker.client.kiq(verbose()).await.unwrap()).await;
        assert_eq!((record.status, record.attempt), (Status::Failed, 31));
        assert!(record.errors.len() >= 2);
        assert_eq!((record.errors[0].attempt, record.errors.last().unwrap().attempt), (1, 31));
        worker.stop().await;
    }

    async fn a_job_that_was_put_off_does_not_expire(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        let handle = worker.client.kiq(steered("snooze").ttl("10ms")).await.unwrap();
        let result = handle.result_within(PATIENCE).await;
        // It may expire before its first start on a slow machine, and never after it.
        match probe.runs.load(Ordering::SeqCst) {
            0 => assert_eq!(result.unwrap_err().kind(), ErrorKind::Expired),
            _ => assert_eq!(result.unwrap(), 1),
        }
        worker.stop().await;
    }

    async fn a_task_that_acks_on_receive_runs_once_and_is_never_put_off(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app.worker_options(short_lease())).await;
        let record = ended(&worker.client.kiq(at_most_once("snooze")).await.unwrap()).await;
        assert_eq!((record.status, record.attempt), (Status::Failed, 1));
        let failed = worker.client.kiq(at_most_once("fail")).await.unwrap();
        assert_eq!(ended(&failed).await.status, Status::Failed);
        assert_eq!(probe.runs.load(Ordering::SeqCst), 2);
        // Run again on request, it is recorded again.
        assert!(worker.client.jobs().retry(failed.id()).await.unwrap());
        let again = async {
            while probe.runs.load(Ordering::SeqCst) < 3 {
                probe.started.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("it runs again");
        let first = ended(&failed).await;
        record_when(&worker.client, failed.id(), |record| record.status == Status::Failed).await;
        assert_eq!(first.attempt, 1);
        worker.stop().await;
    }

    async fn a_job_acked_on_receive_that_is_cut_short_by_shutdown_is_recorded_as_failed(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app.worker_options(short_lease())).await;
        let client = bed.client().await;
        let handle = client.kiq(at_most_once("wait")).await.unwrap();
        probe.started.notified().await;
        worker.stop().await;
        let record = ended(&handle).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Error)));
        assert!(record.error.unwrap().message.contains("the worker stopped"));
    }

    async fn a_running_record_of_its_own_is_not_mistaken_for_another_workers(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        let handle = worker.client.kiq(hold()).await.unwrap();
        probe.started.notified().await;
        let running = record_when(&worker.client, handle.id(), |record| record.status == Status::Running).await;
        // As if a renewal had been stored although its confirmation was lost.
        let store = worker.client.backend().jobs().unwrap().clone();
        let revision = store.get(handle.id()).await.unwrap().unwrap().revision;
        store.put(running.into(), Expect::Revision(revision), None).await.unwrap();
        probe.finish.notify_one();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        assert_eq!(probe.runs.load(Ordering::SeqCst), 1);
        worker.stop().await;
    }

    async fn a_job_can_be_retried_the_moment_its_failure_is_known(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = start(app).await;
        for n in 1..=20 {
            let handle = worker.client.kiq(steered("fatal")).await.unwrap();
            assert_eq!(handle.result_within(PATIENCE).await.unwrap_err().kind(), ErrorKind::JobFailed);
            assert!(worker.client.jobs().retry(handle.id()).await.unwrap(), "retry {n}");
        }
        let all = async {
            while probe.runs.load(Ordering::SeqCst) < 40 {
                probe.started.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("all run again");
        worker.stop().await;
    }

    async fn a_blocking_job_that_waits_for_a_thread_is_given_back_at_the_end(bed: Bed) {
        let gauge = Gauge::default();
        let app = bed.app().state(gauge.clone()).state(Probe::default());
        let options = WorkerOptions::new().blocking_threads(1).grace(Duration::from_millis(50));
        let worker = start(app.worker_options(options)).await;
        let client = bed.client().await;
        let first = client.kiq(gauged_blocking()).await.unwrap();
        gauge.blocking_full.acquire().await.unwrap().forget();
        let waiting = client.kiq(gauged_blocking()).await.unwrap();
        // Once it is held, it waits for the only thread.
        record_when(&client, first.id(), |record| record.status == Status::Running).await;
        worker.stop.send(()).unwrap();
        let other = start(bed.app().state(gauge.clone()).state(Probe::default())).await;
        // The second is run elsewhere, while the first still holds its thread here.
        gauge.blocking_full.acquire().await.unwrap().forget();
        gauge.open.add_permits(10);
        assert_eq!(waiting.wait().await.unwrap().attempt, 1);
        other.stop().await;
        worker.ended.await.unwrap().unwrap();
    }

    async fn dequeue_takes_the_next_job_or_none(bed: Bed) {
        let client = bed.client().await;
        assert!(client.dequeue(&["default"], Duration::from_millis(20)).await.unwrap().is_none());
        let handle = client.kiq(add(1, 1)).await.unwrap();
        let delivery = client.dequeue(&["default"], PATIENCE).await.unwrap().unwrap();
        assert_eq!(&delivery.id, handle.id());
        delivery.receipt.ack().await.unwrap();
    }

    async fn a_worker_is_listed_while_it_lives(bed: Bed) {
        let worker = start(probed(&bed).0).await;
        let client = bed.client().await;
        let listed = async {
            loop {
                if let Some(info) = client.workers().list().await.unwrap().pop() {
                    return info;
                }
                tokio::task::yield_now().await;
            }
        };
        let info = tokio::time::timeout(PATIENCE, listed).await.expect("it registers");
        assert!(info.is_alive() && info.queues.contains(&"default".to_owned()));
        assert_eq!((info.concurrency, info.busy), (100, 0));
        worker.stop().await;
        assert!(client.workers().list().await.unwrap().is_empty());
    }

    async fn jobs_run_in_place_when_asked_to(bed: Bed) {
        let client = probed(&bed).0.in_place().await.unwrap();
        let handle = client.kiq(parent(3)).await.unwrap();
        let child = handle.get_result().await.unwrap();
        assert_eq!(client.handle::<i64>(child).await.unwrap().get_result().await.unwrap(), 6);
        let failed = client.kiq(parse("seven")).await.unwrap();
        assert_eq!(failed.get_result().await.unwrap_err().kind(), ErrorKind::JobFailed);
    }
}

async fn handle_record(client: &Client, id: &JobId) -> JobRecord {
    client.backend().jobs().unwrap().get(id).await.unwrap().unwrap().record
}

fn crash(worker: Running) {
    worker.crash();
}

/// Takes the next job and gives it back unrun, as a worker does that is told to stop.
async fn redeliver(client: &Client, queue: &str) {
    let delivery = client.dequeue(&[queue], PATIENCE).await.unwrap().expect("a job is there");
    delivery.receipt.release(Duration::ZERO).await.unwrap();
}

#[task(retry(max = 1, backoff = "1h"))]
async fn slow_to_retry() -> Result<(), String> {
    Err("not now".to_owned())
}

#[task(retry(max = 30, backoff = "1ms"))]
async fn verbose() -> Result<(), String> {
    Err("very long ".repeat(10_000))
}

#[task(ack = "on_receive", retry(max = 5, backoff = "1ms"))]
async fn at_most_once(how: &str, #[inject] ctx: &Context, #[inject] probe: &Probe) -> TaskResult<()> {
    probe.run(ctx.attempt());
    match how {
        "snooze" => Err(TaskError::snooze("1ms")),
        "wait" => std::future::pending().await,
        _ => Err(TaskError::new("no")),
    }
}

#[task]
async fn outlast(#[inject] ctx: &Context) -> u32 {
    tokio::time::sleep(Duration::from_millis(2500)).await;
    ctx.attempt()
}

/// Measures how many bodies are inside at once.
#[derive(Clone)]
struct Gauge {
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    inside_blocking: Arc<AtomicUsize>,
    most_blocking: Arc<AtomicUsize>,
    full: Arc<Semaphore>,
    blocking_full: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            inside: Arc::default(),
            most: Arc::default(),
            inside_blocking: Arc::default(),
            most_blocking: Arc::default(),
            full: Arc::new(Semaphore::new(0)),
            blocking_full: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }
}

#[task]
async fn gauged(#[inject] gauge: &Gauge) {
    gauge.most.fetch_max(gauge.inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    gauge.full.add_permits(1);
    gauge.open.acquire().await.unwrap().forget();
    gauge.inside.fetch_sub(1, Ordering::SeqCst);
}

#[task(queue = "blocking")]
fn gauged_blocking(#[inject] gauge: &Gauge) {
    gauge.most_blocking.fetch_max(gauge.inside_blocking.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    gauge.blocking_full.add_permits(1);
    while gauge.open.try_acquire().map(|permit| permit.forget()).is_err() {
        std::thread::yield_now();
    }
    gauge.inside_blocking.fetch_sub(1, Ordering::SeqCst);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Named(&'static str, Log);

impl Named {
    fn log(&self, what: &str) {
        self.1.0.lock().unwrap().push(format!("{} {what}", self.0));
    }
}

#[async_trait]
impl Middleware for Named {
    async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
        self.log("run");
        let outcome = next.run(ctx).await;
        self.log("ran");
        outcome
    }

    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Kicked> {
        self.log("kick");
        next.run(message).await
    }
}

struct Clumsy;

#[async_trait]
impl Middleware for Clumsy {
    async fn run(&self, _ctx: Context, _next: Next<'_>) -> Outcome {
        panic!("dropped it")
    }
}

struct Refuse;

#[async_trait]
impl Middleware for Refuse {
    async fn kick(&self, _message: Message, _next: KickNext<'_>) -> Result<Kicked> {
        Err(aioq::Error::new(ErrorKind::InvalidArgument, "not today"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_body_that_ignores_its_timeout_is_waited_for() {
    let (app, probe) = probed(&Bed::memory());
    let worker = start(app).await;
    let record = ended(&worker.client.kiq(stubborn()).await.unwrap()).await;
    assert_eq!((record.status, record.reason, record.attempt), (Status::Failed, Some(Reason::Timeout), 2));
    assert_eq!(probe.attempts(), [1, 2]);
    assert_eq!(OVERLAPS.load(Ordering::SeqCst), 0);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn days_of_delay_pass_in_virtual_time() {
    let worker = start(probed(&Bed::memory()).0).await;
    let handle = worker.client.kiq(add(1, 1).delay("3d")).await.unwrap();
    assert_eq!(handle.result().await.unwrap(), 2);
    let record = handle.record().await.unwrap();
    let waited = record.started_at.unwrap().since(record.kicked_at.unwrap());
    assert!(waited >= Duration::from_secs(3 * 24 * 3600), "{waited:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_without_a_needed_state_does_not_start() {
    let error = Bed::memory().app().worker().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("needs state `Probe`: add `.state(Probe…)`"), "{text}");
    assert!(text.contains("tests/worker.rs:"), "{text}");
}

#[tokio::test]
async fn two_tasks_of_one_name_are_refused_with_both_places() {
    let other = aioq::TaskDef::from_fn("add", |_: Context, _: ()| async { Ok::<_, TaskError>(()) });
    let error = Bed::memory().app().task(other).worker().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("two tasks are called `add`"), "{error}");
}

#[tokio::test]
async fn a_bare_kiq_without_a_client_says_what_to_do() {
    let error = add(1, 1).kiq().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoClient);
    assert!(error.to_string().contains("client.install()"), "{error}");
    // In scope, it finds its client.
    let client = Bed::memory().client().await;
    assert!(client.scope(async { add(1, 1).kiq().await }).await.is_ok());
}

#[tokio::test]
async fn without_a_store_waiting_is_an_error_and_jobs_still_run() {
    let probe = Probe::default();
    let app = App::new(Bed::memory().backend().without_jobs()).state(probe.clone()).state(Gauge::default());
    let worker = start(app).await;
    let handle = worker.client.kiq(flaky(1)).await.unwrap();
    assert_eq!(handle.result().await.unwrap_err().kind(), ErrorKind::Unsupported);
    let both = async {
        while probe.runs.load(Ordering::SeqCst) < 2 {
            probe.started.notified().await;
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("it runs, and is retried");
    assert_eq!(probe.attempts(), [1, 2]);
    worker.stop().await;
}

#[test]
fn arguments_are_read_by_name_position_and_default() {
    let params = {
        const PARAMS: &[aioq::__private::Param] =
            &[aioq::__private::Param::required("a", "i64"), aioq::__private::Param::with_default("b", "i64")];
        PARAMS
    };
    let arguments = Arguments::from_json(Codec::MessagePack, r#"{"a": "5"}"#).unwrap();
    let mut reader = arguments.reader(params).unwrap();
    // `"5"` is a number where one is wanted.
    assert_eq!(reader.required::<i64>(0).unwrap(), 5);
    assert_eq!(reader.or_else::<i64>(1, || 9).unwrap(), 9);
}
