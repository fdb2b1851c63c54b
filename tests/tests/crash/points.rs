//! A worker that dies exactly between two steps: what the next one finds, and does.

use std::time::Duration;

use aioq::Client;
use aioq::store::Status;
use aioq::tasks::KickOptions;
use aioq_tests::{Demo, Ledger, PATIENCE, lease_passes, statuses, until};
use futures_util::future::join_all;
use serde_json::json;

use crate::bed::ONE_BY_ONE;

/// The lease of its jobs.
const LEASE: Duration = Duration::from_secs(1);

/// Kicks jobs that write `start n` and `end n`; their ids.
async fn kick(client: &Client, ledger: &Ledger, jobs: std::ops::Range<usize>, ms: u64) -> Vec<String> {
    kick_task("demo.append_slow", client, ledger, jobs, ms).await
}

async fn kick_task(
    task: &str,
    client: &Client,
    ledger: &Ledger,
    jobs: std::ops::Range<usize>,
    ms: u64,
) -> Vec<String> {
    let mut ids = Vec::new();
    for n in jobs {
        let args = json!({ "path": ledger.path(), "line": n.to_string(), "ms": ms });
        let kicked = client.kiq_by_name(task, &args, KickOptions::new()).await.unwrap();
        ids.push(kicked.id().to_string());
    }
    ids
}

async fn held(client: &Client) -> u64 {
    client.backend().broker().depths(&["default".to_owned()]).await.unwrap()[0].held
}

async fn until_empty(client: &Client) {
    until("the queue is empty", async || {
        let depth = client.backend().broker().depths(&["default".to_owned()]).await.unwrap().remove(0);
        depth.ready + depth.held + depth.scheduled == 0
    })
    .await;
}

/// Starts a worker that dies at this point, and waits until it has.
async fn die(demo: &Demo, fault: &str, args: &[&str]) {
    let mut worker = demo.worker_with_fault(fault, args).await;
    assert_eq!(worker.ended_within(PATIENCE).await.code(), None, "it aborts");
    assert!(worker.log().contains("fault point"), "where it should: {}", worker.log());
}

/// Each of these jobs has completed, and exactly one record says so.
async fn assert_completed_once(demo: &Demo, ids: &[String]) {
    let statuses = statuses(demo.url(), demo.prefix()).await;
    for id in ids {
        assert_eq!(statuses.get(id).map(Vec::as_slice), Some(&["completed".to_owned()][..]), "{id}");
    }
}

/// How often each job ran to its end, if workers die at these points one after the other and
/// another does the rest; `starts` is how often the bodies began in all.
async fn runs_after(faults: &[&str]) -> (Vec<usize>, usize) {
    const JOBS: usize = 6;
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let ids = kick(&client, &ledger, 0..JOBS, 0).await;
    for fault in faults {
        die(&demo, fault, &ONE_BY_ONE).await;
    }
    let worker = demo.worker(&ONE_BY_ONE).await;
    until_empty(&client).await;
    assert_completed_once(&demo, &ids).await;
    worker.stop().await;
    let starts = ledger.lines().iter().filter(|line| line.starts_with("start")).count();
    ((0..JOBS).map(|n| ledger.count(&format!("end {n}"))).collect(), starts)
}

#[tokio::test]
async fn a_worker_that_dies_before_it_looks_at_a_job_repeats_nothing() {
    assert_eq!(runs_after(&["fetched:3"]).await, (vec![1; 6], 6));
}

#[tokio::test]
async fn a_worker_that_dies_just_before_a_body_repeats_nothing() {
    assert_eq!(runs_after(&["started:3"]).await, (vec![1; 6], 6));
}

#[tokio::test]
async fn a_worker_that_dies_with_a_claim_repeats_nothing() {
    // Only what is delivered again is claimed.
    assert_eq!(runs_after(&["started:3", "claimed:1"]).await, (vec![1; 6], 6));
}

