//! Jobs that are cancelled while they wait.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aioq::jobs::JobFilter;
use aioq::prelude::*;
use aioq::store::{Expect, RecordLevel, Status};
use aioq::testing::TestClock;
use aioq::worker::WorkerOptions;
use aioq::workers::WorkerInfo;
use aioq::{ErrorKind, JobId};
use aioq_nats::Nats;
use aioq_tests::{Bed, HeldStore, NatsServer, Probe, Running, on_each_backend, soon, unique_prefix, until};
use futures_util::StreamExt as _;

use crate::bodies::{add, gated, patient};
use crate::worker;

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
        assert_eq!(probe.runs(), 0);
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
        // The record tells of the retry before its message is there.
        let is_retrying = async || {
            let depths = client.queues().depths(&["default".to_owned()]).await.unwrap();
            depths[0].retrying == 1
        };
        until("it waits", is_retrying).await;
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
        assert_eq!(probe.runs(), 1);
        running.stop().await;
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

    async fn without_records_jobs_are_still_cancelled_and_listed_while_they_wait(bed: Bed) {
        let client = Client::builder(bed.backend()).records(RecordLevel::None).connect().await.unwrap();
        let handle = client.kiq(add(1, 2)).await.unwrap();
        assert_eq!(handle.status().await.unwrap(), Status::Pending);
        assert_eq!(client.jobs().list(JobFilter::new(), 10).await.unwrap().jobs.len(), 1);
        assert!(handle.cancel().await.unwrap());
        assert_eq!(handle.status().await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(handle.result().await.unwrap_err().kind(), ErrorKind::Unsupported);
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
            let running = Running::start(app).await;
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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_machine_slept_is_known_again_before_it_starts_a_job() {
    let (bed, clock, probe) = (Bed::nats().await, TestClock::new(), Probe::default());
    let app = App::new(bed.backend().clock(&clock)).state(probe.clone());
    let running = Running::start(app.state(Arc::new(AtomicBool::new(false)))).await;
    let client = bed.client().await;
    let kv = client.backend().kv();
    until("it is known", async || !client.workers().list().await.unwrap().is_empty()).await;
    // As after a minute of sleep: the clock of the process stood still, its heartbeat has expired.
    clock.set_ahead(Duration::from_secs(60));
    for entry in kv.scan("worker.").await.unwrap() {
        assert!(kv.delete(&entry.key, Expect::Any).await.unwrap());
    }
    let handle = client.kiq(gated()).await.unwrap();
    soon(probe.started.notified()).await;
    assert!(client.workers().list().await.unwrap().iter().any(WorkerInfo::is_alive));
    assert!(!handle.cancel().await.unwrap(), "it has started");
    probe.gate.add_permits(1);
    soon(handle.result()).await.unwrap();
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

/// Appends its id to a file.
#[task(queue = "skewed")]
async fn noted(path: &Path, #[inject] ctx: &Context) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{}\n", ctx.id()).as_bytes()).unwrap();
    // It still runs when the cancel request is decided.
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// The settings of [`a_worker_with_a_wrong_clock`]: URL, prefix, file of its jobs, seconds by which
/// its clock is behind at the start, and from the first job on.
const WRONG_CLOCK: &str = "AIOQ_TEST_WRONG_CLOCK";

/// Another process of the next test. Does nothing without settings.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_wrong_clock() {
    let Ok(settings) = std::env::var(WRONG_CLOCK) else { return };
    let settings: Vec<&str> = settings.split(' ').collect();
    let [url, prefix, notes, behind, stepped] = settings[..] else { panic!("{settings:?}") };
    let [behind, stepped] = [behind, stepped].map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let clock = TestClock::new();
    clock.set_behind(behind);
    let backend = aioq::Backend::from(Nats::new(url).prefix(prefix)).clock(&clock);
    let app = App::new(backend).worker_options(WorkerOptions::new().queues(["skewed"]));
    let worker = Running::start(app).await;
    until("a job has run", async || Path::new(notes).exists()).await;
    clock.set_behind(stepped);
    worker.ended().await;
}

#[tokio::test]
async fn a_cancelled_job_does_not_run_in_a_process_whose_clock_is_wrong() {
    const JOBS: usize = 300;
    let server = NatsServer::shared().await.unwrap();
    for (behind, stepped) in [(25, 25), (120, 120), (0, 3600)] {
        let prefix = unique_prefix();
        let notes = std::env::temp_dir().join(&prefix);
        let settings = format!("{} {prefix} {} {behind} {stepped}", server.url(), notes.display());
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "cancel::a_worker_with_a_wrong_clock"]).env(WRONG_CLOCK, settings);
        let mut process = command.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let client = Client::connect(Nats::new(server.url()).prefix(&prefix)).await.unwrap();
        until("the worker is there", async || !client.workers().list().await.unwrap().is_empty()).await;
        soon(client.kiq(noted(&notes)).await.unwrap().result()).await.unwrap();

        let races = (0..JOBS).map(async |_| {
            let job = client.kiq(noted(&notes)).await.unwrap();
            (job.cancel().await.unwrap(), job.wait().await.unwrap())
        });
        let raced = futures_util::stream::iter(races).buffered(4).collect::<Vec<_>>();
        let raced = soon(raced).await;
        let ran = std::fs::read_to_string(&notes).unwrap();
        let ran: HashSet<&str> = ran.lines().collect();
        for (is_cancelled, record) in &raced {
            let id = record.id.as_str();
            assert_eq!(*is_cancelled, !ran.contains(id), "{behind} {stepped} {id}: {}", record.status);
        }
        let cancelled = raced.iter().filter(|(is_cancelled, _)| *is_cancelled).count();
        println!("{behind} s, then {stepped} s behind: {cancelled} of {JOBS} cancelled");
        process.kill().await.unwrap();
        std::fs::remove_file(notes).unwrap();
    }
}
