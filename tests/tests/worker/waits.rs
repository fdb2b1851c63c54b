//! Bodies that wait for other jobs: slots, threads and the end of a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aioq::error::Reason;
use aioq::prelude::*;
use aioq::store::Status;
use aioq::worker::WorkerOptions;
use aioq::{JobId, Result, TaskHandle};
use aioq_tests::{Bed, PATIENCE, Running, ended, on_each_backend, until};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// The state of the bodies of one test.
#[derive(Clone, Default)]
struct Stage {
    busy: Arc<AtomicUsize>,
    busiest: Arc<AtomicUsize>,
    hold: Arc<Notify>,
    draining: Arc<Notify>,
    let_go: Arc<AtomicBool>,
    going_on: Arc<AtomicUsize>,
}

impl Stage {
    fn begin_work(&self) {
        self.busiest.fetch_max(self.busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    }

    fn end_work(&self) {
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }

    async fn work(&self) {
        self.begin_work();
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.end_work();
    }

    fn work_on_a_thread(&self) {
        self.begin_work();
        std::thread::yield_now();
        self.end_work();
    }
}

/// A worker on this queue with `slots` slots, and as many threads.
async fn start(bed: &Bed, stage: &Stage, queue: &str, slots: usize) -> Running {
    let options = WorkerOptions::new().queues([queue]).concurrency(slots).blocking_threads(slots);
    let app = bed.app().state(stage.clone());
    Running::start(app.worker_options(options.grace(Duration::from_millis(50)))).await
}

#[task(queue = "chain")]
async fn chain(depth: u32) -> TaskResult<u32> {
    match depth {
        0 => Ok(0),
        _ => Ok(chain(depth - 1).kiq().await?.result().await? + 1),
    }
}

#[task(queue = "threads")]
fn chain_of_threads(depth: u32) -> TaskResult<u32> {
    if depth == 0 {
        return Ok(0);
    }
    let next = chain_of_threads(depth - 1).kiq_blocking()?;
    Ok(Handle::current().block_on(next.result())? + 1)
}

#[task(queue = "gauged")]
async fn worked(#[inject] stage: &Stage) {
    stage.work().await;
}

/// Works, waits for two jobs at once, works, gives up a wait half way, works.
#[task(queue = "gauged")]
async fn waits_and_works(#[inject] stage: &Stage) -> TaskResult<()> {
    stage.work().await;
    let (one, other) = (worked().kiq().await?, worked().kiq().await?);
    let (one, other) = tokio::join!(one.result(), other.result());
    one?;
    other?;
    stage.work().await;
    let last = worked().kiq().await?;
    if let Err(error) = last.result_within("1ms").await {
        assert_eq!(error.kind(), aioq::ErrorKind::NotReady);
        tokio::task::yield_now().await;
    }
    stage.work().await;
    Ok(())
}

#[task(queue = "gauged_threads")]
fn worked_on_a_thread(#[inject] stage: &Stage) {
    stage.work_on_a_thread();
}

#[task(queue = "gauged_threads")]
fn waits_and_works_on_a_thread(#[inject] stage: &Stage) -> TaskResult<()> {
    let children: Vec<_> = (0..3).map(|_| worked_on_a_thread().kiq_blocking()).collect::<Result<_>>()?;
    let all = futures_util::future::join_all(children.iter().map(TaskHandle::result));
    Handle::current().block_on(all).into_iter().collect::<Result<Vec<()>>>()?;
    stage.work_on_a_thread();
    let last = worked_on_a_thread().kiq_blocking()?;
    if Handle::current().block_on(last.result_within("1ms")).is_err() {
        stage.work_on_a_thread();
    }
    Ok(())
}

/// Keeps its slot until the test lets it go.
#[task(queue = "late")]
async fn keeps_its_slot(#[inject] stage: &Stage) {
    stage.hold.notified().await;
}

/// Gives up its wait at once, and must then get its slot back.
#[task(queue = "late", timeout = "300ms")]
async fn gives_up(id: String, #[inject] client: Client) -> TaskResult<()> {
    let hold = client.handle::<()>(JobId::from(id)).await?;
    let _ = hold.result_within("20ms").await;
    tokio::task::yield_now().await;
    Ok(())
}

#[task(queue = "unheard")]
async fn unheard() {}

#[task(queue = "deaf", timeout = "50ms")]
fn deaf(#[inject] stage: &Stage) {
    stage.going_on.fetch_add(1, Ordering::SeqCst);
    while !stage.let_go.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[task(queue = "drained")]
async fn kicks_at_the_end(#[inject] stage: &Stage) -> TaskResult<()> {
    stage.draining.notify_one();
    stage.hold.notified().await;
    unheard().kiq().await?;
    Ok(())
}

on_each_backend! {
    async fn a_chain_of_waits_longer_than_the_slots_ends(bed: Bed) {
        let worker = start(&bed, &Stage::default(), "chain", 2).await;
        let depth = 1000;
        let chain = worker.client.kiq(chain(depth)).await.unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, chain.result()).await.expect("it ends").unwrap(), depth);
        worker.stop().await;
    }

