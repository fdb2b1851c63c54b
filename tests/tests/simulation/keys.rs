//! Worlds of unique keys: kickers of a few keys that freeze, die and have wrong clocks, and workers
//! that do, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::prelude::*;
use aioq::store::Status;
use aioq::testing::TestClock;
use aioq::worker::WorkerOptions;
use aioq::{Backend, JobId};
use aioq_tests::faults::{Broken, Fact, Faults, Journal, Link, Request};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::bodies::{Kind, Stage, perform_of_key};
use crate::workers::Live;
use crate::world::Outcome;

/// Keys of each task.
const KEYS: u32 = 2;
/// The most workers at once.
const MOST_WORKERS: usize = 3;
/// Time within which everything comes to rest, in seconds.
const PATIENCE: usize = 1_200;
/// Longer than all windows.
const WINDOW_PASSES: Duration = Duration::from_secs(600);

#[task(unique(by = key), retry(max = 2, backoff = "1s"))]
async fn plain(
    key: u32,
    kind: usize,
    millis: u64,
    #[inject] ctx: &Context,
    #[inject] stage: &Stage,
) -> TaskResult<usize> {
    perform_of_key(key, kind, millis, ctx, stage).await
}

#[task(unique(by = key, within = "5s"), retry(max = 2, backoff = "1s"))]
async fn within(
    key: u32,
    kind: usize,
    millis: u64,
    #[inject] ctx: &Context,
    #[inject] stage: &Stage,
) -> TaskResult<usize> {
    perform_of_key(KEYS + key, kind, millis, ctx, stage).await
}

#[task(unique(by = key, until = "start"), retry(max = 2, backoff = "1s"))]
async fn until_start(
    key: u32,
    kind: usize,
    millis: u64,
    #[inject] ctx: &Context,
    #[inject] stage: &Stage,
) -> TaskResult<usize> {
    perform_of_key(2 * KEYS + key, kind, millis, ctx, stage).await
}

/// A confirmed kick.
struct Confirmed {
    id: JobId,
    existing: bool,
    /// Number of lines of the journal as it began.
    begun: usize,
    /// The same as it was answered.
    answered: usize,
    has_window: bool,
}

/// Confirmed kicks of all kickers.
type Kicks = Arc<Mutex<Vec<Confirmed>>>;

struct Kicker {
    link: Link,
    client: Client,
    kicks: Kicks,
    random: fastrand::Rng,
}

fn number_of(task: u32, key: u32) -> u32 {
    task * KEYS + key
}

async fn kick(client: &Client, number: u32, kind: usize, millis: u64) -> aioq::Result<TaskHandle<usize>> {
    let key = number % KEYS;
    match number / KEYS {
        0 => client.kiq(plain(key, kind, millis)).await,
        1 => client.kiq(within(key, kind, millis)).await,
        _ => client.kiq(until_start(key, kind, millis)).await,
    }
}

impl Kicker {
    async fn work(mut self, steps: usize) {
        for _ in 0..steps {
            sleep(Duration::from_millis(self.random.u64(..1_200))).await;
            match self.random.u32(..10) {
                0 => self.link.freeze(Duration::from_millis(self.random.u64(200..4_000))),
                1 => self.steer().await,
                _ => self.kick().await,
            }
        }
    }

    async fn kick(&mut self) {
        let number = number_of(self.random.u32(..3), self.random.u32(..KEYS));
        let millis = *self.random.choice(&[0, 0, 20, 300, 1_500]).unwrap();
        let journal = self.link.faults().journal().clone();
        let begun = journal.lines().len();
        journal.note(self.link.number(), Fact::Note(format!("kicks key {number}")));
        if self.random.u32(..6) == 0 {
            // Between two of its requests.
            let (link, after) = (self.link.clone(), Duration::from_millis(self.random.u64(..40)));
            tokio::spawn(async move {
                sleep(after).await;
                link.freeze(Duration::from_millis(2_500));
            });
        }
        match kick(&self.client, number, Kind::draw(&mut self.random), millis).await {
            Ok(handle) => {
                let (id, existing) = (handle.id().clone(), handle.existing());
                journal.note(self.link.number(), Fact::Note(format!("key {number} has {id}, {existing}")));
                let (answered, has_window) = (journal.lines().len(), number / KEYS == 1);
                self.kicks.lock().unwrap().push(Confirmed { id, existing, begun, answered, has_window });
            }
            Err(error) => {
                journal.note(self.link.number(), Fact::Note(format!("key {number}: {:?}", error.kind())))
            }
        }
    }

