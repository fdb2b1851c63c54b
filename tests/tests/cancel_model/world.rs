//! Does operations to the library, one at a time, and compares with the model after each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::prelude::*;
use aioq::store::{JobRecord, Status};
use aioq::worker::WorkerOptions;
use aioq::{ErrorKind, JobId};
use aioq_tests::Bed;
use tokio::time::sleep;

use crate::bodies::{End, Stage, held};
use crate::look::{QUEUE, check_nothing_waits, listed, watched};
use crate::model::{ACK_WAIT, CallOff, Job, Model, State};
use crate::op::{How, IDS, Op};
use crate::worker::Live;

/// Time that clients wait for workers that do not answer.
const DEADLINE: Duration = Duration::from_secs(1);
/// The most workers that live at once.
const MOST_WORKERS: usize = 3;

/// Does the operations, lets everything come to rest, and compares all the time.
pub(crate) async fn run(ops: &[Op]) {
    let mut world = World::new().await;
    for op in ops {
        world.step(op).await;
    }
    world.come_to_rest().await;
    world.check_nothing_is_left().await;
}

struct World {
    bed: Bed,
    client: Client,
    other_client: Client,
    stage: Stage,
    workers: Vec<Live>,
    model: Model,
    /// All ids there ever were.
    ids: Vec<JobId>,
    /// The runs that the model knows of.
    known_runs: usize,
    records: Arc<Mutex<Vec<JobRecord>>>,
}

impl World {
    async fn new() -> Self {
        let bed = Bed::memory();
        let connect = async || Client::builder(bed.backend()).deadline(DEADLINE).connect().await.unwrap();
        let (client, other_client) = (connect().await, connect().await);
        let records = watched(&client).await;
        // The first listener of a queue says how long a lease is.
        let first = Live::start(bed.app().state(Stage::default()), ACK_WAIT, WorkerOptions::new()).await;
        sleep(Duration::from_millis(1)).await;
        first.stop().await;
        Self {
            client,
            other_client,
            bed,
            stage: Stage::default(),
            workers: Vec::new(),
            model: Model::default(),
            ids: IDS.map(JobId::from).to_vec(),
            known_runs: 0,
            records,
        }
    }

    fn id(&self, number: usize) -> JobId {
        self.ids[number % self.ids.len()].clone()
    }

    async fn step(&mut self, op: &Op) {
        match *op {
            Op::Kick { id, delay } => self.kick(id, delay).await,
            Op::Cancel(number) => self.call_off(CallOff::Cancel, number).await,
            Op::CancelAll(one, other) => self.cancel_all(one, other).await,
            Op::Abort(number) => self.call_off(CallOff::Abort, number).await,
            Op::Retry(number) => self.retry(number).await,
            Op::RetryTwice(number) => self.retry_twice(number).await,
            Op::Remove(number) => self.call_off(CallOff::Remove, number).await,
            Op::Clean { status, limit } => self.clean(status, limit).await,
            Op::Purge => {
                let purged = self.client.queues().purge(QUEUE).await.unwrap().done;
                self.model.purged(purged);
            }
            Op::Pause => {
                self.client.queues().pause(QUEUE).await.unwrap();
                self.model.paused = true;
            }
            Op::Resume => {
                assert_eq!(self.client.queues().resume(QUEUE).await.unwrap(), self.model.paused);
                self.model.paused = false;
            }
            Op::Finish(number, how) => self.finish(number, how).await,
            Op::Advance(span) => sleep(span).await,
            Op::StartWorker if self.workers.len() < MOST_WORKERS => self.start_worker().await,
            Op::StartWorker => {}
            Op::StopWorker(number) => self.stop_worker(number).await,
            Op::DropWorker(number) => self.drop_worker(number).await,
        }
        self.observe().await;
    }

    async fn kick(&mut self, id: Option<usize>, delay: Duration) {
        let call = held().delay(delay);
        let call = if let Some(number) = id { call.id(IDS[number]) } else { call };
        let handle = self.client.kiq(call).await.unwrap();
        let id = handle.id().clone();
        assert_eq!(handle.existing(), self.model.jobs.contains_key(&id), "kick of {id}");
        if !handle.existing() {
            self.model.jobs.insert(id.clone(), Job::kicked(delay, self.known_runs));
        }
        if !self.ids.contains(&id) {
            self.ids.push(id);
        }
    }