    async fn a_chain_of_waits_longer_than_the_threads_ends(bed: Bed) {
        let worker = start(&bed, &Stage::default(), "threads", 2).await;
        let depth = 60;
        let chain = worker.client.kiq(chain_of_threads(depth)).await.unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, chain.result()).await.expect("it ends").unwrap(), depth);
        worker.stop().await;
    }

    async fn bodies_that_wait_for_jobs_go_on_only_with_a_slot(bed: Bed) {
        for (queue, on_threads) in [("gauged", false), ("gauged_threads", true)] {
            let stage = Stage::default();
            let worker = start(&bed, &stage, queue, 2).await;
            let mut handles = Vec::new();
            for _ in 0..20 {
                handles.push(if on_threads {
                    worker.client.kiq(waits_and_works_on_a_thread()).await.unwrap()
                } else {
                    worker.client.kiq(waits_and_works()).await.unwrap()
                });
            }
            for handle in &handles {
                assert_eq!(ended(handle).await.status, Status::Completed);
            }
            let busiest = stage.busiest.load(Ordering::SeqCst);
            assert!((1..=2).contains(&busiest), "{busiest} in {queue}");
            worker.stop().await;
        }
    }

    async fn a_blocking_body_that_goes_on_when_the_worker_ends_is_given_back_at_once(bed: Bed) {
        let stage = Stage::default();
        let worker = start(&bed, &stage, "deaf", 2).await;
        let deaf = [worker.client.kiq(deaf()).await.unwrap(), worker.client.kiq(deaf()).await.unwrap()];
        until("both go on", async || stage.going_on.load(Ordering::SeqCst) == 2).await;
        assert_eq!(worker.stop().await.cut_off, 2);
        stage.let_go.store(true, Ordering::SeqCst);
        let next = start(&bed, &stage, "deaf", 2).await;
        // The lease of what is not given back lasts for 30 s.
        let both = async { (deaf[0].wait().await.unwrap(), deaf[1].wait().await.unwrap()) };
        let (one, other) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("they run at once");
        assert_eq!((one.status, one.attempt), (Status::Completed, 1));
        assert_eq!((other.status, other.attempt), (Status::Completed, 1));
        next.stop().await;
    }

    async fn a_client_that_is_shut_down_stays_connected_until_its_worker_has_drained(bed: Bed) {
        let options = WorkerOptions::new().queues(["drained"]);
        let stage = Stage::default();
        let worker = Running::start(bed.app().state(stage.clone()).worker_options(options)).await;
        let (client, other) = (worker.client.clone(), bed.client().await);
        let job = other.kiq(kicks_at_the_end()).await.unwrap();
        stage.draining.notified().await;
        let closing = tokio::spawn(async move { client.shutdown().await });
        stage.hold.notify_one();
        let summary = worker.ended().await;
        assert_eq!((summary.cut_off, summary.unsettled), (0, 0));
        tokio::time::timeout(PATIENCE, closing).await.expect("it ends").unwrap().unwrap();
        // In memory, all clients are shut down with the one.
        let other = bed.client().await;
        let record = other.jobs().get(job.id()).await.unwrap();
        assert_eq!((record.status, record.error), (Status::Completed, None));
        assert_eq!(other.queues().depths(&["unheard".to_owned()]).await.unwrap()[0].ready, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_strikes_while_a_body_waits_for_its_slot() {
    let stage = Stage::default();
    let worker = start(&Bed::memory(), &stage, "late", 1).await;
    let other = worker.client.kiq(unheard()).await.unwrap();
    let gives_up = worker.client.kiq(gives_up(other.id().to_string())).await.unwrap();
    // It takes the slot that the other one has lent.
    let hold = worker.client.kiq(keeps_its_slot()).await.unwrap();
    let record = ended(&gives_up).await;
    assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Timeout)));
    stage.hold.notify_one();
    assert_eq!(ended(&hold).await.status, Status::Completed);
    worker.stop().await;
}
