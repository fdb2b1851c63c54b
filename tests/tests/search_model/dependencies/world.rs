//! A job, its parents, and what must hold.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::error::Reason;
use aioq::prelude::*;
use aioq::store::{Expect, JobRecord, Status};
use aioq::worker::WorkerOptions;
use aioq::{Backend, ErrorKind, JobId};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use crate::desk::{Actor, Desk, Request};
use crate::link::{self, Link, Mistake};
use crate::search;

/// Time that a choice lets pass: longer than a lease, and than the second look at a parent whose
/// message is missing.
const A_WHILE: Duration = Duration::from_millis(1_300);
const ACK_WAIT: Duration = Duration::from_secs(1);
/// Time in which a worker sweeps and finds every job old enough, also if one died as it swept: its
/// lock lasts for five minutes.
const A_SWEEP: Duration = Duration::from_secs(400);
/// Key of the lock that keeps the sweep of all edges to once a day.
const EDGES_LOCK: &str = "lock.edges";
/// Number of turns that every task gets until it waits for the desk.
const TURNS: usize = 16;
/// Steps after which a run counts as endless.
const MOST_STEPS: usize = 400;
const CHILD: &str = "child";

/// The actors of a world, and their crashes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) parents: usize,
    /// Number of parents that may fail.
    pub(crate) failing: usize,
    /// Number of reruns by hand of failed parents.
    pub(crate) parent_reruns: usize,
    /// True if the failed child may be run again by hand.
    pub(crate) child_rerun: bool,
    pub(crate) kick_crashes: usize,
    pub(crate) work_crashes: usize,
    pub(crate) rerun_crashes: usize,
    pub(crate) mistake: Option<Mistake>,
}

impl Setting {
    pub(crate) const CALM: Self = Self {
        parents: 2,
        failing: 0,
        parent_reruns: 0,
        child_rerun: false,
        kick_crashes: 0,
        work_crashes: 0,
        rerun_crashes: 0,
        mistake: None,
    };
}

/// A choice of the search.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    LetThrough(Request),
    KickerDies,
    /// The worker at a post dies, and another one takes the post.
    WorkerDies(usize),
    RerunnerDies(usize),
    TimePasses,
    /// Nobody reruns anything any more.
    NobodyReruns,
    Sweep,
}

/// The bodies, and what went wrong with them.
#[derive(Clone)]
struct Stage {
    desk: Desk,
    actor: Actor,
    backend: Backend,
    parents: usize,
    failing: usize,
    bodies: Arc<Mutex<Bodies>>,
}

#[derive(Default)]
struct Bodies {
    /// Runs of the child that began.
    child_runs: usize,
    wrong: Option<String>,
}

#[task(queue = "dependencies")]
async fn parent(place: usize, #[inject] ctx: &Context, #[inject] stage: &Stage) -> TaskResult<()> {
    let answers: &[&str] = if place < stage.failing { &["well", "badly"] } else { &["well"] };
    let what = format!("the body of {} ends", ctx.id());
    let end = stage.desk.wait(stage.actor, what, answers).await;
    stage.desk.learn(stage.actor, answers[end]);
    if end == 0 { Ok(()) } else { Err(TaskError::fatal("badly")) }
}

#[task(queue = "dependencies")]
async fn child(#[inject] stage: &Stage) {
    stage.desk.note("the body of the child starts".to_owned());
    stage.bodies.lock().unwrap().child_runs += 1;
    for place in 0..stage.parents {
        let found = stage.backend.jobs().unwrap().get(&parent_id(place)).await.unwrap();
        let status = found.map(|found| found.record.status);
        if status != Some(Status::Completed) {
            let wrong = format!("the child runs while parent {place} is {status:?}");
            stage.bodies.lock().unwrap().wrong = Some(wrong);
        }
    }
    stage.desk.wait(stage.actor, "the body of the child ends".to_owned(), &[""]).await;
    stage.desk.learn(stage.actor, "the body of the child ends");
}

fn parent_id(place: usize) -> JobId {
    JobId::from(format!("parent-{place}"))
}

/// A worker of one queue: of a parent, or of the child.
struct Post {
    queue: String,
    number: usize,
    task: JoinHandle<()>,
}