#[tokio::test]
async fn a_worker_that_dies_before_it_saves_repeats_that_one_job() {
    let (mut runs, starts) = runs_after(&["ran:3"]).await;
    runs.sort_unstable();
    assert_eq!((runs, starts), (vec![1, 1, 1, 1, 1, 2], 7));
}

#[tokio::test]
async fn a_worker_that_dies_between_save_and_ack_repeats_nothing() {
    assert_eq!(runs_after(&["saved:3"]).await, (vec![1; 6], 6));
}

#[tokio::test]
async fn a_worker_that_dies_with_its_last_ack_repeats_nothing() {
    assert_eq!(runs_after(&["acked:3"]).await, (vec![1; 6], 6));
}

#[tokio::test]
async fn workers_that_die_one_after_the_other_repeat_only_what_was_not_saved() {
    let (mut runs, starts) = runs_after(&["saved:1", "ran:1", "fetched:1", "acked:1", "claimed:1"]).await;
    runs.sort_unstable();
    assert_eq!((runs, starts), (vec![1, 1, 1, 1, 1, 2], 7));
}

/// A job that fails once, whose workers die at these points: its attempts run once each.
async fn assert_two_attempts_after(faults: &[&str]) {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let args = json!({ "key": "runs", "failures": 1, "dir": demo.path("") });
    let id = client.kiq_by_name("demo.flaky", &args, KickOptions::new()).await.unwrap().id().clone();
    for fault in faults {
        die(&demo, fault, &ONE_BY_ONE).await;
    }
    let worker = demo.worker(&ONE_BY_ONE).await;
    until_empty(&client).await;
    let record = client.jobs().get(&id).await.unwrap();
    assert_eq!((record.status, record.attempt, record.errors.len()), (Status::Completed, 2, 1));
    assert_eq!(std::fs::metadata(demo.path("runs")).unwrap().len(), 2, "each attempt ran once");
    assert_completed_once(&demo, &[id.to_string()]).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_retry_that_was_announced_and_not_kicked_runs_once() {
    assert_two_attempts_after(&["announced:1"]).await;
}

#[tokio::test]
async fn a_retry_that_was_kicked_while_the_attempt_before_was_not_acked_runs_once() {
    assert_two_attempts_after(&["replaced:1"]).await;
}

#[tokio::test]
async fn a_retry_runs_once_although_worker_after_worker_dies_on_its_way() {
    // The second one finishes the move of the first; the next two die before the body of the second
    // attempt, the last one after it.
    assert_two_attempts_after(&["announced:1", "replaced:1", "started:1", "claimed:1", "saved:1"]).await;
}

/// A job of a task that chose when it is acked: how often its body began and ended, and what its
/// record says.
type Fate = (usize, usize, Option<Status>);

/// What becomes of a job of this task whose worker is struck there, while others of it go on;
/// `None` is killed in the middle of the body.
async fn fate(task: &str, fault: Option<&str>) -> Fate {
    const JOBS: usize = 6;
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let ids = match fault {
        Some(fault) => {
            let ids = kick_task(task, &client, &ledger, 0..JOBS, 0).await;
            die(&demo, fault, &ONE_BY_ONE).await;
            ids
        }
        None => {
            let worker = demo.worker(&ONE_BY_ONE).await;
            let mut ids = kick_task(task, &client, &ledger, 0..1, 1500).await;
            until("it is in the body", async || ledger.count("start 0") == 1).await;
            worker.kill().await;
            ids.extend(kick_task(task, &client, &ledger, 1..JOBS, 0).await);
            ids
        }
    };
    let next = demo.worker(&ONE_BY_ONE).await;
    until_empty(&client).await;
    next.stop().await;
    let mut fates = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let record = client.jobs().get(&id.as_str().into()).await;
        let status = record.map(|record| record.status).ok();
        fates.push((ledger.count(&format!("start {n}")), ledger.count(&format!("end {n}")), status));
    }
    // All others are as if nothing had been.
    let usual = (1, 1, Some(Status::Completed));
    let mut unusual = fates.into_iter().filter(|fate| *fate != usual);
    let fate = unusual.next().unwrap_or(usual);
    assert_eq!(unusual.next(), None, "{task}, {fault:?}");
    fate
}

