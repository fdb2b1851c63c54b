//! Defects that seeds have brought to light, each by itself: only planned faults happen here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aioq::prelude::*;
use aioq::store::{Expect, JobRecord, Status};
use aioq::testing::TestClock;
use aioq::worker::WorkerOptions;
use aioq::{Backend, ErrorKind, JobId};
use aioq_tests::faults::{Fact, Fault, Faults};
use tokio::time::sleep;

use crate::bodies::{Kind, Stage, play};
use crate::check::check;
use crate::clients::Job;
use crate::workers::{ACK_WAIT, Live};

/// Long enough for everything that is not cut off.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Scene {
    pub(crate) faults: Faults,
    pub(crate) backend: Backend,
    pub(crate) stage: Stage,
    /// Over a link that nothing happens to.
    pub(crate) client: Client,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let (faults, backend) = (Faults::planned(), Backend::from(Memory::new()));
        let stage = Stage::new(faults.journal());
        let client = Client::connect(backend.clone()).await.unwrap();
        Self { faults, backend, stage, client }
    }

    pub(crate) async fn worker(&self) -> Live {
        let options = WorkerOptions::new().concurrency(1).grace(Duration::ZERO);
        Live::start(&self.faults, &self.backend, &self.stage, options, &TestClock::new()).await
    }

    /// Waits until this number of runs has begun.
    pub(crate) async fn runs(&self, count: usize) {
        while self.stage.runs().len() < count {
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn status(&self, id: &str) -> Status {
        self.client.jobs().get(&id.into()).await.unwrap().status
    }
}

#[tokio::test(start_paused = true)]
async fn a_kick_that_failed_names_its_job() {
    let scene = Scene::new().await;
    let link = scene.faults.link(&scene.backend);
    let client = Client::connect(link.backend()).await.unwrap();
    link.plan("get", [Fault::Refused]);
    let error = client.kiq(play(Kind::WELL, 0).id("chosen")).await.unwrap_err();
    assert_eq!((error.kind(), error.id().unwrap().as_str()), (ErrorKind::Connection, "chosen"));
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_fails_ends_no_worker() {
    let scene = Scene::new().await;
    let worker = scene.worker().await;
    sleep(Duration::from_secs(1)).await;
    worker.link().plan("next", [Fault::Refused]);
    for id in ["first", "second"] {
        scene.client.kiq(play(Kind::WELL, 0).id(id)).await.unwrap();
        sleep(SOON).await;
        assert_eq!(scene.status(id).await, Status::Completed);
    }
    assert_eq!(worker.stop().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_cannot_be_taken_up_at_once_is_tried_again() {
    let scene = Scene::new().await;
    let worker = scene.worker().await;
    sleep(Duration::from_secs(1)).await;
    worker.link().plan("watch", [Fault::Refused; 4]);
    worker.link().end_watches();
    sleep(SOON).await;
    let handle = scene.client.kiq(play(Kind::WELL, 0).delay("1h")).await.unwrap();
    assert!(handle.cancel().await.unwrap(), "the worker hears of it and answers");
    assert_eq!(worker.stop().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_confirmation_is_lost_runs_the_job() {
    let scene = Scene::new().await;
    scene.client.kiq(play(Kind::WELL, 0).id("job")).await.unwrap();
    // Delivered once, so that the worker has to claim it.
    let first = scene.client.dequeue(&["default"], ACK_WAIT).await.unwrap().unwrap();
    first.receipt.release(Duration::from_secs(1)).await.unwrap();
    let worker = scene.worker().await;
    sleep(Duration::from_millis(500)).await;
    worker.link().plan("put", [Fault::Lost]);
    scene.runs(1).await;
    sleep(SOON).await;
    assert_eq!(scene.status("job").await, Status::Completed);
    let starts = scene.faults.journal().lines().iter().filter_map(starts_of).max();
    assert_eq!(starts, Some(2), "the delivery without a trace, and the one that ran");
    assert_eq!(worker.stop().await, None);
}

fn starts_of(line: &aioq_tests::faults::Line) -> Option<u32> {
    match &line.fact {
        Fact::Put(record, _) => Some(record.starts),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_run_that_was_cut_off_writes_nothing_of_a_job_that_was_run_again() {
    a_run_is_cut_off(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_later_run_that_was_cut_off_writes_nothing_of_a_job_that_was_run_again() {
    a_run_is_cut_off(2).await;
}

/// The worker that runs that attempt is cut off before it ends. Another one takes over, and the job
/// fails; it is run again, which removes its record. Then the first worker is back.
async fn a_run_is_cut_off(attempt: usize) {
    let scene = Scene::new().await;
    let cut_off = scene.worker().await;
    scene.client.kiq(play(Kind::FAILS, 300).id("job")).await.unwrap();
    scene.runs(attempt).await;
    cut_off.link().cut(Duration::from_secs(30));
    let other = scene.worker().await;
    while scene.status("job").await != Status::Failed {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(other.stop().await, None);
    let lines = scene.faults.journal().lines().len();
    assert!(scene.client.jobs().retry(&"job".into()).await.unwrap());
    sleep(Duration::from_secs(60)).await;
    let later = scene.faults.journal().lines().split_off(lines);
    let started = later.iter().position(|line| matches!(line.fact, Fact::Started(..))).unwrap();
    let written = later.iter().position(|line| matches!(line.fact, Fact::Put(..))).unwrap();
    assert!(started < written, "{}", later[written]);
    assert_eq!(scene.status("job").await, Status::Failed);
    assert_eq!(cut_off.stop().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_run_again_while_it_is_removed_runs_once() {
    a_record_is_removed_late(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_earlier_record_is_removed_while_it_runs_again_runs_once() {
    a_record_is_removed_late(true).await;
}

/// Somebody removes a job that was cancelled, and somebody else runs it again, after the look of
/// the first and before its write: that comes while the body runs, or before.
async fn a_record_is_removed_late(while_it_runs: bool) {
    let scene = Scene::new().await;
    let link = scene.faults.link(&scene.backend);
    let client = Client::connect(link.backend()).await.unwrap();
    let (jobs, id) = (client.jobs(), JobId::from("job"));
    client.kiq(play(Kind::WELL, 300).id(id.clone())).await.unwrap();
    assert!(jobs.cancel(&id).await.unwrap());
    let seen = jobs.stored(&id).await.unwrap().unwrap();
    sleep(Duration::from_millis(1)).await;
    // So the record of the earlier run stays.
    link.plan("put", [Fault::Refused]);
    assert!(jobs.retry(&id).await.unwrap());
    let mut removed = JobRecord::unreadable(id.clone(), "default", Status::Pending);
    (removed.attempt, removed.kicked_at) = (0, seen.record.kicked_at);
    assert!(removed.is_removed());
    let mut worker = None;
    if while_it_runs {
        worker = Some(scene.worker().await);
        scene.runs(1).await;
    }
    let expect = Expect::Revision(seen.revision);
    link.backend().jobs().unwrap().put(Arc::new(removed), expect, None).await.unwrap();
    let worker = match worker {
        Some(worker) => worker,
        None => scene.worker().await,
    };
    sleep(SOON).await;
    let record = jobs.get(&id).await.unwrap();
    assert_eq!(record.status, Status::Completed);
    let runs = scene.stage.runs();
    assert_eq!(runs.len(), 1, "nobody else has it");
    assert_eq!(worker.stop().await, None);
    let asked = BTreeMap::from([(id.clone(), Job::confirmed(Kind::WELL))]);
    let wrong = check(&asked, &[(id, Some(record))], &runs, scene.faults.journal());
    assert_eq!(wrong, [""; 0]);
}
