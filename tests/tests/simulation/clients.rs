//! Clients: they kick jobs, and steer some of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::jobs::JobFilter;
use aioq::prelude::*;
use aioq::store::Status;
use aioq::{Backend, JobId, Result};
use aioq_tests::faults::{Fact, Faults, Link, Request};
use tokio::time::sleep;

use crate::bodies::{Kind, play};

/// Number of tries of a kick.
const TRIES: usize = 6;

/// The jobs of all clients, and their requests.
#[derive(Clone, Default)]
pub(crate) struct Asked {
    jobs: Arc<Mutex<BTreeMap<JobId, Job>>>,
    requests: Arc<AtomicUsize>,
}

/// A job as its client knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) kind: usize,
    millis: u64,
    delay: Duration,
    /// True if a kick of it was confirmed.
    pub(crate) confirmed: bool,
}

impl Job {
    /// One that was kicked.
    pub(crate) fn confirmed(kind: usize) -> Self {
        Self { kind, millis: 0, delay: Duration::ZERO, confirmed: true }
    }
}

impl Asked {
    pub(crate) fn jobs(&self) -> BTreeMap<JobId, Job> {
        self.jobs.lock().unwrap().clone()
    }
}

/// One client.
pub(crate) struct Producer {
    name: String,
    link: Link,
    client: Client,
    asked: Asked,
    random: fastrand::Rng,
}

impl Producer {
    pub(crate) async fn new(
        number: usize,
        faults: &Faults,
        backend: &Backend,
        asked: &Asked,
        random: fastrand::Rng,
    ) -> Self {
        let link = faults.link(backend);
        let drawn = AtomicUsize::new(0);
        let ids = move || JobId::from(format!("p{number}-{}", drawn.fetch_add(1, Ordering::Relaxed)));
        let deadline = Duration::from_secs(2);
        let client = Client::builder(link.backend()).id_generator(ids).deadline(deadline).connect();
        let client = client.await.unwrap();
        Self { name: format!("p{number}"), link, client, asked: asked.clone(), random }
    }

    /// Sends this number of requests, with pauses between them.
    pub(crate) async fn work(mut self, steps: usize) {
        for step in 0..steps {
            sleep(Duration::from_millis(self.random.u64(..1_500))).await;
            match self.random.u32(..14) {
                0..5 => self.kick(step).await,
                5..7 => self.steer(Request::Cancel).await,
                7 => self.steer(Request::Abort).await,
                8..10 => self.steer(Request::Retry).await,
                10 => self.clean().await,
                11 => self.steer(Request::Remove).await,
                _ => self.replace(step).await,
            }
        }
    }

    /// Kicks a job until that is confirmed, under a drawn id, a chosen one, or one that others
    /// choose, too.
    async fn kick(&mut self, step: usize) {
        let id = match self.random.u32(..4) {
            0 => Some(JobId::from(format!("{}-own-{step}", self.name))),
            1 => Some(JobId::from(format!("shared-{}", self.random.u32(..3)))),
            _ => None,
        };
        self.kick_under(id).await;
    }

    /// Kicks a job, removes it before long, and kicks another one under its id.
    async fn replace(&mut self, step: usize) {
        let id = if self.random.bool() {
            JobId::from(format!("{}-own-{step}", self.name))
        } else {
            JobId::from(format!("shared-{}", self.random.u32(..3)))
        };
        self.kick_under(Some(id.clone())).await;
        sleep(Duration::from_millis(*self.random.choice(&[0, 10, 300, 2_000]).unwrap())).await;
        self.steer_one(Request::Remove, &id).await;
        self.kick_under(Some(id)).await;
    }

    async fn clean(&mut self) {
        let status = *self.random.choice(&[Status::Completed, Status::Cancelled, Status::Failed]).unwrap();
        let cleaned = self.client.jobs().clean(status, "0s", self.random.usize(1..4)).await;
        self.note(Fact::Note(format!("cleaned {:?}", cleaned.unwrap_or_default().done)));
    }

    async fn kick_under(&mut self, mut id: Option<JobId>) {
        let job = Job {
            kind: Kind::draw(&mut self.random),
            millis: *self.random.choice(&[0, 0, 20, 300, 1_000, 4_000]).unwrap(),
            delay: Duration::from_millis(*self.random.choice(&[0, 0, 0, 400, 3_000]).unwrap()),
            confirmed: false,
        };
        for _ in 0..TRIES {
            let job = self.job_of(id.as_ref(), job);
            let mut call = play(job.kind, job.millis).delay(job.delay);
            if let Some(id) = &id {
                call = call.id(id.clone());
            }
            let number = self.ask(Request::Kick, id.as_ref());
            let kicked = self.client.kiq(call).await;
            self.answer(number, kicked.as_ref().ok().map(|handle| !handle.existing()));
            let (known, confirmed) = match &kicked {
                Ok(handle) => (handle.id().clone(), true),
                Err(error) => (error.id().expect("a kick that failed names its job").clone(), false),
            };
            self.note_job(&known, job, confirmed);
            if confirmed {
                return;
            }
            id = Some(known);
            sleep(Duration::from_millis(self.random.u64(..1_000))).await;
        }
    }

    /// A job that is known already stays what it is.
    fn job_of(&self, id: Option<&JobId>, job: Job) -> Job {
        let mut jobs = self.asked.jobs.lock().unwrap();
        match id {
            Some(id) => *jobs.entry(id.clone()).or_insert(job),
            None => job,
        }
    }

    fn note_job(&self, id: &JobId, job: Job, confirmed: bool) {
        let mut jobs = self.asked.jobs.lock().unwrap();
        jobs.entry(id.clone()).or_insert(job).confirmed |= confirmed;
    }

    async fn steer(&mut self, request: Request) {
        if let Some(id) = self.any_job(request == Request::Retry).await {
            self.steer_one(request, &id).await;
        }
    }

    async fn steer_one(&mut self, request: Request, id: &JobId) {
        let number = self.ask(request, Some(id));
        let jobs = self.client.jobs();
        let answer: Result<bool> = match request {
            Request::Abort => jobs.abort(id, "3s").await,
            Request::Retry => jobs.retry(id).await,
            Request::Remove => jobs.remove(id).await,
            _ => jobs.cancel(id).await,
        };
        if let Err(error) = &answer {
            self.note(Fact::Note(format!("request {number}: {:?}", error.kind())));
        }
        self.answer(number, answer.ok());
    }

    /// One of the jobs; mostly one that has ended badly, if it is to be.
    async fn any_job(&mut self, ended: bool) -> Option<JobId> {
        let mut ids: Vec<JobId> = self.asked.jobs().into_keys().collect();
        if ended && self.random.u32(..4) > 0 {
            let status = if self.random.bool() { Status::Failed } else { Status::Cancelled };
            let filter = JobFilter::new().status(status);
            let bad = self.client.jobs().list(filter, 100).await.map(|page| page.jobs).unwrap_or_default();
            ids = bad.into_iter().map(|job| job.id).collect();
        }
        self.random.choice(&ids).cloned()
    }

    fn ask(&self, request: Request, id: Option<&JobId>) -> usize {
        let number = self.asked.requests.fetch_add(1, Ordering::Relaxed);
        self.note(Fact::Asked(number, request, id.cloned().unwrap_or_else(|| "a new job".into())));
        number
    }

    fn answer(&self, number: usize, answer: Option<bool>) {
        self.note(Fact::Answered(number, answer));
    }

    fn note(&self, fact: Fact) {
        self.link.faults().journal().note(self.link.number(), fact);
    }
}
