//! Worlds of schedules: clients that put, change, pause and remove them, and workers that fire them
//! and die in the middle of it, with clocks that are up to two minutes apart. The records of the
//! jobs are soon forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::message::IdGenerator;
use aioq::prelude::*;
use aioq::schedules::{Missed, Overlap, Schedule, ScheduleFilter, ScheduleView};
use aioq::testing::TestClock;
use aioq::{ErrorKind, JobId, Timestamp};
use aioq_tests::faults::{Broken, Fact, Link};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::bodies::{Kind, Run, Stage, perform};
use crate::crew::{Crew, MOST_SLOTS, Outcome, in_virtual_time};

/// A schedule that is put once, one that is changed, and one that is removed as well.
const IDS: [&str; 3] = ["steady", "changing", "fleeting"];

/// Longer than any clock is ahead, and than a scan of all schedules.
const SETTLED: Duration = Duration::from_secs(100);

/// Runs a seed of the worlds of schedules.
pub(crate) fn simulate(seed: u64, broken: Option<Broken>) -> Outcome {
    in_virtual_time(seed, run(seed, broken))
}

#[task(retry(max = 2, backoff = "1s"), keep = "1s", keep_failed = "1s")]
async fn beat(
    kind: usize,
    millis: u64,
    #[inject] ctx: &Context,
    #[inject] stage: &Stage,
) -> TaskResult<usize> {
    perform(0, kind, millis, ctx, stage).await
}

/// Waits until a whole minute, so that a seed is nearly the same world at any time of day.
async fn whole_minute() {
    let micros = Timestamp::now().as_micros().rem_euclid(60_000_000);
    sleep(Duration::from_micros(60_000_000 - micros.unsigned_abs())).await;
}

async fn run(seed: u64, broken: Option<Broken>) -> Outcome {
    whole_minute().await;
    let random = fastrand::Rng::with_seed(seed.wrapping_mul(61) + 17);
    let draw_clocks = |random: &mut fastrand::Rng| *random.choice(&[1, 4_000, 60_000]).unwrap();
    let mut crew = Crew::new(seed, broken, random, draw_clocks).await;
    crew.has_schedules = true;
    let mut seen = Seen::default();
    let steady = Arc::new(Mutex::new(None));
    let client = start_client(&mut crew, &steady).await;
    while !client.is_finished() {
        sleep(Duration::from_millis(crew.random.u64(..2_000))).await;
        crew.disturb().await;
        seen.look(&crew.client).await;
    }
    crew.faults.end();
    crew.start_worker(MOST_SLOTS).await;
    sleep(SETTLED).await;
    let schedules = crew.client.schedules();
    for view in schedules.list(ScheduleFilter::new()).await.unwrap() {
        schedules.pause(&view.id).await.unwrap();
    }
    crew.come_to_rest(&[]).await;
    seen.look(&crew.client).await;
    let runs = crew.stage.runs();
    let mut wrong = [seen.wrong.clone(), wrong_starts(&runs)].concat();
    if let (Some(steady), Some(view)) = (steady.lock().unwrap().clone(), seen.last.get(IDS[0])) {
        wrong.extend(wrong_counts(&steady, view, &runs, crew.clocks_apart));
    }
    crew.outcome(wrong)
}

/// The schedule that is put once.
#[derive(Clone)]
struct Steady {
    period: Duration,
    /// Within this time it was put, by the clock of its client.
    put: Range<Timestamp>,
}

/// The schedules as they were seen last.
#[derive(Default)]
struct Seen {
    last: BTreeMap<String, ScheduleView>,
    wrong: Vec<String>,
}

impl Seen {
    /// What is settled stays so, and each tick is there once.
    async fn look(&mut self, client: &Client) {
        for view in client.schedules().list(ScheduleFilter::new()).await.unwrap() {
            if !view.recent.windows(2).all(|pair| pair[0].tick < pair[1].tick) {
                self.wrong.push(format!("a tick of {} is there twice: {:?}", view.id, view.recent));
            }
            let before = self.last.get(&view.id).map(|before| before.settled_until);
            if before.is_some_and(|before| view.settled_until < before) {
                self.wrong.push(format!("{} goes back from {before:?} to {:?}", view.id, view.settled_until));
            }
            self.last.insert(view.id.clone(), view);
        }
    }
}

/// No body starts before its tick, and only one message of a tick starts.
fn wrong_starts(runs: &[Run]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut kicks: BTreeMap<&JobId, BTreeSet<Option<Timestamp>>> = BTreeMap::new();
    for Run { id, tick, at, kicked_at, is_rerun, .. } in runs {
        let Some(tick) = tick.filter(|_| !is_rerun) else { continue };
        if *at < tick {
            wrong.push(format!("{id} started at {at}"));
        }
        kicks.entry(id).or_default().insert(*kicked_at);
    }
    wrong.extend(
        kicks
            .into_iter()
            .filter(|(_, kicks)| kicks.len() > 1)
            .map(|(id, kicks)| format!("{id} started for each of {} kicks: {kicks:?}", kicks.len())),
    );
    wrong
}

