//! One tick of a schedule, its schedulers, a worker, and what must hold.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::prelude::*;
use aioq::schedules::{Missed, Schedule};
use aioq::testing::TestClock;
use aioq::worker::WorkerOptions;
use aioq::{Backend, JobId, Timestamp};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use crate::desk::{Actor, Desk, Request};
use crate::link::{self, Link, Mistake};
use crate::search;

/// Time that a choice lets pass: longer than a lease, and than schedulers wait for each other.
const A_WHILE: Duration = Duration::from_millis(1_300);
const QUEUE: &str = "tick";
const SCHEDULE: &str = "once";
const ACK_WAIT: Duration = Duration::from_secs(1);
/// Number of turns that every task gets until it waits for the desk.
const TURNS: usize = 16;
/// Steps after which a run counts as endless.
const MOST_STEPS: usize = 400;
/// Number of times that time passes before all count as being at rest.
const RESTS: usize = 40;

/// The actors of a world, and their crashes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) schedulers: usize,
    /// Number of schedulers that die.
    pub(crate) deaths: usize,
    pub(crate) work_crashes: usize,
    /// Number of times that the record of the job is forgotten.
    pub(crate) forget: usize,
    /// True if the schedule may be paused.
    pub(crate) pause: bool,
    pub(crate) mistake: Option<Mistake>,
}

impl Setting {
    pub(crate) const CALM: Self =
        Self { schedulers: 2, deaths: 0, work_crashes: 0, forget: 0, pause: false, mistake: None };
}

/// A choice of the search.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    LetThrough(Request),
    SchedulerDies(usize),
    WorkerDies,
    RecordForgotten,
    Paused,
    TimePasses,
}

/// Number of bodies so far.
#[derive(Clone)]
struct Stage {
    desk: Desk,
    runs: Arc<Mutex<usize>>,
}

#[task(queue = "tick")]
async fn strike(#[inject] stage: &Stage) {
    *stage.runs.lock().unwrap() += 1;
    stage.desk.note("the body runs".to_owned());
}

pub(crate) struct World {
    setting: Setting,
    left: Setting,
    desk: Desk,
    backend: Backend,
    stage: Stage,
    client: Client,
    job: JobId,
    schedulers: Vec<Option<JoinHandle<()>>>,
    worker: JoinHandle<()>,
    /// Number of workers so far.
    started: usize,
    steps: usize,
    rests: usize,
    paused: bool,
}

fn start(desk: &Desk, backend: &Backend, stage: &Stage, actor: Actor, mistake: Option<Mistake>) -> App {
    let link = Link { desk: desk.clone(), actor, mistake };
    // Time stands still between two steps; the kicks of two machines are told apart by their times.
    let clock = TestClock::new();
    if let Actor::Rerunner(number) = actor {
        clock.set_ahead(Duration::from_micros(number as u64 + 1));
    }
    App::new(link.over(backend).clock(&clock)).state(stage.clone())
}

async fn run(app: App, options: WorkerOptions) -> JoinHandle<()> {
    let worker = app.worker_options(options).worker().await.unwrap();
    tokio::spawn(async move {
        worker.run(std::future::pending()).await.unwrap();
    })
}

fn worker_options() -> WorkerOptions {
    let options = WorkerOptions::new().queues([QUEUE]).schedules(false).concurrency(1);
    options.max_prefetch(0).ack_wait(ACK_WAIT).max_crashes(100)
}

impl World {
    /// Lets every task go on until it waits. Time stands still.
    async fn settle(&self) {
        for _ in 0..TURNS {
            yield_now().await;
        }
    }

    async fn messages(&self) -> u64 {
        let depth = self.client.queues().depths(&[QUEUE.to_owned()]).await.unwrap().remove(0);
        depth.ready + depth.held + depth.scheduled + depth.retrying
    }

    fn runs(&self) -> usize {
        *self.stage.runs.lock().unwrap()
    }

    async fn has_ended_record(&self) -> bool {
        let stored = self.backend.jobs().unwrap().get(&self.job).await.unwrap();
        stored.is_some_and(|stored| stored.record.status.is_terminal())
    }

    fn wrong_runs(&self) -> Option<String> {
        // A body that began may begin again with its next worker.
        let most = 1 + self.setting.work_crashes - self.left.work_crashes;
        (self.runs() > most).then(|| format!("the tick has run {} times", self.runs()))
    }
}

impl search::World for World {
    type Setting = Setting;
    type Choice = Choice;

