//! The kicks of one key, its jobs, and what must hold.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::prelude::*;
use aioq::store::Status;
use aioq::worker::WorkerOptions;
use aioq::{Backend, ErrorKind, JobId};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use crate::desk::{Actor, Desk, Request};
use crate::link::{self, Link, Mistake};
use crate::search;

/// Time that a choice lets pass: longer than a lease, the patience of a kick and the entry of a
/// freed key last.
const A_WHILE: Duration = Duration::from_millis(1_300);
const QUEUE: &str = "unique";
const ACK_WAIT: Duration = Duration::from_secs(1);
/// Number of turns that every task gets until it waits for the desk.
const TURNS: usize = 12;
/// Steps after which a run counts as endless.
const MOST_STEPS: usize = 400;

/// The actors of a world, and their crashes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) kickers: usize,
    pub(crate) kick_crashes: usize,
    pub(crate) work_crashes: usize,
    /// True if the first job may fail once, and is then run again by hand.
    pub(crate) rerun: bool,
    /// Number of times that time may pass although an actor has something to do.
    pub(crate) pauses: usize,
    pub(crate) mistake: Option<Mistake>,
}

impl Setting {
    pub(crate) const CALM: Self =
        Self { kickers: 2, kick_crashes: 0, work_crashes: 0, rerun: false, pauses: 1, mistake: None };
}

/// A choice of the search.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    LetThrough(Request),
    KickerDies(usize),
    WorkerDies(usize),
    TimePasses,
}

/// The bodies, and what went wrong with them.
#[derive(Clone)]
struct Stage {
    desk: Desk,
    actor: Option<Actor>,
    bodies: Arc<Mutex<Bodies>>,
    may_fail: bool,
}

#[derive(Default)]
struct Bodies {
    running: Vec<JobId>,
    failed: bool,
    wrong: Option<String>,
}

/// A body that runs.
struct Playing<'a>(&'a Stage, JobId);

impl Stage {
    fn enter(&self, id: &JobId) -> Playing<'_> {
        let mut bodies = self.bodies.lock().unwrap();
        bodies.running.push(id.clone());
        self.desk.note(format!("the body of {id} starts"));
        if bodies.running.len() > 1 {
            bodies.wrong = Some(format!("two bodies run: {:?}", bodies.running));
        }
        Playing(self, id.clone())
    }
}

impl Drop for Playing<'_> {
    fn drop(&mut self) {
        let mut bodies = self.0.bodies.lock().unwrap();
        let place = bodies.running.iter().position(|id| *id == self.1).unwrap();
        bodies.running.remove(place);
        self.0.desk.note(format!("the body of {} ends", self.1));
    }
}

#[task(queue = "unique", unique(by = key))]
async fn work(key: u32, #[inject] ctx: &Context, #[inject] stage: &Stage) -> TaskResult<()> {
    assert_eq!(key, 1);
    let playing = stage.enter(ctx.id());
    let may_fail = stage.may_fail && ctx.id().as_str() == "job-0" && !stage.bodies.lock().unwrap().failed;
    let answers: &[&str] = if may_fail { &["well", "badly"] } else { &["well"] };
    let actor = stage.actor.unwrap();
    let end = stage.desk.wait(actor, format!("the body of {} ends", ctx.id()), answers).await;
    stage.desk.learn(actor, answers[end]);
    drop(playing);
    if end == 0 {
        return Ok(());
    }
    stage.bodies.lock().unwrap().failed = true;
    Err(TaskError::fatal("badly"))
}

/// Job of a kick, or nothing of a kicker that died.
type Kicked = Option<aioq::Result<JobId>>;

pub(crate) struct World {
    setting: Setting,
    desk: Desk,
    backend: Backend,
    stage: Stage,
    client: Client,
    kickers: Vec<(JoinHandle<()>, Arc<Mutex<Kicked>>)>,
    workers: Vec<(usize, JoinHandle<()>)>,
    rerunner: Option<JoinHandle<()>>,
    /// Number of workers so far.
    started: usize,
    steps: usize,
    left: Setting,
}

