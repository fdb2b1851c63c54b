//! Clients that kick jobs of keys, cancel and rerun them, and freeze between two requests.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::JobId;
use aioq::prelude::*;
use aioq_tests::faults::{Fact, Link, Request};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::tasks::{Key, job_of};
use crate::bodies::Kind;
use crate::crew::Crew;

/// A kick.
#[derive(Clone)]
pub(super) struct Kick {
    pub(super) key: Key,
    /// Number of lines of the journal as it began.
    pub(super) begun: usize,
    /// `None` if it failed.
    pub(super) answer: Option<Answer>,
}

/// What a kick was answered with.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) id: JobId,
    pub(super) existing: bool,
    /// Number of lines of the journal.
    pub(super) at: usize,
}

/// Kicks of all kickers. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Kicks {
    kicks: Arc<Mutex<Vec<Kick>>>,
    ids: Arc<AtomicUsize>,
}

impl Kicks {
    pub(super) fn all(&self) -> Vec<Kick> {
        self.kicks.lock().unwrap().clone()
    }

    fn ids(&self) -> Vec<JobId> {
        self.all().into_iter().filter_map(|kick| Some(kick.answer?.id)).collect()
    }
}

struct Kicker {
    link: Link,
    client: Client,
    kicks: Kicks,
    keys: Range<u32>,
    random: fastrand::Rng,
}

pub(super) async fn start_kicker(crew: &mut Crew, kicks: &Kicks, keys: Range<u32>) -> JoinHandle<()> {
    let (link, clock, ids) = (crew.faults.link(&crew.backend), crew.clock(), Arc::clone(&kicks.ids));
    let new_id = move || job_of(ids.fetch_add(1, Ordering::Relaxed));
    let deadline = Duration::from_secs(4);
    let client = Client::builder(link.backend().clock(&clock)).id_generator(new_id).deadline(deadline);
    let client = client.connect().await.unwrap();
    let is_debounced = Key::DEBOUNCED.contains(&keys.start);
    let kicker = Kicker { link, client, kicks: kicks.clone(), keys, random: crew.random.fork() };
    let (steps, pause) = if is_debounced { (10..40, 800) } else { (4..14, 1_200) };
    tokio::spawn(kicker.work(crew.random.usize(steps), pause))
}

impl Kicker {
    async fn work(mut self, steps: usize, pause: u64) {
        for _ in 0..steps {
            sleep(Duration::from_millis(self.random.u64(..pause))).await;
            match self.random.u32(..20) {
                0 => self.link.freeze(Duration::from_millis(self.random.u64(200..4_000))),
                1 => self.steer().await,
                _ => self.kick().await,
            }
        }
    }

    async fn kick(&mut self) {
        let key = Key(self.random.u32(self.keys.clone()));
        let millis = *self.random.choice(&[0, 0, 20, 300, 1_500]).unwrap();
        let begun = self.link.faults().journal().lines().len();
        let number = {
            let mut kicks = self.kicks.kicks.lock().unwrap();
            kicks.push(Kick { key, begun, answer: None });
            kicks.len() - 1
        };
        self.note(format!("kick {number}, of key {key}"));
        if self.random.bool() {
            let span = Duration::from_millis(self.random.u64(1_000..4_000));
            self.link.freeze_at_write(self.random.u32(1..4), span);
        }
        match key.kick(&self.client, number, Kind::draw(&mut self.random), millis).await {
            Ok(handle) => {
                let (id, existing) = (handle.id().clone(), handle.existing());
                self.note(format!("kick {number} is answered with {id}, existing: {existing}"));
                let at = self.link.faults().journal().lines().len();
                self.kicks.kicks.lock().unwrap()[number].answer = Some(Answer { id, existing, at });
            }
            Err(error) => self.note(format!("kick {number} fails: {:?}", error.kind())),
        }
    }

    /// Cancels or reruns a job.
    async fn steer(&mut self) {
        let Some(id) = self.random.choice(self.kicks.ids()) else { return };
        let request = if self.random.bool() { Request::Cancel } else { Request::Retry };
        let journal = self.link.faults().journal().clone();
        journal.note(self.link.number(), Fact::Asked(0, request, id.clone()));
        let jobs = self.client.jobs();
        let answer = if request == Request::Cancel { jobs.cancel(&id).await } else { jobs.retry(&id).await };
        self.note(format!("{request:?} {id}: {:?}", answer.map_err(|error| error.kind())));
    }

    fn note(&self, what: String) {
        self.link.faults().journal().note(self.link.number(), Fact::Note(what));
    }
}
