//! Bodies that wait for other jobs, and what a worker says of what goes on in it.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aioq::prelude::*;
use aioq::store::{JobRecord, Status};
use aioq::{JobId, Reason, Result, Summary, Worker, WorkerOptions};
use aioq_tests::{Bed, capture_logs, logged, on_each_backend};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// Nothing in these tests takes so long.
const PATIENCE: Duration = Duration::from_secs(40);

struct Running {
    client: Client,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<Summary>>,
}

fn run(worker: Worker) -> Running {
    let (stop, stopped) = oneshot::channel();
    let client = worker.client().clone();
    let ended = tokio::spawn(worker.run(async {
        let _ = stopped.await;
    }));
    Running { client, stop, ended }
}

/// A worker on these queues with so many slots, and as many threads.
async fn start(bed: &Bed, queue: &str, slots: usize) -> Running {
    let options = WorkerOptions::new().queues([queue]).concurrency(slots).blocking_threads(slots);
    run(bed.app().worker_options(options.grace(Duration::from_millis(50))).worker().await.unwrap())
}

impl Running {
    async fn stop(self) -> Summary {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.ended).await.expect("the worker ends").unwrap().unwrap()
    }
}

async fn ended<O>(handle: &TaskHandle<O>) -> JobRecord {
    tokio::time::timeout(PATIENCE, handle.wait()).await.expect("the job ends").unwrap()
}