/// Each tick was fired, skipped or missed; and one that was fired has run.
fn wrong_counts(steady: &Steady, view: &ScheduleView, runs: &[Run], clocks_apart: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    let counts = view.counts;
    let settled = counts.fired + counts.skipped + counts.missed;
    let span = steady.period * u32::try_from(settled).unwrap();
    let made = Timestamp::from_micros(view.settled_until.as_micros() - span.as_micros() as i64);
    if settled > 0 && !(steady.put.start <= made && made <= steady.put.end) {
        wrong.push(format!("{settled} ticks of {:?} reach back to {made}: {counts:?}", steady.period));
    }
    let started: BTreeSet<&JobId> =
        runs.iter().map(|run| &run.id).filter(|id| id.as_str().starts_with(IDS[0])).collect();
    // A scheduler whose clock is ahead takes a tick for missed that another one has kicked. A
    // worker whose clock is behind puts that job off until the ring has forgotten the tick, and
    // runs it.
    let may_run_missed = clocks_apart > 4_000 && started.len() as u64 > counts.fired;
    if started.len() as u64 != counts.fired && !may_run_missed {
        wrong.push(format!("{} ticks have run: {counts:?}", started.len()));
    }
    wrong
}

struct Planner {
    client: Client,
    link: Link,
    clock: TestClock,
    random: fastrand::Rng,
    steady: Arc<Mutex<Option<Steady>>>,
}

async fn start_client(crew: &mut Crew, steady: &Arc<Mutex<Option<Steady>>>) -> JoinHandle<()> {
    let (link, clock) = (crew.faults.link(&crew.backend), crew.clock());
    let client = Client::builder(link.backend().clock(&clock)).deadline(Duration::from_secs(4));
    // A seed is the same world each time.
    let client = client.id_generator(Numbers::default()).connect().await.unwrap();
    let planner = Planner { client, link, clock, random: crew.random.fork(), steady: Arc::clone(steady) };
    tokio::spawn(planner.work(crew.random.usize(4..14)))
}

/// Numbers the jobs that are run by hand.
#[derive(Default)]
struct Numbers(AtomicU64);

impl IdGenerator for Numbers {
    fn next_id(&self) -> JobId {
        format!("by-hand-{}", self.0.fetch_add(1, Ordering::Relaxed)).into()
    }
}

impl Planner {
    async fn work(mut self, steps: usize) {
        self.put_steady().await;
        for _ in 0..steps {
            sleep(Duration::from_millis(self.random.u64(..4_000))).await;
            if self.random.u32(..4) == 0 {
                let span = Duration::from_millis(self.random.u64(200..4_000));
                self.link.freeze_at_write(self.random.u32(1..4), span);
            }
            self.step().await;
        }
    }

    /// Puts the schedule that stays as it is, until it is there.
    async fn put_steady(&mut self) {
        let period = Duration::from_secs(self.random.u64(2..9));
        let (schedule, call) = (self.policies(Schedule::every(period)), self.call());
        let clock = self.clock.clone();
        let (kind, millis) = call;
        let begun = clock.now();
        while let Err(error) = self.client.schedules().put(IDS[0], schedule.clone(), beat(kind, millis)).await
        {
            self.note(format!("could not put {}: {:?}", IDS[0], error.kind()));
        }
        *self.steady.lock().unwrap() = Some(Steady { period, put: begun..clock.now() });
    }

    async fn step(&mut self) {
        let id = IDS[self.random.usize(1..3)];
        let schedules = self.client.schedules();
        let draw = self.random.u32(..8);
        let done = match draw {
            0 => schedules.pause(id).await.map(drop),
            1 => schedules.resume(id).await.map(drop),
            2 => schedules.run(id).await.map(drop),
            3 if id == IDS[2] => schedules.remove(id).await,
            _ => {
                let schedule = match self.random.bool() {
                    true => Schedule::every(Duration::from_secs(self.random.u64(2..9))),
                    false => {
                        Schedule::cron(*self.random.choice(&["*/2 * * * * *", "*/5 * * * * *"]).unwrap())
                    }
                };
                let (schedule, (kind, millis)) = (self.policies(schedule), self.call());
                schedules.put(id, schedule, beat(kind, millis)).await.map(drop)
            }
        };
        let done = done.map_err(|error| error.kind());
        assert!(done != Err(ErrorKind::InvalidArgument));
        self.note(format!("has done {draw} to {id}: {done:?}"));
    }

    fn policies(&mut self, schedule: Schedule) -> Schedule {
        let missed = *self.random.choice(&[Missed::Skip, Missed::Once, Missed::All]).unwrap();
        let overlap = if self.random.bool() { Overlap::Allow } else { Overlap::Skip };
        schedule.missed(missed).overlap(overlap)
    }

    /// What the bodies do, and how long they last.
    fn call(&mut self) -> (usize, u64) {
        (Kind::draw(&mut self.random), *self.random.choice(&[0, 0, 20, 300, 1_500]).unwrap())
    }

    fn note(&self, what: String) {
        self.link.faults().journal().note(self.link.number(), Fact::Note(what));
    }
}
