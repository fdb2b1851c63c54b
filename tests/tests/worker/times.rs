//! Times and spans at their ends, and clocks that are apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aioq::broker::{DEFAULT_ACK_WAIT, Expect, Kicked, MAX_ACK_WAIT};
use aioq::message::{Arguments, Codec};
use aioq::middleware::{Next, Outcome};
use aioq::prelude::*;
use aioq::store::{RecordLevel, Retention, Status};
use aioq::testing::TestClock;
use aioq::time::MAX_SPAN;
use aioq::{ErrorKind, Message, Result, Timestamp, async_trait};
use aioq_tests::{Bed, PATIENCE, on_each_backend};
use proptest::prelude::*;
use serde_json::json;

use crate::bodies::add;
use crate::{options, stateful};

#[derive(Clone, Default)]
pub(crate) struct Runs(Arc<AtomicU32>);

#[task(retry(retry_for = "2h", backoff = "10m"))]
async fn always_fails(#[inject] runs: &Runs) -> Result<(), String> {
    runs.0.fetch_add(1, Ordering::SeqCst);
    Err("again".to_owned())
}

/// Ways of putting a job off: by the body, by the policy, by a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Off {
    Snooze,
    RetryIn,
    Layer,
}

#[derive(Clone)]
pub(crate) struct PutOff(pub(crate) Off, pub(crate) Duration);

#[task(retry(max = 5))]
async fn put_off(#[inject] off: &PutOff) -> TaskResult<()> {
    match off.0 {
        Off::Snooze => Err(TaskError::snooze(off.1)),
        Off::RetryIn => Err(TaskError::retry_in(off.1, "later")),
        Off::Layer => Ok(()),
    }
}

/// Says of every job what the state says, if it is the one to say it.
struct PutsOff(PutOff);

#[async_trait]
impl Middleware for PutsOff {
    async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
        match self.0 {
            PutOff(Off::Layer, after) => Outcome::Snooze { after },
            _ => next.run(ctx).await,
        }
    }
}

fn block_on<T>(paused: bool, test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(paused).build().unwrap().block_on(test)
}

/// Spans around every limit, and any other.
fn spans() -> impl Strategy<Value = Duration> {
    let around = |span: Duration| [span - Duration::from_nanos(1), span, span + Duration::from_nanos(1)];
    let limits = [MAX_SPAN, MAX_ACK_WAIT, Duration::from_millis(500), 3 * MAX_SPAN];
    let mut ends: Vec<Duration> = limits.into_iter().flat_map(around).collect();
    ends.extend([Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX]);
    prop_oneof![
        3 => proptest::sample::select(ends),
        1 => (0..64_u32, any::<u64>()).prop_map(|(shift, nanos)| Duration::from_nanos(nanos >> shift)),
        1 => (0..64_u32, any::<u64>()).prop_map(|(shift, seconds)| Duration::from_secs(seconds >> shift)),
    ]
}