    async fn new(setting: Setting) -> Self {
        let (desk, backend) = (Desk::default(), Backend::from(Memory::new()));
        let client = Client::connect(backend.clone()).await.unwrap();
        let stage = Stage { desk: desk.clone(), runs: Arc::default() };
        let tick = Timestamp::now() + Duration::from_secs(1);
        let once = Schedule::at(tick).missed(Missed::Once);
        client.schedules().put(SCHEDULE, once, strike()).await.unwrap();
        let second = Timestamp::from_micros(tick.as_micros() / 1_000_000 * 1_000_000);
        let job = JobId::from(format!("{SCHEDULE}@{second}"));
        let mut schedulers = Vec::new();
        for number in 0..setting.schedulers {
            // A client that reruns jobs forgets nothing, and neither does a scheduler.
            let app = start(&desk, &backend, &stage, Actor::Rerunner(number), setting.mistake);
            schedulers.push(Some(run(app, WorkerOptions::new().queues(["elsewhere"])).await));
        }
        let app = start(&desk, &backend, &stage, Actor::Worker(0), setting.mistake);
        let worker = run(app, worker_options()).await;
        let world = Self {
            setting,
            left: setting,
            desk,
            backend,
            stage,
            client,
            job,
            schedulers,
            worker,
            started: 1,
            steps: 0,
            rests: 0,
            paused: false,
        };
        world.settle().await;
        world
    }

    async fn choices(&self) -> Vec<Choice> {
        let requests = self.desk.waiting();
        let mut choices = Vec::new();
        for (number, scheduler) in self.schedulers.iter().enumerate() {
            let is_amid = requests.iter().any(|request| request.actor == Actor::Rerunner(number));
            if self.left.deaths > 0 && is_amid && scheduler.is_some() {
                choices.push(Choice::SchedulerDies(number));
            }
        }
        if self.left.work_crashes > 0
            && requests.iter().any(|request| matches!(request.actor, Actor::Worker(_)))
        {
            choices.push(Choice::WorkerDies);
        }
        if self.left.forget > 0 && self.has_ended_record().await {
            choices.push(Choice::RecordForgotten);
        }
        if self.left.pause {
            choices.push(Choice::Paused);
        }
        let is_busy = !requests.is_empty();
        choices.extend(requests.into_iter().map(Choice::LetThrough));
        if !is_busy && (self.rests < 3 || (self.messages().await > 0 && self.rests < RESTS)) {
            choices.push(Choice::TimePasses);
        }
        choices
    }

    fn same(&self, choice: &Choice) -> Choice {
        match choice {
            Choice::LetThrough(request) => Choice::LetThrough(self.desk.same(request)),
            choice => choice.clone(),
        }
    }

    async fn step(&mut self, choice: Choice) -> Option<String> {
        match choice {
            Choice::LetThrough(request) => {
                self.rests = 0;
                self.desk.let_through(&request);
            }
            Choice::SchedulerDies(number) => {
                self.desk.note(format!("scheduler {number} dies"));
                self.left.deaths -= 1;
                let task = self.schedulers[number].take().unwrap();
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            }
            Choice::WorkerDies => {
                self.desk.note("the worker dies".to_owned());
                self.left.work_crashes -= 1;
                self.worker.abort();
                let actor = Actor::Worker(self.started);
                self.started += 1;
                let app = start(&self.desk, &self.backend, &self.stage, actor, self.setting.mistake);
                self.worker = run(app, worker_options()).await;
            }
            Choice::RecordForgotten => {
                self.desk.note("the record is forgotten".to_owned());
                self.left.forget -= 1;
                let jobs = self.backend.jobs().unwrap();
                let stored = jobs.get(&self.job).await.unwrap().unwrap();
                assert!(jobs.remove(&[stored]).await.remove(0).unwrap());
            }
            Choice::Paused => {
                self.desk.note("the schedule is paused".to_owned());
                self.left.pause = false;
                self.paused = self.client.schedules().pause(SCHEDULE).await.unwrap();
            }
            Choice::TimePasses => {
                self.rests += 1;
                self.desk.time_passes();
                sleep(A_WHILE).await;
            }
        }
        self.settle().await;
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Some("no rest".to_owned());
        }
        self.wrong_runs()
    }

    async fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let entries = self.backend.kv().scan("schedule.").await.unwrap();
        link::schedule(&self.desk, entries.first()).hash(&mut hasher);
        let stored = self.backend.jobs().unwrap().get(&self.job).await.unwrap();
        link::record(&self.desk, &self.job, stored.as_ref()).hash(&mut hasher);
        let queued = self.backend.broker().find(&self.job).await.unwrap();
        link::message(&self.desk, &self.job, queued.as_ref()).hash(&mut hasher);
        for request in self.desk.waiting() {
            (request.actor, request.what).hash(&mut hasher);
        }
        let Setting { deaths, work_crashes, forget, pause, .. } = self.left;
        (deaths, work_crashes, forget, pause, self.rests, self.runs()).hash(&mut hasher);
        self.desk.hash(&mut hasher);
        hasher.finish()
    }

    async fn at_rest(&mut self) -> Option<String> {
        let some_live = self.schedulers.iter().any(Option::is_some);
        let is_lost = some_live && !self.paused && self.runs() == 0;
        is_lost.then(|| "the tick is lost".to_owned())
    }

    fn trace(&self) -> String {
        self.desk.trace()
    }
}
