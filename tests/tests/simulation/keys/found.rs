//! Defects of keys that seeds have brought to light, each by itself.

use std::sync::Arc;
use std::time::Duration;

use aioq::prelude::*;
use aioq::store::{Expect, JobRecord, Status};
use aioq::testing::TestClock;
use aioq::{ErrorKind, JobId};
use aioq_tests::faults::{Fact, Fault};
use tokio::time::{Instant, sleep};

use super::tasks::{Key, MAX};
use crate::bodies::Kind;
use crate::found::{SOON, Scene};
use crate::workers::ACK_WAIT;

const FREED_AT_START: Key = Key(Key::UNIQUE.end - 1);
const DEBOUNCED: Key = Key(Key::DEBOUNCED.start);
const DEBOUNCED_AT_MOST: Key = Key(Key::DEBOUNCED.end - 1);

async fn trigger(client: &Client, key: Key, number: usize, millis: u64) -> JobId {
    key.kick(client, number, Kind::WELL, millis).await.unwrap().id().clone()
}

#[tokio::test(start_paused = true)]
async fn a_debounced_job_that_has_begun_is_finished_although_the_next_burst_has_begun() {
    let scene = Scene::new().await;
    let worker = scene.worker().await;
    let first = trigger(&scene.client, DEBOUNCED, 1, 300).await;
    scene.runs(1).await;
    assert_eq!(worker.crash().await, None);
    let second = trigger(&scene.client, DEBOUNCED, 2, 300).await;
    assert_ne!(first, second);
    let worker = scene.worker().await;
    sleep(SOON).await;
    for id in [first, second] {
        assert_eq!(scene.status(id.as_str()).await, Status::Completed, "{id}");
    }
    assert_eq!(worker.stop().await, None);
}

#[tokio::test(start_paused = true)]
async fn triggers_of_a_clock_that_is_ahead_put_no_job_off_for_longer_than_its_maximum() {
    let (scene, clock) = (Scene::new().await, TestClock::new());
    clock.set_ahead(MAX * 2);
    let ahead = Client::connect(scene.backend.clone().clock(&clock)).await.unwrap();
    let worker = scene.worker().await;
    let (begun, first) = (Instant::now(), trigger(&scene.client, DEBOUNCED_AT_MOST, 0, 0).await);
    let mut number = 0;
    while scene.stage.runs().is_empty() && begun.elapsed() < 10 * MAX {
        number += 1;
        assert_eq!(trigger(&ahead, DEBOUNCED_AT_MOST, number, 0).await, first);
        sleep(Duration::from_millis(500)).await;
    }
    assert!(begun.elapsed() < MAX + Duration::from_secs(1), "{:?}", begun.elapsed());
    sleep(SOON).await;
    assert_eq!(scene.status(first.as_str()).await, Status::Completed);
    assert_eq!(worker.stop().await, None);
}

/// The worker of the replaced ticket may find the key taken, and cancel the job late.
#[tokio::test(start_paused = true)]
async fn the_newest_arguments_of_a_burst_run_under_a_record_that_refuses_a_late_end() {
    let scene = Scene::new().await;
    let worker = scene.worker().await;
    let job = trigger(&scene.client, DEBOUNCED, 1, 300).await;
    assert_eq!(trigger(&scene.client, DEBOUNCED, 2, 300).await, job);
    scene.runs(1).await;
    let cancelled = JobRecord::unreadable(job.clone(), "default", Status::Cancelled);
    let late = scene.backend.jobs().unwrap().put(Arc::new(cancelled), Expect::Absent, None).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
    sleep(SOON).await;
    assert_eq!(scene.status(job.as_str()).await, Status::Completed);
    assert_eq!(worker.stop().await, None);
}

/// The first worker closes the burst of two triggers and dies before it has the newer arguments.
#[tokio::test(start_paused = true)]
async fn older_arguments_do_not_run_after_those_of_the_next_burst() {
    let scene = Scene::new().await;
    let worker = scene.worker().await;
    worker.link().plan("replace", [Fault::Refused; 100]);
    let first = trigger(&scene.client, DEBOUNCED, 1, 0).await;
    assert_eq!(trigger(&scene.client, DEBOUNCED, 2, 0).await, first);
    let is_closed = || scene.faults.journal().lines().iter().any(|line| matches!(line.fact, Fact::Wrote(..)));
    while !is_closed() {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(worker.crash().await, None);
    let ticket = scene.client.dequeue(&["default"], ACK_WAIT).await.unwrap().unwrap();
    ticket.receipt.release(SOON).await.unwrap();
    let next = trigger(&scene.client, DEBOUNCED, 3, 0).await;
    let worker = scene.worker().await;
    sleep(2 * SOON).await;
    assert_eq!(scene.status(next.as_str()).await, Status::Completed);
    assert_eq!(scene.status(first.as_str()).await, Status::Cancelled);
    let arguments: Vec<usize> = scene.stage.runs().iter().map(|run| run.argument).collect();
    assert_eq!(arguments, [3]);
    assert_eq!(worker.stop().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_given_back_after_it_had_freed_its_key_runs_although_another_one_has_the_key() {
    let scene = Scene::new().await;
    let first = trigger(&scene.client, FREED_AT_START, 1, 0).await;
    // As a worker leaves them that freed the key and stopped before the body began.
    let mut record = JobRecord::unreadable(first.clone(), "default", Status::Pending);
    (record.attempt, record.worker_id) = (1, Some("gone".into()));
    scene.backend.jobs().unwrap().put(Arc::new(record), Expect::Absent, None).await.unwrap();
    let entry = scene.backend.kv().scan("unique.").await.unwrap().remove(0);
    assert!(scene.backend.kv().delete(&entry.key, Expect::Any).await.unwrap());
    let second = trigger(&scene.client, FREED_AT_START, 2, 0).await;
    assert_ne!(first, second);
    let worker = scene.worker().await;
    sleep(SOON).await;
    for id in [first, second] {
        assert_eq!(scene.status(id.as_str()).await, Status::Completed, "{id}");
    }
    assert_eq!(worker.stop().await, None);
}