impl World {
    fn link(&self, actor: Actor) -> Backend {
        let Setting { mistake, .. } = self.setting;
        Link { desk: self.desk.clone(), actor, mistake }.over(&self.backend)
    }

    async fn start_kicker(&mut self, number: usize) {
        let backend = self.link(Actor::Kicker(number));
        let ids = move || JobId::from(format!("job-{number}"));
        let client = Client::builder(backend).id_generator(ids).connect().await.unwrap();
        let kicked = Arc::new(Mutex::new(None));
        let answer = Arc::clone(&kicked);
        let task = tokio::spawn(async move {
            let handle = client.kiq(work(1)).await;
            *answer.lock().unwrap() = Some(handle.map(|handle| handle.id().clone()));
        });
        self.kickers.push((task, kicked));
    }

    async fn start_worker(&mut self) {
        let number = self.started;
        self.started += 1;
        let actor = Actor::Worker(number);
        let options = WorkerOptions::new()
            .queues([QUEUE])
            .concurrency(1)
            .max_prefetch(0)
            .ack_wait(ACK_WAIT)
            .max_crashes(100);
        let stage = Stage { actor: Some(actor), ..self.stage.clone() };
        let app = App::new(self.link(actor)).state(stage).worker_options(options);
        let worker = app.worker().await.unwrap();
        let task = tokio::spawn(async move {
            worker.run(std::future::pending()).await.unwrap();
        });
        self.workers.push((number, task));
    }

    /// A client that runs the first job again, once it has failed.
    async fn start_rerunner(&mut self) {
        let client = Client::connect(self.link(Actor::Rerunner(0))).await.unwrap();
        let desk = self.desk.clone();
        self.rerunner = Some(tokio::spawn(async move {
            desk.wait(Actor::Rerunner(0), "begins".to_owned(), &[""]).await;
            match client.jobs().retry(&"job-0".into()).await {
                Err(error) if error.kind() != ErrorKind::Conflict => panic!("{error}"),
                answer => desk.learn(Actor::Rerunner(0), &format!("{:?}", answer.ok())),
            }
        }));
    }

    /// Lets every task go on until it waits. Time stands still.
    async fn settle(&self) {
        for _ in 0..TURNS {
            yield_now().await;
        }
    }

    fn has_failed(&self) -> bool {
        self.stage.bodies.lock().unwrap().failed
    }

    async fn messages(&self) -> u64 {
        let depth = self.client.queues().depths(&[QUEUE.to_owned()]).await.unwrap().remove(0);
        depth.ready + depth.held + depth.scheduled + depth.retrying
    }
}

impl search::World for World {
    type Setting = Setting;
    type Choice = Choice;

    async fn new(setting: Setting) -> Self {
        let (desk, backend) = (Desk::default(), Backend::from(Memory::new()));
        let client = Client::connect(backend.clone()).await.unwrap();
        let stage =
            Stage { desk: desk.clone(), actor: None, bodies: Arc::default(), may_fail: setting.rerun };
        let mut world = Self {
            setting,
            desk,
            backend,
            stage,
            client,
            kickers: Vec::new(),
            workers: Vec::new(),
            rerunner: None,
            started: 0,
            steps: 0,
            left: setting,
        };
        // Two, each with one job at a time: so two jobs may run, and each worker asks in order.
        world.start_worker().await;
        world.start_worker().await;
        world.settle().await;
        for number in 0..setting.kickers {
            world.start_kicker(number).await;
        }
        if setting.rerun {
            world.start_rerunner().await;
        }
        world.settle().await;
        world
    }