/// The fates of jobs of this task, each struck at one of these points in a worker of its own.
async fn fates<const N: usize>(task: &str, faults: [Option<&str>; N]) -> [Fate; N] {
    let fates = join_all(faults.map(|fault| fate(task, fault))).await;
    fates.try_into().unwrap()
}

#[tokio::test]
async fn a_job_acked_on_receive_is_lost_rather_than_repeated() {
    let struck =
        [Some("fetched:3"), Some("claimed:3"), Some("acked:3"), Some("started:3"), None, Some("ran:3")];
    let [fetched, claimed, acked, started, running, ran] = fates("demo.append_on_receive", struck).await;
    // It comes again as long as nobody has said that it starts.
    assert_eq!(fetched, (1, 1, Some(Status::Completed)));
    // Then it never starts again, whether its ack was sent or not: its last sign is that it runs.
    let unfinished = Some(Status::Running);
    assert_eq!([claimed, acked, started], [(0, 0, unfinished); 3]);
    assert_eq!(running, (1, 0, unfinished));
    assert_eq!(ran, (1, 1, unfinished));
}

#[tokio::test]
async fn a_job_acked_after_its_run_comes_again_or_loses_its_result() {
    let struck = [Some("fetched:3"), Some("started:3"), None, Some("ran:3"), Some("acked:3")];
    let [fetched, started, running, ran, acked] = fates("demo.append_after_run", struck).await;
    let completed = Some(Status::Completed);
    assert_eq!([fetched, started], [(1, 1, completed); 2]);
    assert_eq!(running, (2, 1, completed));
    assert_eq!(ran, (2, 2, completed));
    // The ack may not have left the process.
    assert!([(1, 1, None), (2, 2, completed)].contains(&acked), "{acked:?}");
}

#[tokio::test]
async fn a_job_acked_on_receive_goes_on_in_a_worker_that_was_frozen() {
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let worker = demo.worker(&ONE_BY_ONE).await;
    let ids = kick_task("demo.append_on_receive", &client, &ledger, 0..1, 500).await;
    until("it is in the body", async || ledger.count("start 0") == 1).await;
    worker.freeze();
    let next = demo.worker(&ONE_BY_ONE).await;
    // It would come again by then, if it had a lease.
    lease_passes(&client, LEASE).await;
    assert_eq!(next.stop().await, 0, "nobody else gets it");
    worker.thaw();
    until("it ends", async || ledger.count("end 0") == 1).await;
    worker.stop().await;
    assert_eq!(ledger.lines(), ["start 0", "end 0"]);
    assert_completed_once(&demo, &ids).await;
}

#[tokio::test]
async fn innocent_jobs_that_dying_workers_had_fetched_are_no_poison() {
    const JOBS: usize = 400;
    let args = ["--ack-wait", "1s", "--concurrency", "4", "--max-crashes", "2"];
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let ids = kick(&client, &ledger, 0..JOBS, 5).await;
    let mut fetched = 0;
    for _ in 0..4 {
        // Soon enough that what it holds is delivered again and again, late enough that it fetches
        // ahead.
        die(&demo, "saved:60", &args).await;
        fetched += held(&client).await;
    }
    assert!(fetched > 16, "they died with jobs that they had not started: {fetched} held");
    let worker = demo.worker(&args).await;
    until_empty(&client).await;
    worker.stop().await;
    println!("{fetched} jobs were held by those that died");
    assert_completed_once(&demo, &ids).await;
    assert!((0..JOBS).all(|n| ledger.count(&format!("end {n}")) > 0));
}
