//! Worker processes and servers that die, and the jobs that they had.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aioq::error::Reason;
use aioq::store::Status;
use aioq::tasks::KickOptions;
use aioq_tests::{Demo, NatsServer, PATIENCE, until};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::worker::{append_slow, end, until_empty, until_written};

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

/// Lets a job that kills its process run beside others that take longer than it, with a worker that
/// is started anew after each death.
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