struct Rerunner {
    job: JobId,
    task: JoinHandle<()>,
}

pub(crate) struct World {
    desk: Desk,
    backend: Backend,
    bodies: Arc<Mutex<Bodies>>,
    client: Client,
    kicker: Option<JoinHandle<aioq::Result<()>>>,
    /// The last one is that of the child.
    posts: Vec<Post>,
    rerunners: Vec<Rerunner>,
    /// Deaths of workers of the child.
    child_deaths: usize,
    /// True once a kicker or a rerunner has died: then the sweep may be needed.
    may_sweep: bool,
    sweeps_left: usize,
    steps: usize,
    setting: Setting,
    left: Setting,
}

impl World {
    fn link(&self, actor: Actor) -> Backend {
        Link { desk: self.desk.clone(), actor, mistake: self.setting.mistake }.over(&self.backend)
    }

    async fn kick_parent(&self, place: usize) {
        let ids = move || parent_id(place);
        let client = Client::builder(self.backend.clone()).id_generator(ids).connect().await.unwrap();
        client.kiq(parent(place).queue(format!("queue-{place}"))).await.unwrap();
    }

    async fn start_kicker(&mut self) {
        let backend = self.link(Actor::Kicker(0));
        let client = Client::builder(backend).id_generator(|| CHILD.into()).connect().await.unwrap();
        let parents: Vec<JobId> = (0..self.setting.parents).map(parent_id).collect();
        self.kicker =
            Some(tokio::spawn(
                async move { client.kiq(child().queue(CHILD).after_ids(parents)).await.map(drop) },
            ));
    }

    async fn start_worker(&self, queue: String, number: usize) -> Post {
        let actor = Actor::Worker(number);
        let options = WorkerOptions::new()
            .queues([queue.clone()])
            .concurrency(1)
            .max_prefetch(0)
            .ack_wait(ACK_WAIT)
            .max_crashes(100);
        let Setting { parents, failing, .. } = self.setting;
        let (desk, backend, bodies) = (self.desk.clone(), self.backend.clone(), Arc::clone(&self.bodies));
        let stage = Stage { desk, actor, backend, parents, failing, bodies };
        let app = App::new(self.link(actor)).state(stage).worker_options(options);
        let worker = app.worker().await.unwrap();
        let task = tokio::spawn(async move {
            worker.run(std::future::pending()).await.unwrap();
        });
        Post { queue, number, task }
    }

    /// A client that runs a job again, once it has failed.
    async fn start_rerunner(&mut self, job: JobId) {
        let actor = Actor::Rerunner(self.rerunners.len());
        let client = Client::connect(self.link(actor)).await.unwrap();
        let (desk, id) = (self.desk.clone(), job.clone());
        let task = tokio::spawn(async move {
            desk.wait(actor, "begins".to_owned(), &[""]).await;
            match client.jobs().retry(&id).await {
                Err(error) if error.kind() != ErrorKind::Conflict => panic!("{error}"),
                answer => desk.learn(actor, &format!("{:?}", answer.ok())),
            }
        });
        self.rerunners.push(Rerunner { job, task });
    }

    /// Lets every task go on until it waits. Time stands still.
    async fn settle(&self) {
        for _ in 0..TURNS {
            yield_now().await;
        }
    }

    async fn record(&self, id: &JobId) -> Option<JobRecord> {
        self.backend.jobs().unwrap().get(id).await.unwrap().map(|found| found.record)
    }

    async fn messages(&self) -> u64 {
        let queues: Vec<String> = self.posts.iter().map(|post| post.queue.clone()).collect();
        let depths = self.client.queues().depths(&queues).await.unwrap();
        depths.iter().map(|depth| depth.ready + depth.held + depth.scheduled + depth.retrying).sum()
    }

    fn ids(&self) -> impl Iterator<Item = JobId> {
        (0..self.setting.parents).map(parent_id).chain([CHILD.into()])
    }