    async fn call_off(&mut self, request: CallOff, number: usize) {
        let (id, jobs) = (self.id(number), self.client.jobs());
        let seen = self.status(&id).await;
        let answer = match request {
            CallOff::Cancel => jobs.cancel(&id).await,
            CallOff::Abort => jobs.abort(&id, "5s").await,
            CallOff::Remove => jobs.remove(&id).await,
        };
        self.model.called_off(&id, request, seen, &answer);
    }

    async fn cancel_all(&mut self, one: usize, other: usize) {
        let mut ids = vec![self.id(one), self.id(other)];
        ids.dedup();
        let mut seen = Vec::new();
        for id in &ids {
            seen.push(self.status(id).await);
        }
        let answers = self.client.jobs().cancel_all(&ids).await;
        for ((id, seen), answer) in ids.iter().zip(seen).zip(answers) {
            self.model.called_off(id, CallOff::Cancel, seen, &answer);
        }
    }

    async fn retry(&mut self, number: usize) {
        let id = self.id(number);
        let answer = self.client.jobs().retry(&id).await;
        self.retried(&id, answer);
    }

    async fn retry_twice(&mut self, number: usize) {
        let id = self.id(number);
        let (jobs, other_jobs) = (self.client.jobs(), self.other_client.jobs());
        let (one, other) = tokio::join!(jobs.retry(&id), other_jobs.retry(&id));
        assert!(!matches!((&one, &other), (Ok(true), Ok(true))), "{id} was retried twice at once");
        let first = if matches!(other, Ok(true)) { other } else { one };
        self.retried(&id, first);
    }

