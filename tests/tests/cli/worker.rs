//! Worker processes: how they end, and what becomes of jobs when they, or the server, do not end well.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aioq::store::{JobRecord, Status};
use aioq::{Client, KickOptions, Reason};
use aioq_tests::{Demo, Ledger, NatsServer, PATIENCE, until, until_within};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{sleep, timeout};

fn append_slow(ledger: &Ledger, line: &str, ms: u64) -> String {
    json!({ "path": ledger.path(), "line": line, "ms": ms }).to_string()
}

/// The record of a job that has ended.
async fn end(client: &Client, id: &str) -> JobRecord {
    let handle = client.handle::<()>(id).await.unwrap();
    timeout(PATIENCE, handle.wait()).await.expect("the job ends").unwrap()
}

async fn until_empty(client: &Client, limit: Duration) {
    until_within(limit, "the queue is empty", async || {
        let depth = client.backend().broker().depths(&["default".to_owned()]).await.unwrap().remove(0);
        depth.ready + depth.held + depth.scheduled == 0
    })
    .await;
}

async fn until_written(ledger: &Ledger, line: &str) {
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
async fn a_job_whose_worker_is_killed_runs_again_elsewhere() {
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let first = demo.worker(&["--ack-wait", "1s"]).await;
    let id = demo.kick("demo.append_slow", &append_slow(&ledger, "a", 1500), &[]).await;
    until_written(&ledger, "start a").await;
    first.kill().await;

    let killed = Instant::now();
    let second = demo.worker(&["--ack-wait", "1s"]).await;
    let record = end(&client, &id).await;
    println!("done {:?} after the kill", killed.elapsed());
    assert_eq!((record.status, record.attempt), (Status::Completed, 1));
    assert_eq!(record.worker_id, Some(second.id().into()));
    assert_eq!(ledger.lines(), ["start a", "start a", "end a"]);
    assert_eq!(second.stop().await, 1);
}

#[tokio::test]
async fn a_job_that_kills_its_process_is_failed_as_poison() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let start = async || demo.worker(&["--ack-wait", "500ms", "--max-crashes", "2"]).await;
    let id = demo.kick("demo.exit", "{}", &[]).await;
    // Two starts make it a suspect, two more prove it.
    for _ in 0..4 {
        let status = start().await.ended_within(PATIENCE).await;
        assert_eq!(status.code(), None, "a signal ends it");
        assert!(!client.jobs().get(&id.as_str().into()).await.unwrap().status.is_terminal());
    }
    let mut worker = start().await;
    let record = end(&client, &id).await;
    assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Poison)));
    assert_eq!((record.attempt, record.dead_lettered), (1, true));
    let text = record.error.unwrap().message;
    assert!(text.contains("4 times") && text.contains("2 of them with no other suspect"), "{text}");
    assert!(worker.is_running());
    assert_eq!(
        demo.run(&["kiq", "demo.add", "--args", r#"{"a": 1, "b": 2}"#, "--wait"]).await.lines()[1],
        "3"
    );
}

/// Lets a job that kills its process run beside others that take longer than it, with a worker that is started anew
/// after each death.
async fn die_beside_others(max_crashes: &str, most_deaths: usize) {
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let mut innocent = Vec::new();
    for line in ["a", "b", "c", "d", "e"] {
        innocent.push(demo.kick("demo.append_slow", &append_slow(&ledger, line, 700), &[]).await);
    }
    let bad = demo.kick("demo.exit", "{}", &[]).await;
    let mut deaths = 0;
    let worker = loop {
        let mut worker = demo.worker(&["--ack-wait", "500ms", "--max-crashes", max_crashes]).await;
        until("it dies, or the bad job is known", async || {
            let record = client.jobs().get(&bad.as_str().into()).await.unwrap();
            !worker.is_running() || record.status.is_terminal()
        })
        .await;
        if worker.is_running() {
            break worker;
        }
        deaths += 1;
        assert!(deaths <= most_deaths, "{deaths} deaths with --max-crashes {max_crashes}");
    };
    let record = end(&client, &bad).await;
    assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Poison)));
    for id in innocent {
        let record = end(&client, &id).await;
        assert_eq!((record.status, record.attempt), (Status::Completed, 1));
    }
    println!("{deaths} deaths with --max-crashes {max_crashes}");
    drop(worker);
}