async fn condition(wanted: impl Fn() -> bool) {
    let waited = async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("it comes to that");
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

/// How many bodies do something at once.
static BUSY: AtomicUsize = AtomicUsize::new(0);
static BUSIEST: AtomicUsize = AtomicUsize::new(0);

fn begin_work() {
    BUSIEST.fetch_max(BUSY.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
}

fn end_work() {
    BUSY.fetch_sub(1, Ordering::SeqCst);
}

async fn work() {
    begin_work();
    tokio::time::sleep(Duration::from_millis(2)).await;
    end_work();
}

#[task(queue = "gauged")]
async fn worked() {
    work().await;
}

/// Works, waits for two jobs at once, works, gives up a wait half way, works.
#[task(queue = "gauged")]
async fn waits_and_works() -> TaskResult<()> {
    work().await;
    let (one, other) = (worked().kiq().await?, worked().kiq().await?);
    let (one, other) = tokio::join!(one.result(), other.result());
    one?;
    other?;
    work().await;
    let last = worked().kiq().await?;
    if let Err(error) = last.result_within("1ms").await {
        assert_eq!(error.kind(), aioq::ErrorKind::NotReady);
        tokio::task::yield_now().await;
    }
    work().await;
    Ok(())
}

#[task(queue = "gauged_threads")]
fn worked_on_a_thread() {
    begin_work();
    std::thread::yield_now();
    end_work();
}

#[task(queue = "gauged_threads")]
fn waits_and_works_on_a_thread() -> TaskResult<()> {
    let children: Vec<_> = (0..3).map(|_| worked_on_a_thread().kiq_blocking()).collect::<Result<_>>()?;
    let all = futures_util::future::join_all(children.iter().map(TaskHandle::result));
    Handle::current().block_on(all).into_iter().collect::<Result<Vec<()>>>()?;
    worked_on_a_thread::call();
    let last = worked_on_a_thread().kiq_blocking()?;
    if Handle::current().block_on(last.result_within("1ms")).is_err() {
        worked_on_a_thread::call();
    }
    Ok(())
}

static HELD: Notify = Notify::const_new();

/// Keeps its slot until the test lets it go.
#[task(queue = "late")]
async fn hold() {
    HELD.notified().await;
}

/// Gives up its wait at once, and must then get its slot back.
#[task(queue = "late", timeout = "300ms")]
async fn gives_up(id: String, #[inject] client: Client) -> TaskResult<()> {
    let hold = client.handle::<()>(JobId::from(id)).await?;
    let _ = hold.result_within("20ms").await;
    tokio::task::yield_now().await;
    Ok(())
}

#[task(queue = "hidden")]
async fn waits_in_a_spawned_task(#[inject] client: Client) -> TaskResult<()> {
    let never = client.kiq(unheard()).await?;
    tokio::spawn(async move { never.result().await }).await.map_err(TaskError::new)??;
    Ok(())
}

#[task(queue = "unheard")]
async fn unheard() {}

#[task(queue = "spans")]
fn speaks_on_a_thread() -> TaskResult<()> {
    tracing::info!("spoken on a thread");
    Err(TaskError::fatal("said what it had to say"))
}

/// Whether bodies that go on may end.
static LET_GO: AtomicBool = AtomicBool::new(false);
static GOING_ON: AtomicUsize = AtomicUsize::new(0);

#[task(queue = "deaf", timeout = "50ms")]
fn deaf() {
    GOING_ON.fetch_add(1, Ordering::SeqCst);
    while !LET_GO.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

static DRAINING: Notify = Notify::const_new();

#[task(queue = "drained")]
async fn kicks_at_the_end() -> TaskResult<()> {
    DRAINING.notify_one();
    HELD.notified().await;
    unheard().kiq().await?;
    Ok(())
}

struct Needed;

#[task(queue = "needy")]
async fn needy(#[inject] _needed: &Needed) {}

#[task(queue = "minute")]
async fn succeeds() {}

#[task(queue = "minute")]
async fn fails() -> TaskResult<()> {
    Err(TaskError::fatal("no"))
}

on_each_backend! {
    async fn a_chain_of_waits_longer_than_the_slots_ends(bed: Bed) {
        let worker = start(&bed, "chain", 2).await;
        let depth = 1000;
        let chain = worker.client.kiq(chain(depth)).await.unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, chain.result()).await.expect("it ends").unwrap(), depth);
        worker.stop().await;
    }

    async fn a_chain_of_waits_longer_than_the_threads_ends(bed: Bed) {
        let worker = start(&bed, "threads", 2).await;
        let depth = 60;
        let chain = worker.client.kiq(chain_of_threads(depth)).await.unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, chain.result()).await.expect("it ends").unwrap(), depth);
        worker.stop().await;
    }

    async fn bodies_that_wait_for_jobs_go_on_only_with_a_slot(bed: Bed) {
        for (queue, on_threads) in [("gauged", false), ("gauged_threads", true)] {
            BUSIEST.store(0, Ordering::SeqCst);
            let worker = start(&bed, queue, 2).await;
            let mut handles = Vec::new();
            for _ in 0..20 {
                handles.push(match on_threads {
                    true => worker.client.kiq(waits_and_works_on_a_thread()).await.unwrap(),
                    false => worker.client.kiq(waits_and_works()).await.unwrap(),
                });
            }
            for handle in &handles {
                assert_eq!(ended(handle).await.status, Status::Completed);
            }
            assert!((1..=2).contains(&BUSIEST.load(Ordering::SeqCst)), "{BUSIEST:?} in {queue}");
            worker.stop().await;
        }
    }

    async fn a_blocking_body_that_goes_on_when_the_worker_ends_is_given_back_at_once(bed: Bed) {
        let worker = start(&bed, "deaf", 2).await;
        let deaf = [worker.client.kiq(deaf()).await.unwrap(), worker.client.kiq(deaf()).await.unwrap()];
        condition(|| GOING_ON.load(Ordering::SeqCst) == 2).await;
        assert_eq!(worker.stop().await.cut_off, 2);
        LET_GO.store(true, Ordering::SeqCst);
        let next = start(&bed, "deaf", 2).await;
        // The lease of what is not given back lasts for 30 s.
        let both = async { (deaf[0].wait().await.unwrap(), deaf[1].wait().await.unwrap()) };
        let (one, other) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("they run at once");
        assert_eq!((one.status, one.attempt), (Status::Completed, 1));
        assert_eq!((other.status, other.attempt), (Status::Completed, 1));
        next.stop().await;
    }

    async fn a_client_that_is_shut_down_stays_connected_until_its_worker_has_drained(bed: Bed) {
        let options = WorkerOptions::new().queues(["drained"]);
        let worker = run(bed.app().worker_options(options).worker().await.unwrap());
        let (client, other) = (worker.client.clone(), bed.client().await);
        let job = other.kiq(kicks_at_the_end()).await.unwrap();
        DRAINING.notified().await;
        let closing = tokio::spawn(async move { client.shutdown().await });
        HELD.notify_one();
        let summary = tokio::time::timeout(PATIENCE, worker.ended).await.expect("it ends").unwrap().unwrap();
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
    let worker = start(&Bed::memory(), "late", 1).await;
    let other = worker.client.kiq(unheard()).await.unwrap();
    let gives_up = worker.client.kiq(gives_up(other.id().to_string())).await.unwrap();
    // It takes the slot that the other one has lent.
    let hold = worker.client.kiq(hold()).await.unwrap();
    let record = ended(&gives_up).await;
    assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Timeout)));
    HELD.notify_one();
    assert_eq!(ended(&hold).await.status, Status::Completed);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn slots_that_hidden_waits_keep_are_said_with_task_and_queue() {
    capture_logs();
    let worker = start(&Bed::memory(), "hidden", 1).await;
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
    let client = Bed::memory().client().await;
    let handle = client.kiq(unheard()).await.unwrap();
    let _ = handle.result_within("4s").await;
    assert_eq!(logged("no worker listens to its queue").len(), 0);
    let _ = handle.result_within("1m").await;
    client.queues().pause("unheard").await.unwrap();
    let _ = handle.result_within("1m").await;
    for text in ["no worker listens to its queue", "its queue is paused"] {
        let said = logged(text);
        assert!(said.len() == 1 && said[0].contains(r#""queue":"unheard""#), "{said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_blocking_body_logs_is_in_the_span_of_its_job_and_no_field_comes_twice() {
    capture_logs();
    let worker = start(&Bed::memory(), "spans", 1).await;
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
    let worker = start(&Bed::memory(), "deaf", 2).await;
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
    let said = logged("goes on although its time is up");
    assert!(said.len() == 2 && said[0].contains(handle.id().as_str()), "{said:#?}");
    assert!(said[0].contains("deaf") && said[0].contains("age"), "{said:#?}");
    let worker_info = &worker.client.workers().list().await.unwrap()[0];
    assert_eq!((worker_info.blocking_busy, worker_info.blocking_threads), (1, 2));
    LET_GO.store(true, Ordering::SeqCst);
    assert_eq!(ended(&handle).await.reason, Some(Reason::Timeout));
    worker.stop().await;
}

#[tokio::test]
async fn only_tasks_of_the_consumed_queues_need_their_states() {
    let bed = Bed::memory();
    let worker = start(&bed, "minute", 1).await;
    let record = ended(&worker.client.kiq(needy().queue("minute")).await.unwrap()).await;
    assert_eq!(record.status, Status::Failed);
    let error = record.error.unwrap().message;
    assert!(error.contains("the worker has no state") && error.contains("Needed"), "{error}");
    worker.stop().await;
    let refused = bed.app_for("needy").worker().await.unwrap_err().to_string();
    assert!(refused.contains("needs state `Needed`"), "{refused}");
    let in_place = bed.app().in_place().await.unwrap();
    in_place.kiq(succeeds()).await.unwrap().get_result().await.unwrap();
    assert!(in_place.kiq(needy()).await.unwrap().get_result().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_said_once_a_minute() {
    capture_logs();
    let worker = start(&Bed::memory(), "minute", 2).await;
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