    async fn choices(&self) -> Vec<Choice> {
        let mut requests = self.desk.waiting();
        let may_rerun = self.has_failed()
            && self.client.jobs().get(&"job-0".into()).await.is_ok_and(|job| job.status == Status::Failed);
        requests.retain(|request| {
            may_rerun || !(request.actor == Actor::Rerunner(0) && request.what.starts_with("begins"))
        });
        let mut choices = Vec::new();
        for (number, (task, _)) in self.kickers.iter().enumerate() {
            // A death before the first write, or after the kick, is no other run.
            let is_amid = requests.iter().any(|request| {
                request.actor == Actor::Kicker(number)
                    && (request.what.starts_with("kick") || request.what.starts_with("put"))
            });
            if self.left.kick_crashes > 0 && is_amid && !task.is_finished() {
                choices.push(Choice::KickerDies(number));
            }
        }
        for (place, (number, _)) in self.workers.iter().enumerate() {
            let works = requests.iter().any(|request| request.actor == Actor::Worker(*number));
            if self.left.work_crashes > 0 && works {
                choices.push(Choice::WorkerDies(place));
            }
        }
        let is_busy = !requests.is_empty();
        choices.extend(requests.into_iter().map(Choice::LetThrough));
        let waits = self.kickers.iter().any(|(task, _)| !task.is_finished()) || self.messages().await > 0;
        if (is_busy && self.left.pauses > 0) || (!is_busy && waits) {
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
            Choice::LetThrough(request) => self.desk.let_through(&request),
            Choice::KickerDies(number) => {
                self.desk.note(format!("kicker {number} dies"));
                self.left.kick_crashes -= 1;
                self.kickers[number].0.abort();
            }
            Choice::WorkerDies(place) => {
                let (number, task) = self.workers.remove(place);
                self.desk.note(format!("worker {number} dies"));
                self.left.work_crashes -= 1;
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
                self.start_worker().await;
            }
            Choice::TimePasses => {
                self.left.pauses = self.left.pauses.saturating_sub(1);
                self.desk.time_passes();
                sleep(A_WHILE).await;
            }
        }
        self.settle().await;
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Some("no rest".to_owned());
        }
        self.stage.bodies.lock().unwrap().wrong.clone()
    }

    async fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let entries = self.backend.kv().scan("unique.").await.unwrap();
        link::entry(&self.desk, entries.first()).hash(&mut hasher);
        for number in 0..self.setting.kickers {
            let id = JobId::from(format!("job-{number}"));
            let stored = self.backend.jobs().unwrap().get(&id).await.unwrap();
            link::record(&self.desk, &id, stored.as_ref()).hash(&mut hasher);
            let queued = self.backend.broker().find(&id).await.unwrap();
            link::message(&self.desk, &id, queued.as_ref()).hash(&mut hasher);
        }
        for request in self.desk.waiting() {
            (request.actor, request.what).hash(&mut hasher);
        }
        let Setting { kick_crashes, work_crashes, pauses, .. } = self.left;
        (kick_crashes, work_crashes, pauses).hash(&mut hasher);
        self.desk.hash(&mut hasher);
        hasher.finish()
    }

    async fn at_rest(&mut self) -> Option<String> {
        if let Some(rerunner) = self.rerunner.take() {
            // It never began, or has ended.
            rerunner.abort();
            if rerunner.await.is_err_and(|error| error.is_panic()) {
                return Some("the rerun fails".to_owned());
            }
        }
        let ids: Vec<Option<aioq::Result<JobId>>> =
            self.kickers.iter().map(|(_, kicked)| kicked.lock().unwrap().take()).collect();
        for kicked in ids.into_iter().flatten() {
            let id = match kicked {
                Ok(id) => id,
                Err(error) => return Some(format!("a kick fails: {error}")),
            };
            match self.client.jobs().get(&id).await {
                Ok(job) if job.status.is_terminal() => {}
                job => return Some(format!("the job of a kick, {id}, does not end: {job:?}")),
            }
        }
        self.desk.open();
        let handle = self.client.kiq(work(1)).await.unwrap();
        if handle.existing() {
            return Some(format!("the key is held at rest, by {}", handle.id()));
        }
        let result = handle.result_within(Duration::from_secs(60)).await;
        result.err().map(|error| format!("a kick at rest does not complete: {error}"))
    }

    fn trace(&self) -> String {
        self.desk.trace()
    }
}
