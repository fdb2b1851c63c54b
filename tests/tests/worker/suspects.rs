//! Jobs whose workers died: suspects run one at a time, and poison is failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aioq::TaskHandle;
use aioq::broker::Expect;
use aioq::error::Reason;
use aioq::prelude::*;
use aioq::store::Status;
use aioq::tasks::Call;
use aioq_tests::{Bed, PATIENCE, Running, ended};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::stateful;

/// Measures how many bodies are inside at once.
#[derive(Clone)]
pub(crate) struct Crowd {
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
    entered: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Crowd {
    fn default() -> Self {
        let (inside, most, others) = Default::default();
        let (entered, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        Self { inside, most, others, entered, open }
    }
}

#[task]
async fn crowded(ms: u64, #[inject] gauge: &Crowd) {
    let inside = gauge.inside.fetch_add(1, Ordering::SeqCst) + 1;
    gauge.most.fetch_max(inside, Ordering::SeqCst);
    gauge.entered.add_permits(1);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    gauge.inside.fetch_sub(1, Ordering::SeqCst);
}

/// Stays as long as the door is closed.
#[task]
async fn gated(#[inject] gauge: &Crowd) {
    gauge.entered.add_permits(1);
    gauge.open.acquire().await.unwrap().forget();
}

/// Records the largest number of suspects that run beside it.
#[task]
async fn beside(ms: u64, #[inject] gauge: &Crowd) {
    for _ in 0..ms {
        tokio::time::sleep(Duration::from_millis(1)).await;
        gauge.others.fetch_max(gauge.inside.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// A job as workers leave it that died on it: started so often, so often of these with no other
/// suspect beside it.
async fn left_by_the_dead<T: aioq::tasks::Task>(
    client: &Client,
    call: Call<T>,
    starts: u32,
    solo: u32,
) -> TaskHandle<T::Output> {
    let handle = client.kiq(call).await.unwrap();
    let mut record = handle.record().await.unwrap();
    (record.status, record.worker_id) = (Status::Running, Some("the dead".into()));
    (record.starts, record.solo) = (starts, solo);
    client.backend().jobs().unwrap().put(record.into(), Expect::Absent, None).await.unwrap();
    handle
}

/// Takes what is in the queue, and gives it back.
async fn redeliver(client: &Client, jobs: usize) {
    let mut held = Vec::new();
    while held.len() < jobs {
        held.push(client.dequeue(&["default"], PATIENCE).await.unwrap().expect("it is there"));
    }
    for delivery in held {
        delivery.receipt.release(Duration::ZERO).await.unwrap();
    }
}

/// An app, and the crowd of its bodies.
fn app(bed: &Bed) -> (App, Crowd) {
    let crowd = Crowd::default();
    (stateful(bed.app()).state(crowd.clone()), crowd)
}

#[tokio::test(start_paused = true)]
async fn suspects_run_one_at_a_time_beside_other_jobs_and_only_starts_alone_make_poison() {
    let bed = Bed::memory();
    let client = bed.client().await;
    let mut suspects = Vec::new();
    for starts in [3, 4, 9] {
        suspects.push(left_by_the_dead(&client, crowded(1000), starts, 4).await);
    }
    let poison = left_by_the_dead(&client, crowded(1000), 9, 5).await;
    redeliver(&client, 4).await;
    let other = client.kiq(beside(2000)).await.unwrap();
    let (app, gauge) = app(&bed);
    let worker = Running::start(app).await;
    for suspect in suspects {
        let record = ended(&suspect).await;
        assert_eq!((record.status, record.attempt), (Status::Completed, 1));
    }
    assert_eq!(gauge.most.load(Ordering::SeqCst), 1, "one at a time");
    assert_eq!(ended(&other).await.status, Status::Completed);
    assert_eq!(gauge.others.load(Ordering::SeqCst), 1, "others go on meanwhile");
    let record = ended(&poison).await;
    assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Poison)));
    let text = record.error.unwrap().message;
    assert!(text.contains("9 times") && text.contains("5 of them with no other suspect"), "{text}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_cut_off_once_waits_for_nobody() {
    let bed = Bed::memory();
    let client = bed.client().await;
    let mut handles = Vec::new();
    for _ in 0..3 {
        handles.push(left_by_the_dead(&client, crowded(1000), 1, 0).await);
    }
    redeliver(&client, 3).await;
    let (app, gauge) = app(&bed);
    let worker = Running::start(app).await;
    for handle in handles {
        assert_eq!(ended(&handle).await.status, Status::Completed);
    }
    assert_eq!(gauge.most.load(Ordering::SeqCst), 3);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_waits_is_given_back_at_once_when_its_worker_ends() {
    let bed = Bed::memory();
    let client = bed.client().await;
    let first = left_by_the_dead(&client, gated(), 5, 0).await;
    let second = left_by_the_dead(&client, gated(), 5, 0).await;
    redeliver(&client, 2).await;
    let (app_of_first, gauge) = app(&bed);
    let worker = Running::start(app_of_first).await;
    gauge.entered.acquire().await.unwrap().forget();
    // Until the other one has been fetched, and waits.
    tokio::time::sleep(Duration::from_secs(10)).await;
    worker.tell_to_stop();
    let next = Running::start(stateful(bed.app()).state(gauge.clone())).await;
    let entered = tokio::time::timeout(Duration::from_secs(5), gauge.entered.acquire()).await;
    entered.expect("the grace period is longer than that").unwrap().forget();
    gauge.open.add_permits(2);
    for handle in [first, second] {
        assert_eq!(ended(&handle).await.status, Status::Completed);
    }
    worker.ended().await;
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_lasts_lets_others_go_on_and_its_start_counts_no_more() {
    let bed = Bed::memory();
    let client = bed.client().await;
    // The first one kicked is the first one to run.
    let long = left_by_the_dead(&client, crowded(3 * 3600 * 1000), 2, 1).await;
    let short = left_by_the_dead(&client, crowded(1000), 2, 1).await;
    redeliver(&client, 2).await;
    let (app, gauge) = app(&bed);
    let worker = Running::start(app).await;
    gauge.entered.acquire().await.unwrap().forget();
    let begun = Instant::now();
    gauge.entered.acquire().await.unwrap().forget();
    let short_record = client.jobs().get(short.id()).await.unwrap();
    assert!((300..600).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let long_record = client.jobs().get(long.id()).await.unwrap();
    assert_eq!((long_record.status, long_record.starts, long_record.solo), (Status::Running, 3, 1));
    assert_eq!((short_record.status, short_record.starts, short_record.solo), (Status::Running, 3, 1));
    tokio::time::timeout(4 * 3600 * PATIENCE, long.wait()).await.unwrap().unwrap();
    assert_eq!(ended(&short).await.status, Status::Completed);
    worker.stop().await;
}
