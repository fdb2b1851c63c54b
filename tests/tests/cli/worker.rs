//! The command `worker`: signals, grace, bursts, blocked threads and bad messages.

use aioq::Client;
use aioq::error::Reason;
use aioq::store::{JobRecord, Status};
use aioq_tests::{Demo, Ledger, PATIENCE, until, until_within};
use rustix::process::Signal;
use serde_json::json;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

pub(crate) fn append_slow(ledger: &Ledger, line: &str, ms: u64) -> String {
    json!({ "path": ledger.path(), "line": line, "ms": ms }).to_string()
}

/// The record of a job that has ended.
pub(crate) async fn end(client: &Client, id: &str) -> JobRecord {
    let handle = client.handle::<()>(id).await.unwrap();
    timeout(PATIENCE, handle.wait()).await.expect("the job ends").unwrap()
}

pub(crate) async fn until_empty(client: &Client, limit: Duration) {
    until_within(limit, "the queue is empty", async || {
        let depth = client.backend().broker().depths(&["default".to_owned()]).await.unwrap().remove(0);
        depth.ready + depth.held + depth.scheduled == 0
    })
    .await;
}

pub(crate) async fn until_written(ledger: &Ledger, line: &str) {
    until(line, async || ledger.count(line) > 0).await;
}