    /// Deaths of those of whom something waits here. A death before a read is no other run than
    /// one before the next write.
    fn deaths(&self, requests: &[Request]) -> Vec<Choice> {
        let writes = |what: &str| {
            ["put", "kick", "ack", "remove", "the body"].iter().any(|write| what.starts_with(write))
        };
        let is_amid = |actor| requests.iter().any(|request| request.actor == actor && writes(&request.what));
        let mut deaths = Vec::new();
        if self.left.kick_crashes > 0 && is_amid(Actor::Kicker(0)) {
            deaths.push(Choice::KickerDies);
        }
        let posts = self.posts.iter().enumerate().filter(|_| self.left.work_crashes > 0);
        let dying = posts.filter(|(_, post)| is_amid(Actor::Worker(post.number)));
        deaths.extend(dying.map(|(place, _)| Choice::WorkerDies(place)));
        let rerunners = (0..self.rerunners.len()).filter(|_| self.left.rerun_crashes > 0);
        let dying = rerunners.filter(|number| is_amid(Actor::Rerunner(*number)));
        deaths.extend(dying.map(Choice::RerunnerDies));
        deaths
    }

    /// True if somebody waits for time to pass.
    async fn waits_for_time(&self, idle: &[usize]) -> bool {
        let is_amid =
            |(number, rerunner): (usize, &Rerunner)| !rerunner.task.is_finished() && !idle.contains(&number);
        self.kicker.as_ref().is_some_and(|kicker| !kicker.is_finished())
            || self.rerunners.iter().enumerate().any(is_amid)
            || self.messages().await > 0
    }

    /// What is wrong with the jobs at rest.
    async fn verdict(&self) -> Option<String> {
        let child = self.record(&CHILD.into()).await?;
        let mut all_completed = true;
        for place in 0..self.setting.parents {
            match self.record(&parent_id(place)).await.map(|record| record.status) {
                Some(Status::Completed) => {}
                Some(Status::Failed) => all_completed = false,
                status => return Some(format!("parent {place} does not end: {status:?}")),
            }
        }
        let is_failed_for_parent = child.status == Status::Failed && child.reason == Some(Reason::Dependency);
        if all_completed && child.status != Status::Completed {
            return Some(format!("its parents have completed, and it is {}", child.status));
        }
        if !all_completed && !is_failed_for_parent {
            return Some(format!("a parent has failed, and it is {}", child.status));
        }
        let edges = self.backend.kv().scan("after.").await.unwrap();
        let has_edges = edges.iter().any(|found| !found.value.is_empty());
        (all_completed && has_edges).then(|| "edges of a completed job are left".to_owned())
    }
}

impl search::World for World {
    type Setting = Setting;
    type Choice = Choice;

    async fn new(setting: Setting) -> Self {
        let backend = Backend::from(Memory::new());
        let client = Client::connect(backend.clone()).await.unwrap();
        let mut world = Self {
            desk: Desk::default(),
            backend,
            bodies: Arc::default(),
            client,
            kicker: None,
            posts: Vec::new(),
            rerunners: Vec::new(),
            child_deaths: 0,
            may_sweep: false,
            sweeps_left: 3,
            steps: 0,
            setting,
            left: setting,
        };
        for place in 0..=setting.parents {
            let queue = if place < setting.parents { format!("queue-{place}") } else { CHILD.to_owned() };
            world.posts.push(world.start_worker(queue, place).await);
        }
        world.settle().await;
        for place in 0..setting.parents {
            world.kick_parent(place).await;
        }
        world.start_kicker().await;
        for rerun in 0..setting.parent_reruns {
            world.start_rerunner(parent_id(rerun % setting.failing)).await;
        }
        if setting.child_rerun {
            world.start_rerunner(CHILD.into()).await;
        }
        world.settle().await;
        world
    }

