//! Jobs that are looked at and steered from outside, on memory and on NATS.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use aioq::prelude::*;
use aioq::store::{Expect, RecordLevel, Status};
use aioq::testing::TestClock;
use aioq::{
    ErrorKind, EventFilter, EventKind, JobFilter, JobId, JobsPage, Summary, Worker, WorkerInfo, WorkerOptions,
};
use aioq_tests::{Bed, HeldStore, on_each_backend};
use futures_util::StreamExt as _;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;

/// Nothing in these tests takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

#[task]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[task]
async fn doomed(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

#[task(retry(max = 3, backoff = "1h"))]
async fn patient(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

#[task(retry(max = 1, backoff = "1ms"))]
async fn reports_and_fails(#[inject] ctx: &Context) -> Result<(), String> {
    ctx.progress(1, 3, None);
    ctx.log("a line");
    Err("no".to_owned())
}

/// Rounds of a hundred races.
const ROUNDS: usize = 25;

/// What bodies leave behind, and what holds them.
#[derive(Clone)]
struct Probe {
    runs: Arc<AtomicU32>,
    started: Arc<Notify>,
    gate: Arc<Semaphore>,
    dropped: Arc<Notify>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            runs: Arc::default(),
            started: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            dropped: Arc::default(),
        }
    }
}