#[tokio::test]
async fn jobs_beside_one_that_kills_its_process_end_completed_and_it_dies_at_most_twice_as_often_as_allowed()
{
    tokio::join!(die_beside_others("1", 2), die_beside_others("2", 4));
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

#[tokio::test(flavor = "multi_thread")]
async fn workers_outlive_a_restart_of_the_server_and_run_every_confirmed_kick() {
    let mut server = NatsServer::start().await.unwrap();
    let demo = Demo::on(&server);
    let (client, ledger) = (demo.client().await, demo.ledger());
    let mut workers = [demo.worker(&["--ack-wait", "2s"]).await, demo.worker(&["--ack-wait", "2s"]).await];
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let path = ledger.path().to_owned();
    let kicker = tokio::spawn({
        let client = client.clone();
        async move {
            let (mut confirmed, mut refused) = (Vec::new(), 0);
            for n in 0.. {
                if *stopped.borrow_and_update() {
                    break;
                }
                let line = format!("job {n}");
                let args = json!({ "path": path, "line": line });
                match client.kiq_by_name("demo.append", &args, KickOptions::new()).await {
                    Ok(_) => confirmed.push(line),
                    Err(_) => refused += 1,
                }
            }
            (confirmed, refused)
        }
    });
    for _ in 0..2 {
        let before = ledger.lines().len();
        until("jobs flow", async || ledger.lines().len() > before + 200).await;
        server.kill();
        // An outage that everybody notices.
        sleep(Duration::from_millis(700)).await;
        server.restart().await.unwrap();
    }
    let (back, before) = (Instant::now(), ledger.lines().len());
    until("jobs flow again", async || ledger.lines().len() > before + 200).await;
    println!("200 jobs ran {:?} after the server was back", back.elapsed());
    stop.send(true).unwrap();
    let (confirmed, refused) = kicker.await.unwrap();
    until_empty(&client, PATIENCE).await;

    let lines = ledger.lines();
    let ran: HashSet<_> = lines.iter().collect();
    let (kicks, twice) = (confirmed.len(), lines.len() - ran.len());
    println!("{kicks} kicks confirmed, {refused} refused, {twice} jobs ran twice");
    let lost: Vec<_> = confirmed.iter().filter(|line| !ran.contains(line)).collect();
    assert!(lost.is_empty(), "confirmed but never run: {lost:?}");
    assert!(workers.iter_mut().all(aioq_tests::DemoWorker::is_running));
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_have_ended_do_not_run_again_when_a_crashed_server_forgot_their_acks() {
    let mut server = NatsServer::start().await.unwrap();
    let demo = Demo::on(&server);
    let (client, ledger) = (demo.client().await, demo.ledger());
    let worker = demo.worker(&["--ack-wait", "1s"]).await;
    let ended = Arc::new(Mutex::new(Vec::new()));
    let kickers = (0..16).map(|kicker| {
        let (client, ended, path) = (client.clone(), Arc::clone(&ended), ledger.path().to_owned());
        tokio::spawn(async move {
            for n in 0..150 {
                let line = format!("job {kicker}.{n}");
                let args = json!({ "path": path, "line": line });
                let handle = client.kiq_by_name("demo.append", &args, KickOptions::new()).await.unwrap();
                assert_eq!(handle.wait().await.unwrap().status, Status::Completed);
                ended.lock().unwrap().push(line);
            }
        })
    });
    let kickers: Vec<_> = kickers.collect();
    let mut before = HashSet::new();
    for jobs in [400, 1000, 1600] {
        until("jobs flow", async || ended.lock().unwrap().len() > jobs).await;
        before.extend(ended.lock().unwrap().clone());
        server.kill();
        server.restart().await.unwrap();
    }
    for kicker in kickers {
        timeout(PATIENCE, kicker).await.expect("jobs flow again").unwrap();
    }
    until_empty(&client, PATIENCE).await;
    let lines = ledger.lines();
    let again: Vec<_> =
        before.iter().filter(|line| lines.iter().filter(|other| other == line).count() > 1).collect();
    println!("{} ran twice in all", lines.len() - lines.iter().collect::<HashSet<_>>().len());
    assert!(again.is_empty(), "ran again although their waiters had their results: {again:?}");
    worker.stop().await;
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