    /// Cancels or reruns a job.
    async fn steer(&mut self) {
        let ids: Vec<JobId> = self.kicks.lock().unwrap().iter().map(|kick| kick.id.clone()).collect();
        let Some(id) = self.random.choice(&ids) else { return };
        let request = if self.random.bool() { Request::Cancel } else { Request::Retry };
        let jobs = self.client.jobs();
        let answer = if request == Request::Cancel { jobs.cancel(id).await } else { jobs.retry(id).await };
        let text = format!("{request:?} {id}: {:?}", answer.map_err(|error| error.kind()));
        self.link.faults().journal().note(self.link.number(), Fact::Note(text));
    }
}

/// Runs a seed.
pub(crate) fn simulate(seed: u64, broken: Option<Broken>) -> Outcome {
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run(seed, broken))
}

struct World {
    faults: Faults,
    backend: Backend,
    stage: Stage,
    workers: Vec<Live>,
    random: fastrand::Rng,
    clocks_apart: u64,
}

async fn run(seed: u64, broken: Option<Broken>) -> Outcome {
    let faults = broken.map_or_else(|| Faults::new(seed), |broken| Faults::broken(seed, broken));
    let stage = Stage::new(faults.journal());
    let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(37) + 5);
    let backend = Backend::from(Memory::new());
    let client = Client::connect(backend.clone()).await.unwrap();
    let clocks_apart = *random.choice(&[1, 4_000, 120_000]).unwrap();
    let mut world = World { faults, backend, stage, workers: Vec::new(), random, clocks_apart };
    let (kicks, ids) = (Kicks::default(), Arc::new(AtomicUsize::new(0)));
    let mut kickers: Vec<JoinHandle<()>> = Vec::new();
    for _ in 0..world.random.usize(2..=4) {
        kickers.push(world.start_kicker(&kicks, &ids).await);
    }
    let mut wrong = Vec::new();
    while kickers.iter().any(|kicker| !kicker.is_finished()) {
        sleep(Duration::from_millis(world.random.u64(..2_000))).await;
        if world.random.u32(..6) == 0 {
            let number = world.random.usize(..kickers.len());
            world.faults.journal().note(0, Fact::Note("a kicker dies".to_owned()));
            kickers.swap_remove(number).abort();
        }
        wrong.extend(world.disturb().await);
    }
    wrong.extend(world.come_to_rest(&client, &kicks).await);
    wrong.extend(check(
        &world.stage.keys(),
        &kicks.lock().unwrap(),
        world.faults.journal(),
        world.clocks_apart,
    ));
    let ids: BTreeSet<JobId> = kicks.lock().unwrap().iter().map(|kick| kick.id.clone()).collect();
    for id in &ids {
        match client.jobs().get(id).await {
            Ok(job) if job.status.is_terminal() => {}
            job => {
                wrong.push(format!("a kick was answered with {id}, which is {:?}", job.map(|job| job.status)))
            }
        }
    }
    sleep(WINDOW_PASSES).await;
    for number in 0..3 * KEYS {
        let handle = kick(&client, number, Kind::WELL, 0).await.unwrap();
        if handle.existing() {
            wrong.push(format!("key {number} is held at rest, by {}", handle.id()));
        }
    }
    Outcome { wrong, journal: world.faults.journal().clone() }
}

impl World {
    fn clock(&mut self) -> TestClock {
        let (clock, span) = (TestClock::new(), Duration::from_millis(self.random.u64(..self.clocks_apart)));
        if self.random.bool() {
            clock.set_ahead(span)
        } else {
            clock.set_behind(span)
        }
        clock
    }

    async fn start_kicker(&mut self, kicks: &Kicks, ids: &Arc<AtomicUsize>) -> JoinHandle<()> {
        let (link, clock, ids) = (self.faults.link(&self.backend), self.clock(), Arc::clone(ids));
        let new_id = move || JobId::from(format!("job-{}", ids.fetch_add(1, Ordering::Relaxed)));
        let deadline = Duration::from_secs(4);
        let client = Client::builder(link.backend().clock(&clock)).id_generator(new_id).deadline(deadline);
        let client = client.connect().await.unwrap();
        let kicker = Kicker { link, client, kicks: Arc::clone(kicks), random: self.random.fork() };
        tokio::spawn(kicker.work(self.random.usize(4..14)))
    }