    fn retried(&mut self, id: &JobId, answer: aioq::Result<bool>) {
        let Some(job) = self.model.jobs.get_mut(id) else {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotFound, "retry of {id}");
            return;
        };
        assert_eq!(answer.unwrap(), job.may_be_retried(), "retry of {id}, {job:?}");
        if job.may_be_retried() {
            *job = Job::kicked(Duration::ZERO, self.known_runs);
        }
    }

    async fn clean(&mut self, status: Status, limit: usize) {
        let cleaned = self.client.jobs().clean(status, "0s", limit).await.unwrap().done;
        let ended = self.model.jobs.values().filter(|job| job.state == State::Ended(status)).count();
        assert_eq!(cleaned.len(), ended.min(limit), "cleaned {cleaned:?}");
        for id in cleaned {
            let job = self.model.jobs.remove(&id).unwrap();
            assert_eq!(job.state, State::Ended(status), "cleaned {id}");
        }
    }

    async fn finish(&mut self, number: usize, how: How) {
        let running = self.model.running();
        if running.is_empty() {
            return;
        }
        let (id, run) = &running[number % running.len()];
        self.stage.finish(*run, how);
        self.model.jobs.get_mut(id).unwrap().finish(how);
    }

    async fn start_worker(&mut self) {
        let app = self.bed.app().state(self.stage.clone());
        self.workers.push(Live::start(app, ACK_WAIT, WorkerOptions::new()).await);
        self.model.workers += 1;
    }

    async fn stop_worker(&mut self, number: usize) {
        if let Some((worker, runs)) = self.take_worker(number) {
            worker.stop().await;
            self.model.given_back(&runs);
        }
    }

    async fn drop_worker(&mut self, number: usize) {
        if let Some((worker, runs)) = self.take_worker(number) {
            worker.crash().await;
            self.model.dropped.push(tokio::time::Instant::now());
            self.model.lost(&runs);
        }
    }

    /// A worker that is about to end, and its runs.
    fn take_worker(&mut self, number: usize) -> Option<(Live, Vec<usize>)> {
        let worker = number.checked_rem(self.workers.len()).map(|index| self.workers.swap_remove(index))?;
        self.model.workers -= 1;
        let all = self.stage.runs();
        let its = self.model.running().into_iter().map(|(_, run)| run);
        let its = its.filter(|run| all[*run].worker_id == worker.id).collect();
        Some((worker, its))
    }

    async fn status(&self, id: &JobId) -> Option<Status> {
        match self.client.jobs().get(id).await {
            Ok(record) => Some(record.status),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Compares the library with the model.
    async fn observe(&mut self) {
        // Time passes when everybody waits.
        sleep(Duration::from_millis(1)).await;
        let listed = listed(&self.client).await;
        self.take_over_uncertain(&listed);
        self.take_over_starts();
        self.check_runs();
        for id in &self.ids {
            let (status, job) = (self.status(id).await, self.model.jobs.get(id));
            let allowed = job.map(Job::statuses).unwrap_or_default();
            assert_eq!(status.is_some(), job.is_some(), "{id} is {status:?}, {job:?}");
            assert!(status.is_none_or(|status| allowed.contains(&status)), "{id} is {status:?}, {job:?}");
            assert_eq!(listed.get(id), status.as_ref(), "{id} in the list, {job:?}");
        }
        self.check_records();
    }

    /// Learns what came of jobs that may have been called off or purged.
    fn take_over_uncertain(&mut self, listed: &BTreeMap<JobId, Status>) {
        self.model.jobs.retain(|id, job| !std::mem::take(&mut job.purged) || listed.contains_key(id));
        for (id, job) in &mut self.model.jobs {
            if std::mem::take(&mut job.unsure) && listed.get(id) == Some(&Status::Cancelled) {
                job.state = State::Ended(Status::Cancelled);
            }
        }
    }

    /// Takes over which jobs were started; only those that may be.
    fn take_over_starts(&mut self) {
        let runs = self.stage.runs();
        for (run, start) in runs.iter().enumerate().skip(self.known_runs) {
            let job = self.model.jobs.get_mut(&start.id);
            let job = job.unwrap_or_else(|| panic!("{} was started, which is not there", start.id));
            assert!(job.may_start(start.started), "{} was started, {job:?}", start.id);
            assert_eq!(start.attempt, job.attempt, "{}", start.id);
            job.state = State::Runs { run };
        }
        self.known_runs = runs.len();
    }

    /// Jobs that can run do, and those that run are not disturbed; a job is run by one worker at a
    /// time, and completes once.
    fn check_runs(&self) {
        let runs = self.stage.runs();
        for (id, job) in &self.model.jobs {
            let waits_in_vain = self.model.takes_jobs() && job.must_have_started();
            assert!(!waits_in_vain, "{id} is not started, {job:?}");
            let own = || runs.iter().enumerate().skip(job.first_run).filter(|(_, run)| run.id == *id);
            let on: Vec<usize> =
                own().filter(|(_, run)| run.end.is_none()).map(|(number, _)| number).collect();
            match job.state {
                State::Runs { run } => assert_eq!(on, [run], "{id} runs"),
                _ => assert!(on.is_empty(), "{id} runs, {job:?}"),
            }
            let completed = own().filter(|(_, run)| run.end == Some(End::Finished(How::Well))).count();
            let expected = usize::from(job.state == State::Ended(Status::Completed));
            assert_eq!(completed, expected, "{id} completed so often, {job:?}");
        }
    }

    /// Records change along the states, and never after the end; a result is that of the run that
    /// completed.
    fn check_records(&mut self) {
        for record in self.records.lock().unwrap().drain(..) {
            let Some(job) = self.model.jobs.get_mut(&record.id) else { continue };
            if let Some(last) = job.told.last() {
                assert!(!last.is_terminal() && last.leads_to(record.status), "{last} became {record:?}");
            }
            job.told.push(record.status);
            if let Some(result) = record.result {
                let run: usize = result.decode().unwrap();
                let run = &self.stage.runs()[run];
                assert_eq!((&run.id, run.end), (&record.id, Some(End::Finished(How::Well))));
            }
        }
    }

    /// Lets everything run that waits, until nothing is left to run.
    async fn come_to_rest(&mut self) {
        self.step(&Op::Resume).await;
        if self.workers.is_empty() {
            self.step(&Op::StartWorker).await;
        }
        while self.model.jobs.values().any(|job| !matches!(job.state, State::Ended(_))) {
            while !self.model.running().is_empty() {
                self.step(&Op::Finish(0, How::Well)).await;
            }
            self.step(&Op::Advance(Duration::from_secs(5))).await;
        }
    }

    async fn check_nothing_is_left(&mut self) {
        check_nothing_waits(&self.client).await;
        for job in self.model.jobs.values() {
            assert!(job.told.last().is_some_and(|status| status.is_terminal()), "{job:?}");
        }
        while let Some((worker, _)) = self.take_worker(0) {
            worker.stop().await;
        }
    }
}
