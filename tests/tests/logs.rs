//! Log lines of a worker and of a waiting client. The log of the process is captured, so these
//! tests have a program of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aioq::error::Reason;
use aioq::prelude::*;
use aioq::worker::WorkerOptions;
use aioq_tests::{Bed, Running, capture_logs, ended, logged};

static LET_GO: AtomicBool = AtomicBool::new(false);
static GOING_ON: AtomicUsize = AtomicUsize::new(0);

/// Blocks its thread until the test lets it go, whatever it is told.
#[task(queue = "deaf", timeout = "50ms")]
fn deaf() {
    GOING_ON.fetch_add(1, Ordering::SeqCst);
    while !LET_GO.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[task(queue = "unheard")]
async fn unheard() {}

#[task(queue = "minute")]
async fn succeeds() {}

/// A worker on this queue with `slots` slots, and as many threads.
async fn start(queue: &str, slots: usize) -> Running {
    let options = WorkerOptions::new().queues([queue]).concurrency(slots).blocking_threads(slots);
    let options = options.grace(Duration::from_millis(50));
    Running::start(Bed::memory().app().worker_options(options)).await
}

#[task(queue = "hidden")]
async fn waits_in_a_spawned_task(#[inject] client: Client) -> TaskResult<()> {
    let never = client.kiq(unheard().queue("never")).await?;
    tokio::spawn(async move { never.result().await }).await.map_err(TaskError::new)??;
    Ok(())
}

#[task(queue = "spans")]
fn speaks_on_a_thread() -> TaskResult<()> {
    tracing::info!("spoken on a thread");
    Err(TaskError::fatal("said what it had to say"))
}

#[task(queue = "minute")]
async fn fails() -> TaskResult<()> {
    Err(TaskError::fatal("no"))
}

#[tokio::test(start_paused = true)]
async fn slots_that_hidden_waits_keep_are_said_with_task_and_queue() {
    capture_logs();
    let worker = start("hidden", 1).await;
    let handle = worker.client.kiq(waits_in_a_spawned_task()).await.unwrap();
    let _ = handle.result_within("1m").await;
    let said = logged("all 1 slots are taken");
    assert!(!said.is_empty() && said.len() < 5, "{said:#?}");
    assert!(said[0].contains("waits_in_a_spawned_task` of queue `hidden`"), "{said:#?}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_job_that_no_worker_takes_is_said_once() {
    capture_logs();
    // Other tests of this process wait for jobs of other queues.
    let of_queue = |text: &str| {
        let said = logged(text).into_iter();
        said.filter(|line| line.contains(r#""queue":"unheard""#)).collect::<Vec<_>>()
    };
    let client = Bed::memory().client().await;
    let handle = client.kiq(unheard()).await.unwrap();
    let _ = handle.result_within("4s").await;
    assert_eq!(of_queue("no worker listens to its queue").len(), 0);
    let _ = handle.result_within("1m").await;
    client.queues().pause("unheard").await.unwrap();
    let _ = handle.result_within("1m").await;
    for text in ["no worker listens to its queue", "its queue is paused"] {
        let said = of_queue(text);
        assert_eq!(said.len(), 1, "{said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_blocking_body_logs_is_in_the_span_of_its_job_and_no_field_comes_twice() {
    capture_logs();
    let worker = start("spans", 1).await;
    let handle = worker.client.kiq(speaks_on_a_thread()).await.unwrap();
    ended(&handle).await;
    for text in ["spoken on a thread", "said what it had to say"] {
        let said = logged(text);
        assert_eq!(said.len(), 1, "{said:#?}");
        for field in [handle.id().as_str(), r#""attempt":1"#, "speaks_on_a_thread"] {
            assert_eq!(said[0].matches(field).count(), 1, "{field} in {}", said[0]);
        }
    }
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_blocking_body_that_ignores_its_timeout_is_said_again_and_again_and_shown() {
    capture_logs();
    let worker = start("deaf", 2).await;
    let handle = worker.client.kiq(deaf()).await.unwrap();
    // Blocking bodies keep the paused clock from going on by itself.
    while GOING_ON.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let go_on = async |seconds: u64| {
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
    };
    go_on(20).await;
    let said = logged("still running after its timeout");
    assert!(said.len() == 2 && said[0].contains(handle.id().as_str()), "{said:#?}");
    assert!(said[0].contains("deaf") && said[0].contains("age"), "{said:#?}");
    let worker_info = &worker.client.workers().list().await.unwrap()[0];
    assert_eq!((worker_info.blocking_busy, worker_info.blocking_threads), (1, 2));
    LET_GO.store(true, Ordering::SeqCst);
    assert_eq!(ended(&handle).await.reason, Some(Reason::Timeout));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_said_once_a_minute() {
    capture_logs();
    let worker = start("minute", 2).await;
    for _ in 0..3 {
        ended(&worker.client.kiq(succeeds()).await.unwrap()).await;
    }
    ended(&worker.client.kiq(fails()).await.unwrap()).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    let said = logged("in the last minute");
    assert_eq!(said.len(), 1, "idle minutes are not said: {said:#?}");
    assert!(said[0].contains(r#""completed":3,"failed":1,"retried":0"#), "{said:#?}");
    assert!(said[0].contains("succeeds: 3 completed; fails: 1 failed"), "{said:#?}");
    worker.stop().await;
}