/// Times around every limit, and any other.
fn times() -> impl Strategy<Value = Timestamp> {
    let now = Timestamp::now();
    let ends = vec![
        Timestamp::from_micros(i64::MIN),
        Timestamp::from_micros(0),
        now,
        now + MAX_SPAN,
        "2262-04-12T00:00:00Z".parse().unwrap(),
        Timestamp::from_micros(i64::MAX),
    ];
    prop_oneof![3 => proptest::sample::select(ends), 1 => any::<i64>().prop_map(Timestamp::from_micros)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_span_and_time_is_refused_or_kept_to_the_limit(span in spans(), time in times()) {
        block_on(true, async {
            options_hold(span, time).await;
            steering_holds(span).await;
            for how in [Off::Snooze, Off::RetryIn, Off::Layer] {
                what_puts_a_job_off_holds(PutOff(how, span)).await;
            }
        });
    }
}

/// The latest that anything may be due.
fn latest() -> Timestamp {
    Timestamp::now() + MAX_SPAN
}

/// Options of a call are taken as they are, or refused with the limit.
async fn options_hold(span: Duration, time: Timestamp) {
    let retention = Retention::new().completed(span).failed(span);
    assert!(retention.span(Status::Completed).max(retention.span(Status::Failed)) <= MAX_SPAN);
    let client = Client::builder(Memory::new()).deadline(span).retention(retention).connect().await.unwrap();
    assert!(client.deadline() <= MAX_SPAN);
    let calls = [
        add(1, 2).delay(span),
        add(1, 2).ttl(span),
        add(1, 2).timeout(span),
        add(1, 2).delay(span).ttl(span),
    ];
    for call in calls {
        match client.kiq(call).await {
            Ok(handle) => {
                assert!(span <= MAX_SPAN);
                let record = handle.record().await.unwrap();
                assert!(record.run_at.is_none_or(|due| due <= latest()), "{record:?}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                assert!(span > MAX_SPAN && error.to_string().contains("100 years"), "{error}");
            }
        }
    }
    let ahead = time.since(Timestamp::now());
    match client.kiq(add(1, 2).at(time)).await {
        Ok(handle) => assert!(handle.record().await.unwrap().run_at.is_none_or(|due| due <= latest())),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(ahead + Duration::from_secs(1) > MAX_SPAN && error.to_string().contains("100 years"));
        }
    }
    let options = options().ack_wait(span).grace(span);
    let app = stateful(App::new(Memory::new())).state(Runs::default()).state(PutOff(Off::Snooze, span));
    let made = app.worker_options(options).worker().await;
    let allowed = (Duration::from_millis(500)..=MAX_ACK_WAIT).contains(&span);
    assert_eq!(made.as_ref().err().map(aioq::Error::kind), (!allowed).then_some(ErrorKind::Config));
}

/// Requests with a time limit wait as long as they are told, or refuse the limit.
async fn steering_holds(span: Duration) {
    let client = Client::connect(Memory::new()).await.unwrap();
    let handle = client.kiq(add(1, 2).delay("1h")).await.unwrap();
    assert!(handle.cancel().await.unwrap());
    let refused = (span > MAX_SPAN).then_some(ErrorKind::InvalidArgument);
    let kind = |error: Option<aioq::Error>| error.map(|error| error.kind());
    assert_eq!(kind(handle.abort(span).await.err()), refused);
    assert_eq!(kind(client.jobs().clean(Status::Completed, span, 1).await.err()), refused);
    let waited = kind(handle.result_within(span).await.err());
    assert!(waited == refused || (refused.is_none() && waited.is_some()), "{waited:?}");
    let other = client.kiq(add(1, 2)).await.unwrap();
    let got = client.dequeue(&["default"], span.max(Duration::from_secs(1))).await.unwrap();
    assert!(got.is_some_and(|got| got.id == *other.id()));
}

/// A job that is put off for however long waits for it, and does not run again at once.
async fn what_puts_a_job_off_holds(off: PutOff) {
    let app = stateful(App::new(Memory::new())).state(Runs::default()).state(off.clone());
    let worker = app.middleware(PutsOff(off.clone())).worker().await.unwrap();
    if off.1 < Duration::from_secs(60) {
        // It would be due again before this has looked.
        return;
    }
    let handle = worker.client().kiq(put_off()).await.unwrap();
    assert_eq!(worker.drain().await.unwrap().jobs, 1, "{:?}", off.0);
    let record = handle.record().await.unwrap();
    let due = record.run_at.unwrap();
    assert!(due <= latest(), "{due}");
    let least = off.1.min(MAX_SPAN).saturating_sub(Duration::from_secs(1));
    assert!(due >= record.kicked_at.unwrap() + least, "{due}");
}

on_each_backend! {
    async fn a_job_that_comes_before_its_time_is_put_back(bed: Bed) {
        let client = bed.client().await;
        let arguments = Arguments::from_map(Codec::MessagePack, &json!({})).unwrap();
        let mut message = Message::new("early".into(), "always_fails", arguments);
        message.run_at = Some(Timestamp::now() + Duration::from_secs(3600));
        let mut envelope = message.seal();
        // As a server does that lost count of the time.
        envelope.not_before = None;
        assert_eq!(client.backend().broker().kick(envelope, Expect::Any).await.unwrap(), Kicked::New);
        let runs = Runs::default();
        let app = stateful(bed.app()).state(runs.clone()).state(PutOff(Off::Layer, MAX_SPAN));
        let worker = app.worker_options(options().concurrency(1)).worker().await.unwrap();
        let running = tokio::spawn(worker.run(std::future::pending()));
        for _ in 0..2 {
            let later = client.kiq(add(1, 2)).await.unwrap();
            assert_eq!(later.result_within(PATIENCE).await.unwrap(), 3);
        }
        assert_eq!(runs.0.load(Ordering::SeqCst), 0);
        assert_eq!(client.jobs().get(&"early".into()).await.unwrap().status, Status::Scheduled);
        running.abort();
    }
}

#[test]
fn a_server_is_waited_for_as_long_as_can_be() {
    let connecting = async {
        let nats = aioq_nats::Nats::new("nats://127.0.0.1:1").deadline(Duration::MAX);
        tokio::time::timeout(Duration::from_millis(50), Client::connect(nats)).await
    };
    assert!(block_on(false, connecting).is_err(), "it goes on trying");
}

#[tokio::test(start_paused = true)]
async fn the_time_for_retries_begins_with_the_first_failure() {
    for level in [RecordLevel::Full, RecordLevel::None] {
        let runs = Runs::default();
        let app = stateful(App::new(Memory::new())).state(runs.clone()).state(PutOff(Off::Layer, MAX_SPAN));
        let worker = app.records(level).worker().await.unwrap();
        let client = worker.client().clone();
        let running = tokio::spawn(worker.run(std::future::pending()));
        client.kiq(always_fails().delay("3h")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3 * 3600 + 60)).await;
        assert_eq!(runs.0.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
        let runs = runs.0.load(Ordering::SeqCst);
        assert!((12..=13).contains(&runs), "{level:?}: one every ten minutes for two hours, not {runs}");
        running.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_put_back_runs_when_it_is_due() {
    let memory = Memory::new();
    let client = Client::connect(memory.clone()).await.unwrap();
    let arguments = Arguments::from_map(Codec::MessagePack, &json!({"a": 1, "b": 2})).unwrap();
    let mut message = Message::new("early".into(), "add", arguments);
    let due = Timestamp::now() + Duration::from_secs(5400);
    message.run_at = Some(due);
    let mut envelope = message.seal();
    envelope.not_before = None;
    client.backend().broker().kick(envelope, Expect::Any).await.unwrap();
    let app = stateful(App::new(memory)).state(Runs::default()).state(PutOff(Off::Layer, MAX_SPAN));
    let running = tokio::spawn(app.worker().await.unwrap().run(std::future::pending()));
    let handle = client.handle::<i64>("early").await.unwrap();
    assert_eq!(handle.result().await.unwrap(), 3);
    let started = handle.record().await.unwrap().started_at.unwrap();
    let late = started.since(due);
    assert!(started + Duration::from_secs(1) >= due && late < 2 * DEFAULT_ACK_WAIT, "{late:?}");
    running.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_job_is_not_late_where_the_clock_of_the_worker_is() {
    let (bed, clock) = (Bed::nats().await, TestClock::new());
    clock.set_behind(Duration::from_secs(3600));
    let app = stateful(App::new(bed.backend().clock(&clock))).state(Runs::default());
    let worker = app.state(PutOff(Off::Layer, MAX_SPAN)).worker().await.unwrap();
    let running = tokio::spawn(worker.run(std::future::pending()));
    let client = bed.client().await;
    for delay in ["300ms", "1500ms"] {
        let handle = client.kiq(add(1, 2).delay(delay)).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 3, "{delay}");
    }
    running.abort();
}