struct TellDrop(Arc<Notify>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Runs until the gate opens, or until it is dropped.
#[task]
async fn gated(#[inject] probe: &Probe) {
    let _tell = TellDrop(Arc::clone(&probe.dropped));
    probe.runs.fetch_add(1, Ordering::SeqCst);
    probe.started.notify_one();
    probe.gate.acquire().await.unwrap().forget();
}

#[task(retry(max = 1000, backoff = "1ms"))]
async fn hasty(#[inject] probe: &Probe) -> Result<(), String> {
    probe.runs.fetch_add(1, Ordering::SeqCst);
    probe.started.notify_one();
    Err("again".to_owned())
}

#[task(ack = "on_receive")]
async fn at_most_once(#[inject] probe: &Probe) {
    probe.started.notify_one();
    std::future::pending::<()>().await;
}

/// Blocks its thread until it is told to stop.
#[task]
fn obedient(#[inject] ctx: &Context, #[inject] probe: &Probe) -> Result<(), String> {
    probe.started.notify_one();
    while !ctx.is_cancelled() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Err("told to stop".to_owned())
}

/// Blocks its thread, whatever it is told, until the flag is set.
#[task]
fn stubborn(#[inject] flag: &Arc<AtomicBool>, #[inject] probe: &Probe) {
    probe.started.notify_one();
    while !flag.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[task]
async fn talkative(#[inject] ctx: &Context, #[inject] probe: &Probe) {
    ctx.progress(1, 3, "one".to_owned());
    ctx.log("line one");
    probe.gate.acquire().await.unwrap().forget();
    ctx.progress(3, 3, None);
}

/// A worker that runs until it is told to stop.
struct Running {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<aioq::Result<Summary>>,
}

impl Running {
    fn start(worker: Worker) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(worker.run(async {
            let _ = stopped.await;
        }));
        Self { stop: Some(stop), task }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        soon(self.task).await.unwrap().unwrap();
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes no time")
}

fn app(bed: &Bed, probe: &Probe) -> App {
    bed.app().state(probe.clone()).state(Arc::new(AtomicBool::new(false)))
}

async fn worker(bed: &Bed, probe: &Probe) -> Running {
    Running::start(app(bed, probe).worker().await.unwrap())
}

/// Waits until a job has that status.
async fn until_status(client: &Client, id: &JobId, status: Status) {
    soon(async {
        while client.jobs().get(id).await.unwrap().status != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn ids(jobs: &[aioq::store::JobRecord]) -> Vec<&str> {
    jobs.iter().map(|job| job.id.as_str()).collect()
}

on_each_backend! {
    async fn a_pending_job_is_cancelled_and_never_runs(bed: Bed) {
        let probe = Probe::default();
        let client = bed.client().await;
        let handle = client.kiq(gated().id("1")).await.unwrap();
        assert!(handle.cancel().await.unwrap());
        assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
        assert!(!handle.cancel().await.unwrap(), "it has ended");
        assert_eq!(handle.result().await.unwrap_err().kind(), ErrorKind::Cancelled);
        let running = worker(&bed, &probe).await;
        assert_eq!(client.kiq(add(1, 2)).await.unwrap().result().await.unwrap(), 3);
        running.stop().await;
        assert_eq!(probe.runs.load(Ordering::SeqCst), 0);
    }

    async fn a_scheduled_job_is_cancelled(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(add(1, 2).delay("1h")).await.unwrap();
        assert_eq!(handle.status().await.unwrap(), Status::Scheduled);
        assert!(handle.cancel().await.unwrap());
        assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
        let depths = client.queues().depths(&["default".to_owned()]).await.unwrap();
        assert_eq!(depths[0].scheduled, 0, "nothing is left in the queue");
    }

    async fn a_retrying_job_is_cancelled_and_keeps_its_history(bed: Bed) {
        let running = worker(&bed, &Probe::default()).await;
        let client = bed.client().await;
        let handle = client.kiq(patient("no")).await.unwrap();
        until_status(&client, handle.id(), Status::Retrying).await;
        assert!(handle.cancel().await.unwrap());
        let record = handle.record().await.unwrap();
        assert_eq!((record.status, record.errors.len()), (Status::Cancelled, 1));
        running.stop().await;
    }

    async fn a_running_job_is_not_cancelled_and_goes_on(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(gated()).await.unwrap();
        soon(probe.started.notified()).await;
        assert!(!handle.cancel().await.unwrap());
        probe.gate.add_permits(1);
        soon(handle.result()).await.unwrap();
        running.stop().await;
    }

    async fn a_cancel_knows_of_a_worker_whatever_its_clock_says(bed: Bed) {
        type Set = fn(&TestClock, Duration);
        let set: [Set; 3] = [|_, _| {}, TestClock::set_behind, TestClock::set_ahead];
        let (seconds, hour) = (Duration::from_secs, Duration::from_secs(3600));
        // The worker's clock when it starts, then while it runs, and the client's.
        for (worker, stepped, client) in [
            ((1, seconds(25)), (0, hour), (0, hour)),
            ((1, seconds(120)), (0, hour), (2, hour)),
            ((2, hour), (0, hour), (0, hour)),
            ((0, hour), (1, hour), (0, hour)),
            ((0, hour), (2, hour), (2, seconds(120))),
        ] {
            let (of_worker, of_client, probe) = (TestClock::new(), TestClock::new(), Probe::default());
            set[worker.0](&of_worker, worker.1);
            set[client.0](&of_client, client.1);
            let app = App::new(bed.backend().clock(&of_worker)).state(probe.clone());
            let app = app.state(Arc::new(AtomicBool::new(false)));
            let running = Running::start(app.worker().await.unwrap());
            let client = Client::connect(bed.backend().clock(&of_client)).await.unwrap();
            assert_eq!(soon(client.kiq(add(1, 2)).await.unwrap().result()).await.unwrap(), 3);
            set[stepped.0](&of_worker, stepped.1);
            let handle = client.kiq(gated()).await.unwrap();
            // Sooner than the next sign of life is due.
            let started = tokio::time::timeout(Duration::from_secs(5), probe.started.notified()).await;
            started.expect("a clock that is set holds no job up");
            assert!(!handle.cancel().await.unwrap(), "{worker:?} {stepped:?}: it has started");
            let listed = client.workers().list().await.unwrap();
            assert!(listed.iter().all(WorkerInfo::is_alive), "{listed:?}");
            probe.gate.add_permits(1);
            soon(handle.result()).await.unwrap();
            running.stop().await;
        }
    }

    async fn a_cancelled_job_that_is_retried_runs_once(bed: Bed) {
        let probe = Probe::default();
        probe.gate.add_permits(10);
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(gated().delay("1h").id("again")).await.unwrap();
        assert!(handle.cancel().await.unwrap());
        assert!(handle.retry().await.unwrap());
        assert!(!handle.retry().await.unwrap(), "it waits, or has ended well");
        soon(handle.result()).await.unwrap();
        assert_eq!(client.kiq(add(1, 2)).await.unwrap().result().await.unwrap(), 3);
        assert_eq!(probe.runs.load(Ordering::SeqCst), 1);
        running.stop().await;
    }

    async fn a_retry_that_another_one_has_overtaken_says_so_and_leaves_nothing_behind(bed: Bed) {
        let running = worker(&bed, &Probe::default()).await;
        let client = bed.client().await;
        let handle = client.kiq(doomed("no")).await.unwrap();
        handle.result().await.unwrap_err();
        let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
        let slow = Client::builder(bed.backend().with_jobs(store.clone())).hook(store.clone()).connect().await;
        let (slow, id) = (slow.unwrap().jobs(), handle.id().clone());
        let overtaken = tokio::spawn(async move { slow.retry(&id).await });
        soon(store.held()).await;
        assert!(handle.retry().await.unwrap());
        until_status(&client, handle.id(), Status::Failed).await;
        running.stop().await;
        store.let_go();
        assert!(!soon(overtaken).await.unwrap().unwrap(), "its message is not run");
        let depths = client.queues().depths(&["default".to_owned()]).await.unwrap();
        assert_eq!((depths[0].ready, depths[0].held), (0, 0));
    }

    async fn a_late_write_of_an_earlier_run_finds_that_the_job_was_run_again(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(add(1, 2).delay("1h")).await.unwrap();
        assert!(handle.cancel().await.unwrap());
        let late = Arc::new(handle.record().await.unwrap());
        assert!(handle.retry().await.unwrap());
        // As the first write of a run that was cut off before the job was cancelled.
        let store = client.backend().jobs().unwrap();
        let refused = store.put(late, Expect::Absent, None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert_eq!(handle.status().await.unwrap(), Status::Pending);
        let running = worker(&bed, &Probe::default()).await;
        assert_eq!(soon(handle.result()).await.unwrap(), 3);
        running.stop().await;
    }

    async fn a_job_that_is_removed_while_a_worker_holds_it_stays_removed_and_its_id_is_free(bed: Bed) {
        let client = bed.client().await;
        let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
        let app = App::new(bed.backend().with_jobs(store.clone())).state(Probe::default());
        let options = WorkerOptions::new().concurrency(1);
        let app = app.state(Arc::new(AtomicBool::new(false))).worker_options(options);
        let held = Running::start(app.worker().await.unwrap());
        for kicked_anew_first in [true, false] {
            store.hold_next();
            client.kiq(add(1, 1).id("job")).await.unwrap();
            soon(store.held()).await;
            assert!(client.jobs().remove(&"job".into()).await.unwrap());
            if !kicked_anew_first {
                store.let_go();
                // The worker takes one job after the other, so it has settled the first one then.
                soon(client.kiq(add(1, 1)).await.unwrap().result()).await.unwrap();
                assert_eq!(client.jobs().get(&"job".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
            }
            let anew = client.kiq(add(1, 2).id("job")).await.unwrap();
            assert!(!anew.existing(), "its id is free");
            if kicked_anew_first {
                store.let_go();
            }
            assert_eq!(soon(anew.result()).await.unwrap(), 3);
            assert!(anew.remove().await.unwrap());
        }
        held.stop().await;
    }

    async fn a_cancel_that_saw_a_removed_job_calls_off_the_one_that_was_kicked_anew(bed: Bed) {
        let client = bed.client().await;
        let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
        let slow = Client::connect(bed.backend().with_jobs(store.clone())).await.unwrap().jobs();
        client.kiq(add(1, 1).delay("1h").id("job")).await.unwrap();
        store.hold_before_next();
        let cancelled = tokio::spawn(async move { slow.cancel(&"job".into()).await });
        // It has seen the message by now, and not the record.
        soon(store.held()).await;
        assert!(client.jobs().remove(&"job".into()).await.unwrap());
        let anew = client.kiq(add(1, 2).delay("1h").id("job")).await.unwrap();
        assert!(!anew.existing());
        store.let_go();
        assert!(soon(cancelled).await.unwrap().unwrap());
        let running = worker(&bed, &Probe::default()).await;
        assert!(anew.retry().await.unwrap());
        assert_eq!(soon(anew.result()).await.unwrap(), 3, "it is the one that was kicked anew");
        running.stop().await;
    }

    async fn a_late_write_does_not_bring_back_what_was_removed_cleaned_or_purged(bed: Bed) {
        let client = bed.client().await;
        let (jobs, store) = (client.jobs(), client.backend().jobs().unwrap());
        let mut late = Vec::new();
        for id in ["removed", "cleaned", "purged"] {
            let handle = client.kiq(add(1, 2).delay("1h").id(id)).await.unwrap();
            assert!(handle.cancel().await.unwrap());
            late.push(handle.record().await.unwrap());
        }
        assert!(jobs.remove(&"removed".into()).await.unwrap());
        assert!(jobs.retry(&"purged".into()).await.unwrap());
        assert_eq!(client.queues().purge("default").await.unwrap().done, 1);
        assert_eq!(jobs.clean(Status::Cancelled, "0s", 10).await.unwrap().done.len(), 1);
        for record in late {
            let id = record.id.clone();
            let refused = store.put(Arc::new(record), Expect::Absent, None).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict, "{id}");
            assert_eq!(jobs.get(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
            assert!(jobs.stored(&id).await.unwrap().is_none());
        }
        assert_eq!(ids(&jobs.list(JobFilter::new(), 10).await.unwrap().jobs), [""; 0]);
        let running = worker(&bed, &Probe::default()).await;
        for (id, queue) in [("removed", "default"), ("cleaned", "default"), ("purged", "aside")] {
            let anew = client.kiq(add(1, 2).id(id).queue(queue)).await.unwrap();
            assert!(!anew.existing(), "the id {id} is free");
            match queue {
                "default" => assert_eq!(soon(anew.result()).await.unwrap(), 3),
                _ => assert!(anew.cancel().await.unwrap() && anew.retry().await.unwrap(), "in any queue"),
            }
        }
        running.stop().await;
    }

    async fn a_job_that_is_run_again_keeps_the_latest_of_its_history(bed: Bed) {
        let running = worker(&bed, &Probe::default()).await;
        let client = bed.client().await;
        let handle = client.kiq(reports_and_fails()).await.unwrap();
        let record = soon(handle.wait()).await.unwrap();
        assert_eq!((record.errors.len(), record.logs.len()), (2, 2), "of both attempts");
        for round in 2..=6 {
            assert!(handle.retry().await.unwrap());
            until_status(&client, handle.id(), Status::Failed).await;
            let record = handle.record().await.unwrap();
            assert_eq!((record.errors.len(), record.logs.len()), ((2 * round).min(10), 2 * round));
        }
        running.stop().await;
        assert!(handle.retry().await.unwrap());
        let waiting = handle.record().await.unwrap();
        assert_eq!((waiting.status, waiting.errors.len(), waiting.logs.len()), (Status::Pending, 10, 12));
        assert_eq!(waiting.progress.unwrap().done, 1);
        assert!(handle.cancel().await.unwrap());
        let cancelled = handle.record().await.unwrap();
        assert_eq!((cancelled.errors.len(), cancelled.logs.len()), (10, 12));
    }

    async fn a_job_that_was_to_run_again_is_not_found_without_its_message(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(add(1, 2).delay("1h")).await.unwrap();
        assert!(handle.cancel().await.unwrap());
        assert!(handle.retry().await.unwrap());
        let broker = client.backend().broker();
        let queued = broker.find(handle.id()).await.unwrap().unwrap();
        assert!(*broker.remove(&[queued]).await[0].as_ref().unwrap());
        assert_eq!(handle.record().await.unwrap_err().kind(), ErrorKind::NotFound);
        // A cancel would have nothing to keep that could be run again.
        assert_eq!(handle.cancel().await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    async fn a_job_acked_on_receive_runs_again_when_it_is_retried(bed: Bed) {
        let probe = Probe::default();
        let client = bed.client().await;
        let handle = client.kiq(at_most_once().delay("1h")).await.unwrap();
        assert!(handle.cancel().await.unwrap());
        assert!(handle.retry().await.unwrap());
        let running = worker(&bed, &probe).await;
        soon(probe.started.notified()).await;
        assert!(handle.abort("20s").await.unwrap());
        running.stop().await;
    }

    async fn of_two_clients_that_retry_a_job_at_once_one_does(bed: Bed) {
        let (one, other) = (bed.client().await, bed.client().await);
        for round in 0..20 {
            let handle = one.kiq(add(1, 2).id(format!("{round}"))).await.unwrap();
            assert!(handle.cancel().await.unwrap());
            let (jobs, other_jobs) = (one.jobs(), other.jobs());
            let (first, second) = tokio::join!(jobs.retry(handle.id()), other_jobs.retry(handle.id()));
            assert_ne!(first.unwrap(), second.unwrap(), "exactly one");
            assert_eq!(handle.status().await.unwrap(), Status::Pending);
        }
    }

    async fn an_id_that_was_cancelled_and_forgotten_can_be_kicked_anew(bed: Bed) {
        let probe = Probe::default();
        probe.gate.add_permits(10);
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(gated().delay("1h").id("anew")).await.unwrap();
        assert!(handle.cancel().await.unwrap());
        assert!(handle.remove().await.unwrap());
        assert_eq!(handle.record().await.unwrap_err().kind(), ErrorKind::NotFound);
        let handle = client.kiq(gated().id("anew")).await.unwrap();
        assert!(!handle.existing());
        soon(handle.result()).await.unwrap();
        running.stop().await;
    }

    async fn of_thousands_of_races_with_two_workers_no_cancelled_job_runs(bed: Bed) {
        let probe = Probe::default();
        probe.gate.add_permits(1_000_000);
        let running = [worker(&bed, &probe).await, worker(&bed, &probe).await];
        let client = bed.client().await;
        let mut cancelled = 0;
        for round in 0..ROUNDS {
            // Generated ids and chosen ones, for now and for just now.
            let calls = (0..100).map(|job| match job % 4 {
                0 => gated().id(format!("{round}-{job}")),
                1 => gated().delay("3ms"),
                _ => gated().delay("0s"),
            });
            let handles = client.kiq_all(calls).await;
            let ids: Vec<JobId> = handles.iter().map(|handle| handle.as_ref().unwrap().id().clone()).collect();
            // Some at once, some one by one, while the workers fetch.
            let (bulk, single) = ids.split_at(50);
            let (in_bulk, one_by_one) = tokio::join!(
                async { client.jobs().cancel_all(bulk).await },
                futures_util::future::join_all(single.iter().map(|id| async { client.jobs().cancel(id).await })),
            );
            let fates: Vec<bool> = in_bulk.into_iter().chain(one_by_one).map(Result::unwrap).collect();
            cancelled += fates.iter().filter(|fate| **fate).count();
            for (handle, cancelled) in handles.into_iter().zip(fates) {
                let record = soon(handle.unwrap().wait()).await.unwrap();
                let expected = if cancelled { Status::Cancelled } else { Status::Completed };
                assert_eq!(record.status, expected, "{}", record.id);
            }
        }
        for running in running {
            running.stop().await;
        }
        assert_eq!(probe.runs.load(Ordering::SeqCst) as usize, 100 * ROUNDS - cancelled);
    }

    async fn an_abort_drops_a_running_body_soon(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(gated()).await.unwrap();
        soon(probe.started.notified()).await;
        assert!(handle.abort("20s").await.unwrap());
        soon(probe.dropped.notified()).await;
        let record = handle.record().await.unwrap();
        assert_eq!(record.status, Status::Cancelled);
        assert_eq!(record.error.unwrap().message, "was stopped while it ran");
        assert!(!handle.abort("20s").await.unwrap(), "it has ended");
        assert!(handle.retry().await.unwrap(), "it may run again");
        probe.gate.add_permits(1);
        soon(handle.result()).await.unwrap();
        running.stop().await;
    }

    async fn an_abort_reaches_a_blocking_body_that_looks(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(obedient()).await.unwrap();
        soon(probe.started.notified()).await;
        assert!(handle.abort("20s").await.unwrap());
        assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
        running.stop().await;
    }

    async fn a_body_that_ignores_an_abort_is_waited_for_no_longer_than_said(bed: Bed) {
        let (probe, flag) = (Probe::default(), Arc::new(AtomicBool::new(false)));
        let app = bed.app().state(probe.clone()).state(Arc::clone(&flag));
        let running = Running::start(app.worker().await.unwrap());
        let client = bed.client().await;
        let handle = client.kiq(stubborn()).await.unwrap();
        soon(probe.started.notified()).await;
        assert!(!handle.abort("200ms").await.unwrap());
        flag.store(true, Ordering::SeqCst);
        assert_eq!(soon(handle.wait()).await.unwrap().status, Status::Completed, "it came to its end");
        running.stop().await;
    }

    async fn a_waiting_job_is_aborted_like_cancelled(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(add(1, 2)).await.unwrap();
        assert!(handle.abort("1s").await.unwrap());
        assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
    }

    async fn an_unknown_job_is_not_found_and_nothing_changes(bed: Bed) {
        let client = bed.client().await;
        let id = JobId::from("nobody knows");
        let jobs = client.jobs();
        let errors = [
            jobs.get(&id).await.map(drop).unwrap_err(),
            jobs.cancel(&id).await.map(drop).unwrap_err(),
            jobs.abort(&id, "1s").await.map(drop).unwrap_err(),
            jobs.retry(&id).await.map(drop).unwrap_err(),
            jobs.remove(&id).await.map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.id()), (ErrorKind::NotFound, Some(&id)), "{error}");
        }
        assert!(jobs.list(JobFilter::new(), 10).await.unwrap().jobs.is_empty());
    }

    async fn jobs_are_listed_by_filter_the_latest_change_first(bed: Bed) {
        let client = bed.client().await;
        let running = worker(&bed, &Probe::default()).await;
        for id in ["c1", "c2", "c3"] {
            soon(client.kiq(add(1, 2).id(id).label("team", "growth")).await.unwrap().result()).await.unwrap();
        }
        for id in ["f1", "f2"] {
            soon(client.kiq(doomed("no").id(id)).await.unwrap().wait()).await.unwrap();
        }
        running.stop().await;
        for id in ["p1", "p2", "p3"] {
            client.kiq(add(1, 2).id(id)).await.unwrap();
        }
        client.kiq(add(1, 2).id("s1").delay("1h")).await.unwrap();
        client.kiq(add(1, 2).id("o1").queue("a.b c>*")).await.unwrap();
        let list = async |filter: JobFilter| client.jobs().list(filter, 100).await.unwrap();
        let found = async |filter: JobFilter| {
            let list = list(filter).await;
            assert!(list.complete && list.next.is_none());
            ids(&list.jobs).join(" ")
        };
        let all = JobFilter::new;
        assert_eq!(found(all().status(Status::Pending).queue("default")).await, "p3 p2 p1");
        assert_eq!(found(all().status(Status::Completed)).await, "c3 c2 c1");
        assert_eq!(found(all().status(Status::Failed).status(Status::Scheduled)).await, "s1 f2 f1");
        assert_eq!(found(all().queue("a.b c>*")).await, "o1");
        assert_eq!(found(all().task("doomed")).await, "f2 f1");
        assert_eq!(found(all().label("team", "growth")).await, "c3 c2 c1");
        assert_eq!(found(all().label("team", "sales")).await, "");
        assert_eq!(found(all().queue("nobody")).await, "");
        assert_eq!(found(all().status(Status::Running)).await, "");
        assert_eq!(found(all()).await, "o1 s1 p3 p2 p1 f2 f1 c3 c2 c1");

        // In pieces, by cursor and by offset.
        let (mut pieces, mut page) = (Vec::new(), JobsPage::of(3));
        loop {
            let list = client.jobs().list(all(), page).await.unwrap();
            pieces.extend(list.jobs.iter().map(|job| job.id.to_string()));
            let Some(next) = list.next else { break };
            page = JobsPage::of(3).after(next.to_string().parse().unwrap());
        }
        assert_eq!(pieces.join(" "), "o1 s1 p3 p2 p1 f2 f1 c3 c2 c1");
        let list = client.jobs().list(all(), JobsPage::of(2).offset(4)).await.unwrap();
        assert_eq!(ids(&list.jobs), ["p1", "f2"]);

        // Counts say the same.
        let counts = &client.queues().stats().await.unwrap()["default"];
        let counts: Vec<_> = counts.iter().map(|(status, count)| (*status, *count)).collect();
        assert_eq!(counts, [(Status::Scheduled, 1), (Status::Pending, 3), (Status::Completed, 3), (Status::Failed, 2)]);
    }

    async fn a_retried_job_is_listed_once_as_what_it_is(bed: Bed) {
        let client = bed.client().await;
        let running = worker(&bed, &Probe::default()).await;
        let handle = client.kiq(doomed("no").id("1")).await.unwrap();
        soon(handle.wait()).await.unwrap();
        running.stop().await;
        assert!(handle.retry().await.unwrap());
        let list = client.jobs().list(JobFilter::new(), 10).await.unwrap();
        let listed: Vec<_> = list.jobs.iter().map(|job| (job.id.as_str(), job.status, job.attempt)).collect();
        assert_eq!(listed, [("1", Status::Pending, 1)]);
        assert!(client.jobs().list(JobFilter::new().status(Status::Failed), 10).await.unwrap().jobs.is_empty());
        assert_eq!(client.queues().stats().await.unwrap()["default"].len(), 1);
    }

    async fn ended_jobs_are_cleaned_by_age_and_number(bed: Bed) {
        let client = bed.client().await;
        let running = worker(&bed, &Probe::default()).await;
        for id in ["1", "2", "3"] {
            soon(client.kiq(add(1, 2).id(id)).await.unwrap().result()).await.unwrap();
        }
        soon(client.kiq(doomed("no").id("f")).await.unwrap().wait()).await.unwrap();
        running.stop().await;
        client.kiq(add(1, 2).id("waits")).await.unwrap();
        let jobs = client.jobs();
        assert_eq!(jobs.clean(Status::Completed, "1h", 100).await.unwrap().done, []);
        assert_eq!(jobs.clean(Status::Completed, "0s", 2).await.unwrap().done, [JobId::from("1"), "2".into()]);
        assert_eq!(jobs.clean(Status::Completed, "0s", 100).await.unwrap().done, [JobId::from("3")]);
        assert_eq!(jobs.clean(Status::Pending, "0s", 100).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        let left = jobs.list(JobFilter::new(), 10).await.unwrap();
        assert_eq!(ids(&left.jobs), ["waits", "f"]);
        assert!(jobs.remove(&"f".into()).await.unwrap());
        assert!(jobs.remove(&"waits".into()).await.unwrap());
        assert!(jobs.list(JobFilter::new(), 10).await.unwrap().jobs.is_empty());
    }

    async fn a_job_that_cannot_be_removed_is_named_and_the_others_go(bed: Bed) {
        let running = worker(&bed, &Probe::default()).await;
        let client = bed.client().await;
        for id in ["1", "2", "3"] {
            soon(client.kiq(add(1, 2).id(id)).await.unwrap().result()).await.unwrap();
        }
        for id in ["waits", "waits too"] {
            let waits = client.kiq(patient("no").id(id)).await.unwrap();
            until_status(&client, waits.id(), Status::Retrying).await;
        }
        running.stop().await;
        let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
        let client = Client::connect(bed.backend().with_jobs(store.clone())).await.unwrap();
        store.refuse("2");
        store.refuse("waits");
        let cleaned = client.jobs().clean(Status::Completed, "0s", 100).await.unwrap();
        assert_eq!((cleaned.done, cleaned.failed), (vec![JobId::from("1"), "3".into()], 1));
        let purged = client.queues().purge("default").await.unwrap();
        assert_eq!((purged.done, purged.failed), (1, 1));
        for (errors, id) in [(cleaned.errors, "2"), (purged.errors, "waits")] {
            let told: Vec<_> = errors.iter().map(|error| (error.kind(), error.id().unwrap().as_str())).collect();
            assert_eq!(told, [(ErrorKind::Permission, id)]);
        }
    }

    async fn a_purge_drops_what_waits_and_says_how_much(bed: Bed) {
        let probe = Probe::default();
        let client = bed.client().await;
        let running = worker(&bed, &probe).await;
        let held = client.kiq(gated()).await.unwrap();
        soon(probe.started.notified()).await;
        let retrying = client.kiq(patient("no")).await.unwrap();
        until_status(&client, retrying.id(), Status::Retrying).await;
        client.queues().pause("default").await.unwrap();
        probe.gate.add_permits(1);
        soon(held.result()).await.unwrap();
        running.stop().await;
        for _ in 0..700 {
            client.kiq(add(1, 2)).await.unwrap();
        }
        client.kiq(add(1, 2).delay("1h")).await.unwrap();
        let other = client.kiq(add(1, 2).queue("other")).await.unwrap();
        assert_eq!(client.queues().purge("default").await.unwrap().done, 702);
        assert_eq!(client.queues().purge("default").await.unwrap().done, 0);
        assert_eq!(retrying.record().await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(other.status().await.unwrap(), Status::Pending);
        assert_eq!(client.queues().purge("unheard of").await.unwrap().done, 0);
    }

    async fn queues_are_listed_with_their_depth_age_and_pause(bed: Bed) {
        let client = bed.client().await;
        client.kiq(add(1, 2).queue("a")).await.unwrap();
        client.kiq(add(1, 2).queue("a")).await.unwrap();
        client.kiq(add(1, 2).queue("b.b").delay("1h")).await.unwrap();
        client.queues().pause("c").await.unwrap();
        let queues = client.queues().list().await.unwrap();
        let told: Vec<_> = queues.iter().map(|info| (info.queue.as_str(), info.depth, info.paused)).collect();
        assert_eq!(told, [("a", 2, false), ("b.b", 0, false), ("c", 0, true)]);
        assert!(queues[0].oldest_age().unwrap() < PATIENCE);
        assert_eq!(queues[1].oldest_age(), None);
        assert_eq!(queues[1].counts.clone().into_iter().collect::<Vec<_>>(), [(Status::Scheduled, 1)]);
    }

    async fn of_races_with_retries_no_cancelled_job_runs_again(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        for _ in 0..200 {
            // Fails at once and waits a millisecond for its next attempt, over and over.
            let handle = client.kiq(hasty()).await.unwrap();
            soon(probe.started.notified()).await;
            let cancelled = handle.cancel().await.unwrap();
            let runs = probe.runs.load(Ordering::SeqCst);
            if cancelled {
                assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
                // Something that comes after in the same queue has run.
                assert_eq!(soon(client.kiq(add(1, 2)).await.unwrap().result()).await.unwrap(), 3);
                assert_eq!(probe.runs.load(Ordering::SeqCst), runs, "it ran after it was cancelled");
            } else {
                handle.abort("20s").await.unwrap();
            }
        }
        running.stop().await;
    }

    async fn running_and_filtered_jobs_do_not_disturb_the_order_of_a_list(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        for id in ["c1", "c2", "c3"] {
            soon(client.kiq(add(1, 2).id(id)).await.unwrap().result()).await.unwrap();
        }
        for id in ["s1", "s2", "s3"] {
            client.kiq(add(1, 2).id(id).delay("1h")).await.unwrap();
        }
        let held = client.kiq(gated().id("r")).await.unwrap();
        until_status(&client, held.id(), Status::Running).await;
        client.kiq(gated().id("other").delay("1h")).await.unwrap();
        let list = client.jobs().list(JobFilter::new().queue("default"), 5).await.unwrap();
        assert_eq!(ids(&list.jobs), ["other", "r", "s3", "s2", "s1"]);
        let list = client.jobs().list(JobFilter::new().task("add"), 4).await.unwrap();
        assert_eq!(ids(&list.jobs), ["s3", "s2", "s1", "c3"]);
        let counts = client.jobs().counts(Duration::ZERO).await.unwrap();
        assert_eq!(counts.counts[&Status::Completed], 3);
        assert_eq!(client.jobs().counts(PATIENCE).await.unwrap().counted_at, counts.counted_at, "not counted again");
        probe.gate.add_permits(1);
        soon(held.result()).await.unwrap();
        running.stop().await;
    }

    async fn a_job_that_expired_while_it_waits_can_be_run_again_or_removed(bed: Bed) {
        let client = bed.client().await;
        let expired = async |id: &'static str| {
            let handle = client.kiq(add(1, 2).id(id).ttl("1ms")).await.unwrap();
            until_status(&client, handle.id(), Status::Expired).await;
            handle
        };
        let first = expired("1").await;
        assert!(!first.cancel().await.unwrap());
        assert!(first.remove().await.unwrap());
        assert_eq!(first.record().await.unwrap_err().kind(), ErrorKind::NotFound);
        let second = expired("2").await;
        assert!(second.retry().await.unwrap());
        let running = worker(&bed, &Probe::default()).await;
        assert_eq!(soon(second.result()).await.unwrap(), 3);
        running.stop().await;
    }

    async fn a_job_acked_on_receive_is_known_while_it_runs(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(at_most_once()).await.unwrap();
        soon(probe.started.notified()).await;
        assert_eq!(handle.status().await.unwrap(), Status::Running);
        assert!(handle.abort("20s").await.unwrap());
        assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
        running.stop().await;
    }

    async fn any_name_is_that_of_a_queue(bed: Bed) {
        let client = bed.client().await;
        let mut names = ["a.b", "..", "50%", "%2E", "größe >*", "a b", "."].map(str::to_owned);
        let long = ".".repeat(aioq::MAX_NAME_BYTES);
        for name in names.iter().chain([&long]) {
            let handle = client.kiq(add(1, 2).queue(name).id(name.as_str())).await.unwrap();
            client.queues().pause(name).await.unwrap();
            assert_eq!(handle.record().await.unwrap().queue, *name);
            let list = client.jobs().list(JobFilter::new().queue(name), 10).await.unwrap();
            assert_eq!(ids(&list.jobs), [name.as_str()]);
        }
        assert!(client.queues().resume(&long).await.unwrap());
        assert_eq!(client.queues().purge(&long).await.unwrap().done, 1);
        names.sort_unstable();
        assert_eq!(client.queues().paused().await.unwrap().into_iter().collect::<Vec<_>>(), names);
        let listed = client.queues().list().await.unwrap();
        let paused = listed.into_iter().filter(|info| info.paused).map(|info| info.queue);
        assert_eq!(paused.collect::<Vec<_>>(), names);
    }

    async fn dead_letters_are_replayed_on_the_queue_they_came_from_or_dropped(bed: Bed) {
        let client = bed.client().await;
        let app = app(&bed, &Probe::default()).worker_options(WorkerOptions::new().queues(["mail"]));
        let running = Running::start(app.worker().await.unwrap());
        for id in ["1", "2", "3"] {
            soon(client.kiq(doomed("no").queue("mail").id(id)).await.unwrap().wait()).await.unwrap();
        }
        running.stop().await;
        let dead = client.dead_letters();
        let listed = dead.list(JobFilter::new(), 10).await.unwrap().jobs;
        assert_eq!(ids(&listed), ["3", "2", "1"]);
        assert_eq!(listed[0].queue, "mail");
        assert!(dead.drop(&"1".into()).await.unwrap());
        assert!(dead.replay(&"2".into()).await.unwrap());
        assert_eq!(dead.get(&"2".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
        let replayed = client.jobs().get(&"2".into()).await.unwrap();
        assert_eq!((replayed.status, replayed.queue.as_str(), replayed.attempt), (Status::Pending, "mail", 1));
        assert_eq!(dead.replay_all(JobFilter::new()).await.unwrap().done, 1);
        assert_eq!(dead.drop_all(JobFilter::new()).await.unwrap().done, 0);
        assert!(dead.list(JobFilter::new(), 10).await.unwrap().jobs.is_empty());
    }

    async fn a_purge_forgets_a_job_that_was_given_back(bed: Bed) {
        let probe = Probe::default();
        let options = WorkerOptions::new().grace(Duration::from_millis(10));
        let impatient = Running::start(app(&bed, &probe).worker_options(options).worker().await.unwrap());
        let client = bed.client().await;
        let handle = client.kiq(gated().id("back")).await.unwrap();
        soon(probe.started.notified()).await;
        impatient.stop().await;
        assert_eq!(client.queues().purge("default").await.unwrap().done, 1);
        assert_eq!(handle.record().await.unwrap_err().kind(), ErrorKind::NotFound);
        let anew = client.kiq(gated().id("back")).await.unwrap();
        assert!(!anew.existing(), "its id is free");
        probe.gate.add_permits(1);
        let running = worker(&bed, &probe).await;
        soon(anew.result()).await.unwrap();
        running.stop().await;
    }

    async fn progress_and_logs_are_seen_while_the_body_runs(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(talkative()).await.unwrap();
        soon(async {
            while handle.record().await.unwrap().progress.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let record = handle.record().await.unwrap();
        assert_eq!((record.status, record.progress.unwrap().note.unwrap().as_str()), (Status::Running, "one"));
        assert_eq!(record.logs[0].line, "line one");
        probe.gate.add_permits(1);
        let record = soon(handle.wait()).await.unwrap();
        let progress = record.progress.unwrap();
        assert_eq!((progress.done, progress.total, progress.note), (3, 3, None));
        running.stop().await;
    }

    async fn events_are_told_across_clients(bed: Bed) {
        let client = bed.client().await;
        let mut ends = client.events(EventFilter::new().queue("default")).await.unwrap();
        let mut all = client.events(EventFilter::all()).await.unwrap();
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let producer = bed.client().await;
        producer.kiq(add(1, 2).id("1")).await.unwrap();
        let event = soon(ends.next()).await.unwrap();
        assert_eq!((event.kind, event.id.as_str(), event.task.as_str()), (EventKind::Completed, "1", "add"));
        producer.kiq(doomed("no").id("2")).await.unwrap();
        let event = soon(ends.next()).await.unwrap();
        assert_eq!((event.kind, event.error.as_deref()), (EventKind::Failed, Some("String: no")));
        let mut kinds = BTreeSet::new();
        while kinds.len() < 4 {
            let event = soon(all.next()).await.unwrap();
            kinds.insert(format!("{} {:?}", event.id, event.kind));
        }
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["1 Completed", "1 Kicked", "2 Failed", "2 Kicked"]);
        let long = producer.kiq(gated().id("3")).await.unwrap();
        let kind = async |stream: &mut futures_util::stream::BoxStream<'static, aioq::Event>| {
            soon(stream.next()).await.unwrap().kind
        };
        assert_eq!(kind(&mut all).await, EventKind::Kicked);
        assert_eq!(kind(&mut all).await, EventKind::Started);
        assert!(long.abort("20s").await.unwrap());
        assert_eq!(kind(&mut all).await, EventKind::Cancelled);
        running.stop().await;
    }

    async fn without_records_jobs_are_still_cancelled_and_listed_while_they_wait(bed: Bed) {
        let client = Client::builder(bed.backend()).records(RecordLevel::None).connect().await.unwrap();
        let handle = client.kiq(add(1, 2)).await.unwrap();
        assert_eq!(handle.status().await.unwrap(), Status::Pending);
        assert_eq!(client.jobs().list(JobFilter::new(), 10).await.unwrap().jobs.len(), 1);
        assert!(handle.cancel().await.unwrap());
        assert_eq!(handle.status().await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(handle.result().await.unwrap_err().kind(), ErrorKind::Unsupported);
    }

    async fn with_results_alone_a_completed_job_keeps_its_result_only(bed: Bed) {
        let app = app(&bed, &Probe::default()).records(RecordLevel::Results);
        let running = Running::start(app.worker().await.unwrap());
        let client = bed.client().await;
        let handle = client.kiq(add(1, 2).label("team", "growth")).await.unwrap();
        assert_eq!(soon(handle.result()).await.unwrap(), 3);
        let record = handle.record().await.unwrap();
        assert!(record.arguments.is_none() && record.labels.is_empty());
        let failed = client.kiq(doomed("no")).await.unwrap();
        soon(failed.wait()).await.unwrap();
        running.stop().await;
        assert!(failed.retry().await.unwrap(), "what it takes is kept");
    }

    async fn a_record_is_updated_only_along_the_states(bed: Bed) {
        let client = bed.client().await;
        let running = worker(&bed, &Probe::default()).await;
        let handle = client.kiq(add(1, 2)).await.unwrap();
        soon(handle.result()).await.unwrap();
        running.stop().await;
        let jobs = client.jobs();
        let stored = jobs.stored(handle.id()).await.unwrap().unwrap();
        let mut record = stored.record.clone();
        record.logs.push(aioq::store::LogLine { at: record.finished_at.unwrap(), line: "seen".to_owned() });
        jobs.update(&stored, record.clone()).await.unwrap();
        assert_eq!(handle.record().await.unwrap().logs.len(), 1);
        assert_eq!(jobs.update(&stored, record.clone()).await.unwrap_err().kind(), ErrorKind::Conflict);
        let stored = jobs.stored(handle.id()).await.unwrap().unwrap();
        record.status = Status::Running;
        assert_eq!(jobs.update(&stored, record).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

/// What handlers leave behind, in their order.
type Ledger = Arc<std::sync::Mutex<Vec<String>>>;

#[tokio::test(start_paused = true)]
async fn a_job_acked_on_receive_that_is_given_back_before_it_began_runs() {
    let (bed, probe) = (Bed::memory(), Probe::default());
    let client = bed.client().await;
    let handle = client.kiq(at_most_once()).await.unwrap();
    let first = client.dequeue(&["default"], PATIENCE).await.unwrap().unwrap();
    first.receipt.release(Duration::ZERO).await.unwrap();
    let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
    let app = App::new(bed.backend().with_jobs(store.clone())).state(probe.clone());
    let options = WorkerOptions::new().grace(Duration::ZERO);
    let app = app.state(Arc::new(AtomicBool::new(false))).worker_options(options);
    store.hold_next();
    let ending = Running::start(app.worker().await.unwrap());
    soon(store.held()).await;
    let ended = tokio::spawn(ending.stop());
    tokio::time::sleep(Duration::from_millis(1)).await;
    // It is told to end, and now about to start the job.
    store.let_go();
    ended.await.unwrap();
    let running = worker(&bed, &probe).await;
    soon(probe.started.notified()).await;
    assert!(handle.abort("1s").await.unwrap());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_died_holds_no_cancel_up_whatever_the_clocks_say() {
    let (bed, of_worker, of_client) = (Bed::memory(), TestClock::new(), TestClock::new());
    of_worker.set_ahead(Duration::from_secs(3600));
    of_client.set_behind(Duration::from_secs(3600));
    let worker = App::new(bed.backend().clock(&of_worker)).state(Probe::default());
    let worker = worker.state(Arc::new(AtomicBool::new(false))).worker().await.unwrap();
    let client = Client::connect(bed.backend().clock(&of_client)).await.unwrap();
    let alive = async || client.workers().list().await.unwrap().iter().any(WorkerInfo::is_alive);
    let running = tokio::spawn(worker.run(std::future::pending()));
    while !alive().await {
        tokio::task::yield_now().await;
    }
    running.abort();
    let handle = client.kiq(add(1, 2)).await.unwrap();
    assert_eq!(handle.cancel().await.unwrap_err().kind(), ErrorKind::Deadline, "it may be alive");
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(handle.cancel().await.unwrap());
    assert!(!alive().await && client.workers().list().await.unwrap().len() == 1, "it is remembered as dead");
}

#[tokio::test]
async fn handlers_run_around_clients_and_workers() {
    let ledger = Ledger::default();
    let write = |line: &'static str| {
        let ledger = Arc::clone(&ledger);
        move |lifecycle: aioq::Lifecycle| {
            let ledger = Arc::clone(&ledger);
            async move {
                let state = lifecycle.state::<u32>().copied();
                ledger.lock().unwrap().push(format!("{line} {state:?}"));
                Ok::<_, aioq::Error>(())
            }
        }
    };
    let app = app(&Bed::memory(), &Probe::default())
        .state(7_u32)
        .on_client_startup(write("client up"))
        .on_client_shutdown(write("client down"))
        .on_worker_startup(write("worker up"))
        .on_worker_shutdown(write("first worker down"))
        .on_worker_shutdown(write("second worker down"));
    let worker = app.worker().await.unwrap();
    let client = worker.client().clone();
    Running::start(worker).stop().await;
    client.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(
        *ledger.lock().unwrap(),
        [
            "client up None",
            "worker up Some(7)",
            "second worker down Some(7)",
            "first worker down Some(7)",
            "client down None",
        ]
    );
}

#[tokio::test]
async fn a_startup_handler_that_fails_says_why_the_worker_does_not_run() {
    let app = app(&Bed::memory(), &Probe::default()).on_worker_startup(|_| async { Err("no disk") });
    let error = app.worker().await.unwrap().run(std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("no disk"), "{error}");
}

#[tokio::test]
async fn mocked_jobs_look_as_if_a_worker_had_them() {
    use aioq::testing::{set_complete, set_in_progress};

    let client = Bed::memory().client().await;
    let handle = client.kiq(add(1, 2)).await.unwrap();
    set_in_progress(&client, handle.id()).await.unwrap();
    assert_eq!(handle.status().await.unwrap(), Status::Running);
    set_complete(&client, handle.id(), Ok(3)).await.unwrap();
    assert_eq!(handle.result().await.unwrap(), 3);
    let again = set_complete(&client, handle.id(), Ok(3)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
    let failed = client.kiq(add(1, 2)).await.unwrap();
    set_complete(&client, failed.id(), Err::<(), _>("no")).await.unwrap();
    assert_eq!(failed.result().await.unwrap_err().kind(), ErrorKind::JobFailed);
    assert!(failed.retry().await.unwrap());
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
    tokio::time::sleep(Duration::from_secs(23 * 3600)).await;
    assert_eq!(completed.status().await.unwrap(), Status::Completed);
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(completed.status().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(failed.status().await.unwrap(), Status::Failed);
    tokio::time::sleep(Duration::from_secs(6 * 24 * 3600)).await;
    assert_eq!(failed.status().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(client.queues().stats().await.unwrap().is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_ended_jobs_are_kept_than_said() {
    let (bed, probe) = (Bed::memory(), Probe::default());
    let retention = aioq::store::Retention::new().max_completed(10).max_failed(3);
    let running = Running::start(app(&bed, &probe).retention(retention).worker().await.unwrap());
    let client = bed.client().await;
    for _ in 0..20 {
        client.kiq(add(1, 2)).await.unwrap().result().await.unwrap();
        client.kiq(doomed("no")).await.unwrap().wait().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(70)).await;
    let counts = client.queues().stats().await.unwrap()["default"].clone();
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(Status::Completed, 10), (Status::Failed, 3)]);
    running.stop().await;
}

#[task(keep = "1m", keep_failed = "2m")]
async fn brief(fails: bool) -> Result<(), String> {
    if fails { Err("no".to_owned()) } else { Ok(()) }
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
