//! Ended jobs that are forgotten in time.

use std::time::Duration;

use aioq::ErrorKind;
use aioq::prelude::*;
use aioq::store::Status;
use aioq_tests::{Bed, Probe, Running};

use crate::bodies::{add, doomed};
use crate::{app, worker};

#[task(keep = "1m", keep_failed = "2m")]
async fn brief(fails: bool) -> Result<(), String> {
    if fails { Err("no".to_owned()) } else { Ok(()) }
}

/// Lets virtual time pass: at once, but for the last minutes, in which the worker does its rounds.
async fn pass(span: Duration) {
    const ROUNDS: Duration = Duration::from_secs(300);
    tokio::time::advance(span - ROUNDS).await;
    tokio::time::sleep(ROUNDS).await;
}

#[tokio::test(start_paused = true)]
async fn ended_jobs_are_forgotten_in_time() {
    let (bed, probe) = (Bed::memory(), Probe::default());
    let running = worker(&bed, &probe).await;
    let client = bed.client().await;
    let completed = client.kiq(add(1, 2)).await.unwrap();
    completed.result().await.unwrap();
    let failed = client.kiq(doomed("no")).await.unwrap();
    failed.wait().await.unwrap();
    pass(Duration::from_secs(23 * 3600)).await;
    assert_eq!(completed.status().await.unwrap(), Status::Completed);
    pass(Duration::from_secs(2 * 3600)).await;
    assert_eq!(completed.status().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(failed.status().await.unwrap(), Status::Failed);
    pass(Duration::from_secs(6 * 24 * 3600)).await;
    assert_eq!(failed.status().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(client.queues().stats().await.unwrap().is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_ended_jobs_are_kept_than_said() {
    let (bed, probe) = (Bed::memory(), Probe::default());
    let retention = aioq::store::Retention::new().max_completed(10).max_failed(3);
    let running = Running::start(app(&bed, &probe).retention(retention)).await;
    let client = bed.client().await;
    for _ in 0..20 {
        client.kiq(add(1, 2)).await.unwrap().result().await.unwrap();
        client.kiq(doomed("no")).await.unwrap().wait().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert_eq!(counts(&client).await, [(Status::Completed, 10), (Status::Failed, 3)]);
    running.stop().await;
}

async fn counts(client: &Client) -> Vec<(Status, u64)> {
    client.queues().stats().await.unwrap()["default"].clone().into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn jobs_that_ended_just_now_are_kept_beyond_the_number_up_to_ten_times() {
    let (bed, probe) = (Bed::memory(), Probe::default());
    let retention = aioq::store::Retention::new().max_completed(10).max_failed(1);
    let running = Running::start(app(&bed, &probe).retention(retention)).await;
    let client = bed.client().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    for _ in 0..20 {
        client.kiq(add(1, 2)).await.unwrap().result().await.unwrap();
        client.kiq(doomed("no")).await.unwrap().wait().await.unwrap();
    }
    // Records are removed once a minute.
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(counts(&client).await, [(Status::Completed, 20), (Status::Failed, 10)]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(counts(&client).await, [(Status::Completed, 10), (Status::Failed, 1)]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_may_say_how_long_its_jobs_are_kept() {
    let (bed, probe) = (Bed::memory(), Probe::default());
    let running = worker(&bed, &probe).await;
    let client = bed.client().await;
    let completed = client.kiq(brief(false)).await.unwrap();
    completed.result().await.unwrap();
    let failed = client.kiq(brief(true)).await.unwrap();
    failed.wait().await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(completed.status().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(failed.status().await.unwrap(), Status::Failed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(failed.status().await.unwrap_err().kind(), ErrorKind::NotFound);
    running.stop().await;
}
