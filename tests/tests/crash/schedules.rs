//! Schedules by the second, while workers and the server are killed.
//!
//! `AIOQ_CLOCK_SCHEDULES=1000 AIOQ_CLOCK_SECONDS=600` runs it at another size.

use std::collections::BTreeMap;
use std::time::Duration;

use aioq::schedules::{Schedule, ScheduleFilter};
use aioq::tasks::KickOptions;
use aioq::{Client, JobId, Timestamp};
use aioq_tests::{Demo, NatsServer, PATIENCE, until};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::flow::STEADY;

/// Time between two deaths.
const BETWEEN_KILLS: Duration = Duration::from_secs(3);

/// Time for which the server is away.
const AWAY: Duration = Duration::from_millis(500);

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |value| value.parse().unwrap())
}

/// The lines of the ledger: for each job, its tick and the times of its starts, in microseconds.
fn starts(demo: &Demo) -> BTreeMap<JobId, (i64, Vec<i64>)> {
    let mut starts: BTreeMap<JobId, (i64, Vec<i64>)> = BTreeMap::new();
    for line in demo.ledger().lines() {
        let mut parts = line.split(' ');
        let id = JobId::from(parts.next().unwrap());
        let [tick, start] = [(); 2].map(|()| parts.next().unwrap().parse().unwrap());
        let entry = starts.entry(id).or_insert((tick, Vec::new()));
        assert_eq!(entry.0, tick, "a job has one tick");
        entry.1.push(start);
    }
    starts
}

/// Kills or stops a worker every few seconds, and the server twice.
async fn disturb(demo: &Demo, server: &mut NatsServer, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(demo.worker(&STEADY).await);
    }
    let (rounds, mut round) = (seconds / BETWEEN_KILLS.as_secs(), 0);
    while Instant::now() < end {
        let next = Instant::now() + BETWEEN_KILLS;
        round += 1;
        if round == rounds / 3 || round == 2 * rounds / 3 {
            server.kill();
            sleep(AWAY).await;
            server.restart().await.unwrap();
        } else if round % 2 == 0 {
            workers.remove(0).kill().await;
            workers.push(demo.worker(&STEADY).await);
        } else {
            workers.remove(0).stop().await;
            workers.push(demo.worker(&STEADY).await);
        }
        sleep_until(next.min(end)).await;
    }
    // The last ones let every job end.
    let client = demo.client().await;
    for view in client.schedules().list(ScheduleFilter::new().task("beat")).await.unwrap() {
        client.schedules().pause(&view.id).await.unwrap();
    }
    until("all jobs have ended", async || {
        let depths = client.backend().broker().depths(&["default".to_owned()]).await.unwrap();
        depths.iter().all(|depth| depth.ready + depth.held + depth.scheduled + depth.retrying == 0)
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
}

async fn put_all(client: &Client, demo: &Demo, schedules: u64) {
    let args = json!({ "path": demo.ledger().path() });
    for n in 0..schedules {
        let put = client.schedules();
        let options = KickOptions::new();
        put.put_by_name(&format!("s-{n:04}"), Schedule::every("1s"), "beat", &args, options).await.unwrap();
    }
}

#[tokio::test]
async fn a_tick_that_was_kicked_and_not_settled_is_settled_by_another_worker() {
    for fault in ["ticked:2:kill", "ticked:1:stop"] {
        let demo = Demo::new().await.of_clockwork();
        let client = demo.client().await;
        let struck = demo.worker_with_fault(fault, &STEADY).await;
        put_all(&client, &demo, 1).await;
        until("it is struck", async || struck.is_frozen() || struck.log().contains("fault point")).await;
        let other = demo.worker(&STEADY).await;
        let view = async || client.schedules().get("s-0000").await.unwrap();
        until("it ticks on", async || view().await.counts.fired >= 4).await;
        client.schedules().pause("s-0000").await.unwrap();
        let fired = view().await.counts.fired;
        until("all have run", async || starts(&demo).len() as u64 >= fired).await;
        if struck.is_frozen() {
            // Its kick is long settled.
            struck.thaw();
        }
        let again = view().await.counts.fired;
        assert_eq!((again, starts(&demo).len() as u64), (fired, fired), "{fault}");
        other.stop().await;
        drop(struck);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tick_runs_once_whoever_is_killed() {
    let schedules = from_env("AIOQ_CLOCK_SCHEDULES", 30);
    let seconds = from_env("AIOQ_CLOCK_SECONDS", 24);
    let mut server = NatsServer::start().await.unwrap();
    let demo = Demo::on(&server).of_clockwork();
    let client = demo.client().await;
    put_all(&client, &demo, schedules).await;
    disturb(&demo, &mut server, seconds).await;
    let starts = starts(&demo);
    let mut ticks: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (id, (tick, times)) in &starts {
        assert!(times.iter().all(|start| start >= tick), "{id} started before its tick: {times:?}");
        let (schedule, _) = id.as_str().split_once('@').unwrap();
        ticks.entry(schedule.to_owned()).or_default().push(*tick);
    }
    let (mut fired, mut missed) = (0, 0);
    for view in client.schedules().list(ScheduleFilter::new()).await.unwrap() {
        let Some(ticks) = ticks.get(&view.id) else {
            assert!(!view.id.starts_with("s-"), "{} has never run", view.id);
            continue;
        };
        assert_eq!(ticks.len() as u64, view.counts.fired, "{view:?}");
        if view.id.starts_with("s-") {
            let first = *ticks.iter().min().unwrap();
            let settled = (view.settled_until.as_micros() - first) / 1_000_000 + 1;
            let before_first = view.counts.fired + view.counts.missed - u64::try_from(settled).unwrap();
            // Until the first worker was there.
            assert!(before_first < PATIENCE.as_secs(), "{view:?}");
            assert_eq!(view.counts.skipped, 0);
            fired += view.counts.fired;
            missed += view.counts.missed;
        }
    }
    let mut lateness: Vec<i64> =
        starts.values().map(|(tick, times)| times.iter().min().unwrap() - tick).collect();
    lateness.sort_unstable();
    let at = |share: usize| lateness[(lateness.len() - 1) * share / 100];
    let repeats: usize = starts.values().map(|(_, times)| times.len() - 1).sum();
    println!(
        "{schedules} schedules, {seconds} s: {fired} fired, {missed} missed, {repeats} repeated bodies; \
         late by {} / {} / {} us (p50, p90, p99), now {}",
        at(50),
        at(90),
        at(99),
        Timestamp::now()
    );
    assert!(fired > schedules * seconds / 2, "{fired}");
}