#[tokio::test]
async fn burst_runs_what_is_ready_and_ends_by_itself() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let ran = demo.run(&["worker", "--burst"]).await;
    assert_eq!(ran.code, Some(0), "an empty queue: {ran:?}");

    let later = demo.kick("demo.add", r#"{"a": 1, "b": 2}"#, &["--delay", "1h"]).await;
    let now = demo.run(&["kiq", "demo.sleep", "--args", r#"{"ms": 20}"#, "--count", "500"]).await;
    let ran = demo.run(&["worker", "--burst", "--concurrency", "10"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stderr.contains("worker stopped jobs=500 "), "{ran:?}");
    for id in now.lines() {
        assert_eq!(client.jobs().get(&id.into()).await.unwrap().status, Status::Completed);
    }
    assert_eq!(client.jobs().get(&later.as_str().into()).await.unwrap().status, Status::Scheduled);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_nothing_and_runs_nothing_twice() {
    const JOBS: usize = 800;
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let file = demo.path("calls");
    let calls: Vec<_> = (0..JOBS).map(|n| append_slow(&ledger, &n.to_string(), 25)).collect();
    std::fs::write(&file, calls.join("\n")).unwrap();
    // About 16 jobs are prefetched; with the default lease of 30 s they would be missed for long.
    let mut first = demo.worker(&["--concurrency", "8"]).await;
    demo.run(&["kiq", "demo.append_slow", "--args-file", file.to_str().unwrap()]).await.lines();
    until_written(&ledger, "start 100").await;
    let second = demo.worker(&[]).await;

    let told = Instant::now();
    first.terminate();
    assert_eq!(first.ended_within(Duration::from_secs(10)).await.code(), Some(0));
    println!("the worker ended after {:?}", told.elapsed());
    until_empty(&client, Duration::from_secs(10)).await;
    println!("the other had run the rest after {:?}", told.elapsed());
    assert!(told.elapsed() < Duration::from_secs(5), "what was prefetched is given back at once");

    let lines = ledger.lines();
    assert_eq!(lines.len(), 2 * JOBS, "no job was cut off, none ran twice");
    assert_eq!(lines.iter().collect::<HashSet<_>>().len(), 2 * JOBS);
    assert!(second.stop().await >= 100);
}

#[tokio::test]
async fn signals_at_once_are_one_and_a_later_one_ends_the_worker_with_1() {
    let demo = Demo::new().await;
    let ledger = demo.ledger();
    let mut worker = demo.worker(&["--log-format", "json"]).await;
    demo.kick("demo.panic", "{}", &[]).await;
    demo.kick("demo.append_slow", &append_slow(&ledger, "a", 60_000), &[]).await;
    until_written(&ledger, "start a").await;
    worker.says("panicked").await;
    // A terminal's Ctrl-C, a parent that passes it on, and a supervisor's stop.
    let told = Instant::now();
    worker.signal(Signal::INT);
    worker.says("stopping: ").await;
    while told.elapsed() < Duration::from_millis(900) {
        worker.terminate();
        sleep(Duration::from_millis(10)).await;
    }
    assert!(worker.is_running(), "the job has its grace period");
    until("a later signal ends it", async || {
        worker.signal_if_running(Signal::TERM);
        !worker.is_running()
    })
    .await;
    assert_eq!(worker.ended_within(PATIENCE).await.code(), Some(1));
    assert!(told.elapsed() < Duration::from_secs(10), "not only when the grace period is over");
    for line in worker.log().lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        assert!(line["fields"]["message"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn a_burst_waits_for_jobs_of_the_dead_and_says_how_many_it_leaves_to_the_living() {
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let worker = demo.worker(&["--ack-wait", "2s"]).await;
    let id = demo.kick("demo.append_slow", &append_slow(&ledger, "a", 100), &["--id", "a"]).await;
    until("it has run", async || ledger.count("end a") == 1).await;
    end(&client, &id).await;
    demo.kick("demo.append_slow", &append_slow(&ledger, "b", 300_000), &[]).await;
    until_written(&ledger, "start b").await;
    let held = async || {
        let queues = client.queues().list().await.unwrap();
        (queues[0].depth, queues[0].held, queues[0].counts.get(&Status::Running).copied())
    };
    assert_eq!(held().await, (0, 1, None), "in its first half second, nobody says that it runs");
    let ran = demo.run(&["worker", "--burst"]).await;
    assert!(ran.stderr.contains("left to them jobs=1"), "{ran:?}");

    worker.kill().await;
    // As if it had died half a minute ago.
    for entry in client.backend().kv().scan("worker.").await.unwrap() {
        client.backend().kv().delete(&entry.key, aioq::store::Expect::Any).await.unwrap();
    }
    let calls = std::time::Instant::now();
    let mut burst = demo.worker(&["--burst", "--grace", "10ms"]).await;
    burst.says("waiting for jobs of workers that are gone").await;
    until("it comes back", async || ledger.count("start b") == 2).await;
    println!("it came back {:?} after the kill", calls.elapsed());
    burst.terminate();
    burst.ended_within(PATIENCE).await;
}

#[tokio::test]
async fn a_job_that_outlives_the_grace_period_runs_elsewhere_as_the_same_attempt() {
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let mut first = demo.worker(&["--grace", "300ms"]).await;
    let id = demo.kick("demo.append_slow", &append_slow(&ledger, "a", 2000), &[]).await;
    until_written(&ledger, "start a").await;
    let second = demo.worker(&[]).await;
    first.terminate();
    assert_eq!(first.ended_within(Duration::from_secs(5)).await.code(), Some(0));

    let record = end(&client, &id).await;
    assert_eq!((record.status, record.attempt), (Status::Completed, 1));
    assert_eq!(record.worker_id, Some(second.id().into()));
    assert_eq!(ledger.lines(), ["start a", "start a", "end a"]);
}

#[tokio::test]
async fn a_blocking_body_that_outlives_the_grace_period_is_cut_off_and_exits_with_1() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let mut worker = demo.worker(&["--grace", "100ms", "--ack-wait", "1s"]).await;
    let id = demo.kick("demo.spin", r#"{"ms": 6000}"#, &[]).await;
    until("the job runs", async || {
        client.jobs().get(&id.as_str().into()).await.unwrap().status == Status::Running
    })
    .await;
    worker.terminate();
    assert_eq!(worker.ended_within(Duration::from_secs(5)).await.code(), Some(1));
}

#[tokio::test]
async fn jobs_that_block_every_thread_longer_than_their_lease_run_once() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let threads = std::thread::available_parallelism().unwrap().get();
    let first = demo.worker(&["--ack-wait", "1s"]).await;
    let hogs =
        demo.run(&["kiq", "demo.hog", "--args", r#"{"ms": 3000}"#, "--count", &threads.to_string()]).await;
    until("all are held", async || {
        let depth = client.backend().broker().depths(&["default".to_owned()]).await.unwrap().remove(0);
        depth.held == threads as u64
    })
    .await;
    let second = demo.worker(&["--ack-wait", "1s"]).await;
    for id in hogs.lines() {
        let record = end(&client, id).await;
        assert_eq!((record.status, record.attempt), (Status::Completed, 1));
        assert_eq!(record.worker_id, Some(first.id().into()));
        assert!(record.execution_time >= Duration::from_secs(3));
    }
    let log = first.log();
    let warnings = log.lines().filter(|line| line.contains("blocks a thread") && line.contains("demo.hog"));
    assert_eq!(warnings.count(), threads, "each is told once:\n{log}");
    assert_eq!((first.stop().await, second.stop().await), (threads as u64, 0));
}

#[tokio::test]
async fn a_worker_whose_threads_are_all_blocked_still_answers_who_calls_jobs_off() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let threads = std::thread::available_parallelism().unwrap().get();
    let worker = demo.worker(&[]).await;
    demo.run(&["kiq", "demo.hog", "--args", r#"{"ms": 8000}"#, "--count", &threads.to_string()]).await;
    until("all are held", async || {
        let depth = client.backend().broker().depths(&["default".to_owned()]).await.unwrap().remove(0);
        depth.held == threads as u64
    })
    .await;
    let waiting = demo.kick("demo.add", r#"{"a": 1, "b": 2}"#, &["--delay", "1h"]).await;
    let asked = Instant::now();
    assert!(client.jobs().cancel(&waiting.as_str().into()).await.unwrap());
    assert!(asked.elapsed() < Duration::from_secs(4), "the bodies block for longer than that");
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_is_frozen_makes_no_cancel_certain() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let worker = demo.worker(&[]).await;
    let waiting = demo.kick("demo.add", r#"{"a": 1, "b": 2}"#, &["--delay", "1h"]).await;
    worker.freeze();
    let id = waiting.as_str().into();
    let error = client.jobs().cancel(&id).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (aioq::ErrorKind::Deadline, Some(&id)));
    assert!(error.to_string().contains(&worker.id()), "it names the worker: {error}");
    assert_eq!(client.jobs().get(&id).await.unwrap().status, Status::Scheduled);
    worker.thaw();
    assert!(client.jobs().cancel(&id).await.unwrap());
    worker.stop().await;
}

#[tokio::test]
async fn a_job_longer_than_its_lease_runs_once() {
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let workers = [demo.worker(&["--ack-wait", "1s"]).await, demo.worker(&["--ack-wait", "1s"]).await];
    let slow = demo.kick("demo.append_slow", &append_slow(&ledger, "a", 3500), &[]).await;
    let spin = demo.kick("demo.spin", r#"{"ms": 3500}"#, &[]).await;
    for id in [slow, spin] {
        let record = end(&client, &id).await;
        assert_eq!((record.status, record.attempt), (Status::Completed, 1));
    }
    assert_eq!(ledger.lines(), ["start a", "end a"]);
    let [one, two] = workers;
    assert_eq!(one.stop().await + two.stop().await, 2, "each was delivered once");
}

#[tokio::test]
async fn a_message_that_is_none_becomes_a_failed_record_and_the_worker_goes_on() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let mut worker = demo.worker(&[]).await;
    let raw = async_nats::connect(demo.url()).await.unwrap();
    for (id, body) in [("bad1", &b"\xff\x00garbage"[..]), ("bad2", b""), ("bad3", b"{\"task_name\": 7}")] {
        raw.publish(format!("{}.q.default.normal.{id}", demo.prefix()), body.into()).await.unwrap();
    }
    raw.flush().await.unwrap();
    for id in ["bad1", "bad2", "bad3"] {
        until("the record is there", async || {
            client.jobs().get(&id.into()).await.is_ok_and(|record| record.status == Status::Failed)
        })
        .await;
        let record = client.jobs().get(&id.into()).await.unwrap();
        assert_eq!((record.reason, record.dead_lettered), (Some(Reason::Undecodable), true));
    }
    assert_eq!(
        demo.run(&["kiq", "demo.add", "--args", r#"{"a": 1, "b": 2}"#, "--wait"]).await.lines()[1],
        "3"
    );
    until_empty(&client, PATIENCE).await;
    assert!(worker.is_running());
    let shown = demo.run(&["jobs", "get", "bad1", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_str(shown.lines()[0]).unwrap();
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("failed"), &json!("undecodable")));
}

#[tokio::test]
async fn an_idle_worker_uses_next_to_no_processor_time() {
    const SPAN: Duration = Duration::from_secs(5);
    let demo = Demo::new().await;
    let worker = demo.worker(&[]).await;
    // Once it has worked, so that what is measured is not its start.
    demo.run(&["kiq", "demo.add", "--args", r#"{"a": 1, "b": 2}"#, "--count", "200", "--wait"]).await.lines();
    let (started, used) = (Instant::now(), worker.cpu_time());
    sleep(SPAN).await;
    let share = (worker.cpu_time() - used).as_secs_f64() / started.elapsed().as_secs_f64();
    println!("an idle worker uses {:.2} % of a core", share * 100.0);
    assert!(share < 0.03, "{:.2} %", share * 100.0);
}