    /// A worker comes, goes, crashes or freezes, or none does.
    async fn disturb(&mut self) -> Option<String> {
        if let Some(ended) = self.workers.iter().position(Live::has_ended) {
            return self.workers.swap_remove(ended).crash().await;
        }
        let number = self.random.usize(..MOST_WORKERS);
        match self.random.u32(..5) {
            0 if number < self.workers.len() => self.workers.swap_remove(number).crash().await,
            1 if number < self.workers.len() => self.workers.swap_remove(number).stop().await,
            2 if number < self.workers.len() => {
                self.workers[number].link().freeze(Duration::from_millis(self.random.u64(500..8_000)));
                None
            }
            _ if self.workers.len() <= number => {
                self.start_worker().await;
                None
            }
            _ => None,
        }
    }

    async fn start_worker(&mut self) {
        let options = WorkerOptions::new()
            .grace(Duration::from_millis(self.random.u64(..3_000)))
            .concurrency(self.random.usize(1..6));
        let clock = self.clock();
        self.workers.push(Live::start(&self.faults, &self.backend, &self.stage, options, &clock).await);
    }

    async fn come_to_rest(&mut self, client: &Client, kicks: &Kicks) -> Vec<String> {
        self.faults.end();
        let (mut wrong, mut left) = (Vec::new(), 1);
        for _ in 0..PATIENCE {
            if let Some(ended) = self.workers.iter().position(Live::has_ended) {
                wrong.extend(self.workers.swap_remove(ended).crash().await);
            }
            if self.workers.is_empty() {
                self.start_worker().await;
            }
            sleep(Duration::from_secs(1)).await;
            let depth = client.queues().depths(&["default".to_owned()]).await.unwrap().remove(0);
            left = depth.ready + depth.held + depth.scheduled + depth.retrying;
            if left == 0 {
                break;
            }
        }
        if left > 0 {
            wrong.push(format!("{left} messages are left of {} kicks", kicks.lock().unwrap().len()));
        }
        while let Some(worker) = self.workers.pop() {
            wrong.extend(worker.stop().await);
        }
        self.faults.journal().note(0, Fact::Note("all is at rest".to_owned()));
        wrong
    }
}

/// What is wrong with the jobs of the keys.
fn check(
    keys: &BTreeMap<JobId, u32>,
    kicks: &[Confirmed],
    journal: &Journal,
    clocks_apart: u64,
) -> Vec<String> {
    let (mut wrong, lines) = (Vec::new(), journal.lines());
    // Jobs between their first start and their end, and the ends.
    let (mut begun, mut ended) =
        (BTreeMap::<u32, BTreeSet<&JobId>>::new(), BTreeMap::<&JobId, Vec<(usize, Status)>>::new());
    for (place, line) in lines.iter().enumerate() {
        match &line.fact {
            Fact::Started(_, id, _) if keys[id] < 2 * KEYS && !ends_with_an_end(&ended, id) => {
                let running = begun.entry(keys[id]).or_default();
                running.insert(id);
                if running.len() > 1 {
                    wrong.push(format!("{running:?} of key {} have begun", keys[id]));
                }
            }
            Fact::Put(record, _) if record.status.is_terminal() => {
                ended.entry(&record.id).or_default().push((place, record.status));
                begun.values_mut().for_each(|running| running.retain(|id| **id != record.id));
            }
            Fact::Kicked { id, supersedes: Some(1..), new: true, .. } => {
                if let Some(ends) = ended.get_mut(id) {
                    // A rerun.
                    ends.push((place, Status::Pending));
                }
            }
            _ => {}
        }
    }
    let slack = Duration::from_millis(2 * clocks_apart) + Duration::from_secs(10);
    for kick in kicks.iter().filter(|kick| kick.existing) {
        let before = ended.get(&kick.id).and_then(|ends| ends.iter().rfind(|(place, _)| *place < kick.begun));
        let Some((place, status)) = before.filter(|(_, status)| status.is_terminal()) else { continue };
        let in_window = kick.has_window
            && *status == Status::Completed
            && lines[kick.begun.min(lines.len() - 1)].at <= lines[*place].at + slack;
        let is_rerun = ended[&kick.id]
            .iter()
            .any(|(place, status)| (kick.begun..kick.answered).contains(place) && !status.is_terminal());
        if !in_window && !is_rerun {
            wrong.push(format!("a kick was answered with {}, which was {status} before", kick.id));
        }
    }
    wrong
}

fn ends_with_an_end(ended: &BTreeMap<&JobId, Vec<(usize, Status)>>, id: &JobId) -> bool {
    ended.get(id).and_then(|ends| ends.last()).is_some_and(|(_, status)| status.is_terminal())
}
