//! Jobs that cannot go well end all the same, with a reason.

use std::panic::panic_any;
use std::sync::Arc;
use std::time::Duration;

use aioq::broker::{Expect, Kicked};
use aioq::error::Reason;
use aioq::message::{Arguments, Codec};
use aioq::middleware::{Next, Outcome};
use aioq::prelude::*;
use aioq::store::{JobRecord, Status};
use aioq::tasks::{KickOptions, TaskDef};
use aioq::{ErrorKind, Message, Result, async_trait};
use aioq_tests::{Bed, PATIENCE, Running, ended, on_each_backend, until};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{options, probed};

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
async fn outlasts_its_time() {
    std::future::pending::<()>().await;
}

#[task]
async fn sum(a: i64, b: i64) -> i64 {
    a + b
}

#[task(ack = "on_receive")]
async fn sum_once(a: i64, b: i64) -> i64 {
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
        let patient = options().patience(Duration::from_secs(600)).max_crashes(1);
        let app_of_old = probed(&bed).0.task(TaskDef::from_fn("grown", old)).middleware(Seen(Arc::clone(&seen)));
        let old = Running::start(app_of_old.worker_options(patient.clone())).await;
        let client = bed.client().await;
        let handle = client.kiq_by_name("grown", &json!({"a": 1, "b": 2}), KickOptions::new()).await.unwrap();
        tokio::time::timeout(PATIENCE, seen.notified()).await.expect("the old one looks at it first");
        old.stop().await;
        let new = Running::start(probed(&bed).0.task(TaskDef::from_fn("grown", new)).worker_options(patient)).await;
        let record = ended(&handle).await;
        assert_eq!((record.status, record.attempt), (Status::Completed, 1));
        assert_eq!(record.result.unwrap().decode::<i64>().unwrap(), 3);
        new.stop().await;
    }

    async fn a_panic_in_a_drop_fails_the_job_at_once_and_keeps_its_own_text(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
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
        let worker = Running::start(probed(&bed).0).await;
        for (options, text) in [
            (KickOptions::new(), "timed out after 50ms (timeout of the task)"),
            (KickOptions::new().timeout("80ms"), "timed out after 80ms (timeout of the call)"),
        ] {
            let call = outlasts_its_time().options(options);
            let error = ended(&worker.client.kiq(call).await.unwrap()).await.error.unwrap();
            // Names as in Python.
            let python = (error.exc_type.as_str(), error.module.as_deref(), error.message.as_str());
            assert_eq!(python, ("TimeoutError", Some("builtins"), text));
        }
        worker.stop().await;
    }

    async fn a_job_ends_however_much_it_says_and_carries(bed: Bed) {
        const MUCH: usize = 1024 * 1024;
        let worker = Running::start(probed(&bed).0).await;
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

#[tokio::test(start_paused = true)]
async fn what_this_release_does_not_know_is_left_to_a_newer_one_for_a_time_and_then_failed() {
    let patience = Duration::from_secs(10 * 60);
    let worker = Running::start(probed(&Bed::memory()).0.worker_options(options().patience(patience))).await;
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
        ("sum_once", json!({"a": 1}), KickOptions::new(), Reason::BadArguments, "argument `b`", 6000),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_leaves_room_for_what_attempts_add_and_what_does_not_fit_ends_as_failed() {
    let bed = Bed::nats().await;
    let worker = Running::start(probed(&bed).0).await;
    let client = &worker.client;
    let limit = client.backend().broker().info().max_body_bytes;
    let with_label = |bytes: usize| client.kiq(fails_twice().label("long", "l".repeat(bytes)));
    let mut bytes = limit;
    let mut handle = loop {
        match with_label(bytes).await {
            Ok(handle) => break handle,
            Err(error) => assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}"),
        }
        bytes -= 100;
    };
    // To the byte: what attempts add has less than a hundred.
    while let Ok(larger) = with_label(bytes + 8).await {
        (handle, bytes) = (larger, bytes + 8);
    }
    let record = ended(&handle).await;
    assert_eq!(
        (record.status, record.attempt),
        (Status::Failed, 2),
        "the largest that is taken is run again"
    );

    // A message that was kicked without that room cannot be run again.
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
    until("the message is gone", async || client.backend().broker().find(&id).await.unwrap().is_none()).await;
    worker.stop().await;
}