    async fn choices(&self) -> Vec<Choice> {
        let (idle, requests): (Vec<Request>, Vec<Request>) =
            self.desk.waiting().into_iter().partition(|request| request.what.starts_with("begins"));
        let mut choices = self.deaths(&requests);
        choices.extend(requests.into_iter().map(Choice::LetThrough));
        let number = |request: &Request| match request.actor {
            Actor::Rerunner(number) => number,
            actor => unreachable!("{actor:?} reruns nothing"),
        };
        let numbers: Vec<usize> = idle.iter().map(number).collect();
        if choices.is_empty() && self.waits_for_time(&numbers).await {
            choices.push(Choice::TimePasses);
        }
        let is_at_rest = choices.is_empty();
        for request in idle {
            let job = &self.rerunners[number(&request)].job;
            if self.record(job).await.is_some_and(|record| record.status == Status::Failed) {
                choices.push(Choice::LetThrough(request));
            }
        }
        if is_at_rest && !choices.is_empty() {
            choices.push(Choice::NobodyReruns);
        }
        if choices.is_empty() && self.may_sweep && self.sweeps_left > 0 && self.verdict().await.is_some() {
            choices.push(Choice::Sweep);
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
            Choice::KickerDies => {
                self.desk.note("the kicker dies".to_owned());
                self.left.kick_crashes -= 1;
                self.may_sweep = true;
                let kicker = self.kicker.take()?;
                kicker.abort();
                assert!(kicker.await.unwrap_err().is_cancelled());
                self.desk.forget(Actor::Kicker(0));
            }
            Choice::WorkerDies(place) => {
                let Post { queue, number, task } = self.posts.remove(place);
                self.desk.note(format!("worker {number} dies"));
                self.left.work_crashes -= 1;
                self.child_deaths += usize::from(queue == CHILD);
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
                self.desk.forget(Actor::Worker(number));
                let next = self.start_worker(queue, number + self.setting.parents + 1).await;
                self.posts.insert(place, next);
            }
            Choice::RerunnerDies(number) => {
                self.desk.note(format!("rerunner {number} dies"));
                self.left.rerun_crashes -= 1;
                self.may_sweep = true;
                self.rerunners[number].task.abort();
                self.settle().await;
                self.desk.forget(Actor::Rerunner(number));
            }
            Choice::TimePasses => {
                self.desk.time_passes();
                sleep(A_WHILE).await;
            }
            Choice::NobodyReruns => {
                for request in self.desk.waiting() {
                    if let Actor::Rerunner(number) = request.actor {
                        self.rerunners[number].task.abort();
                    }
                }
            }
            Choice::Sweep => {
                self.sweeps_left -= 1;
                self.desk.note("the sweep is due".to_owned());
                self.desk.time_passes();
                self.backend.kv().delete(EDGES_LOCK, Expect::Any).await.unwrap();
                sleep(A_SWEEP).await;
            }
        }
        self.settle().await;
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Some("no rest".to_owned());
        }
        let bodies = self.bodies.lock().unwrap();
        let too_often = bodies.child_runs > 1 + self.child_deaths;
        bodies.wrong.clone().or(too_often.then(|| "the child runs again".to_owned()))
    }

    async fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let edges = self.backend.kv().scan("after.").await.unwrap();
        link::edges(&self.desk, &edges).hash(&mut hasher);
        for id in self.ids() {
            let stored = self.backend.jobs().unwrap().get(&id).await.unwrap();
            link::record(&self.desk, &id, stored.as_ref()).hash(&mut hasher);
            let queued = self.backend.broker().find(&id).await.unwrap();
            link::message(&self.desk, &id, queued.as_ref()).hash(&mut hasher);
        }
        for request in self.desk.waiting() {
            (request.actor, request.what).hash(&mut hasher);
        }
        let Setting { kick_crashes, work_crashes, rerun_crashes, .. } = self.left;
        (kick_crashes, work_crashes, rerun_crashes, self.sweeps_left).hash(&mut hasher);
        (self.bodies.lock().unwrap().child_runs, self.child_deaths).hash(&mut hasher);
        self.desk.hash(&mut hasher);
        hasher.finish()
    }

    async fn at_rest(&mut self) -> Option<String> {
        if let Some(kicker) = self.kicker.take()
            && let Err(error) = kicker.await.unwrap()
        {
            return Some(format!("the kick fails: {error}"));
        }
        for rerunner in self.rerunners.drain(..) {
            // It never began, or has ended.
            rerunner.task.abort();
            if rerunner.task.await.is_err_and(|error| error.is_panic()) {
                return Some("a rerun fails".to_owned());
            }
        }
        self.verdict().await
    }

    fn trace(&self) -> String {
        self.desk.trace()
    }
}
