//! Many processes that kick one unique key at once, round after round, while they and the workers
//! that run it are killed: [`Rush`].
//!
//! What ran is in a ledger that the jobs write. Each kick has a line of its own, so a line of the
//! ledger names the kick that made its job.

mod figures;
mod kicker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aioq::Client;
use aioq::jobs::JobFilter;
use aioq::store::Status;
use aioq::tasks::KickOptions;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

pub use self::figures::Figures;
use self::kicker::Kicker;
pub use self::kicker::{KEY, TASK, arguments, kick_when_told};
use crate::demo::{Demo, DemoProducer, DemoWorker, Ledger};
use crate::nats_server::NatsServer;
use crate::patience::{PATIENCE, soon};
use crate::until::until;

/// Rounds after which everything is let run, and the key must be free.
const REST: usize = 10;

/// Where a process that kicks alone, before a round, is struck. The key is free after a rest, so it
/// takes the key, and the round finds a key that nobody is about to use.
const STRUCK: [&str; 4] = ["locked:1:kill", "locked:1:stop", "locked:1:kill", "kicking:1:stop"];

/// Longest body. It is about as long as the kicks of a round, so that some rounds find a job and
/// some make one.
const LONGEST_BODY_MS: u64 = 40;

/// Longest time from the start of a round to a kill.
const LATEST_KILL: Duration = Duration::from_millis(20);

/// Size of a rush.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Processes that kick.
    pub kickers: usize,
    /// Kicks of each, if it is not killed.
    pub rounds: usize,
    /// Processes that run what is kicked.
    pub workers: usize,
    /// What the kills are made of.
    pub seed: u64,
}

/// The answer to a kick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The line that names the kick.
    pub(crate) line: String,
    /// The id of the job and whether it existed before, or the error.
    pub(crate) told: Result<(String, bool), String>,
    pub(crate) took: Duration,
}

/// Kickers and workers on a server, supervised.
pub struct Rush {
    plan: Plan,
    random: fastrand::Rng,
    demo: Demo,
    /// Dropped after the processes that use it.
    _server: NatsServer,
    client: Client,
    ledger: Ledger,
    program: PathBuf,
    kickers: Vec<Kicker>,
    workers: Vec<DemoWorker>,
    seen: Seen,
}

/// What was seen from the outside while rounds went on.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) answers: Vec<Answer>,
    /// Jobs that were seen unfinished at the same time.
    pub(crate) together: BTreeSet<BTreeSet<String>>,
    /// Times that a kick took when no job was left.
    pub(crate) lone: Vec<Duration>,
    /// Jobs that a process was told of that had been frozen within its kick.
    pub(crate) told_late: Vec<String>,
    /// Lone kicks that were told of a job that existed.
    pub(crate) held_by_nobody: Vec<String>,
    pub(crate) killed_kickers: usize,
    pub(crate) killed_workers: usize,
    pub(crate) struck: usize,
    pub(crate) lasted: Duration,
}

impl Rush {
    /// Runs all rounds on a server of its own. `program` is one that calls [`kick_when_told`].
    ///
    /// # Panics
    /// Something does not start, or a kick is not answered at all.
    pub async fn run(plan: Plan, program: &Path) -> Figures {
        let mut rush = Self::start(plan, program).await;
        let began = Instant::now();
        for round in 0..plan.rounds {
            rush.round(round).await;
            if round % REST == REST - 1 || round == plan.rounds - 1 {
                rush.rest(round).await;
            }
        }
        rush.seen.lasted = began.elapsed();
        rush.end().await
    }

    async fn start(plan: Plan, program: &Path) -> Self {
        let server = NatsServer::start().await.expect("a nats-server can be started");
        let demo = Demo::on(&server);
        let (client, ledger) = (demo.client().await, demo.ledger());
        let workers = join_all((0..plan.workers).map(|_| worker(&demo))).await;
        let kickers = join_all((0..plan.kickers).map(|_| Kicker::start(program, &demo))).await;
        let random = fastrand::Rng::with_seed(plan.seed);
        let (program, seen) = (program.to_owned(), Seen::default());
        Self { plan, random, demo, _server: server, client, ledger, program, kickers, workers, seen }
    }

    /// Lets all kickers kick at once. In some rounds one of them is killed meanwhile, in some a
    /// worker.
    async fn round(&mut self, round: usize) {
        let struck = if round.is_multiple_of(REST) { Some(self.strike(round).await) } else { None };
        for (index, kicker) in self.kickers.iter_mut().enumerate() {
            kicker.tell(&format!("{round}-{index}"), self.random.u64(..LONGEST_BODY_MS)).await;
        }
        let kills_kicker = round % 3 == 1;
        if kills_kicker {
            self.pause().await;
            let index = self.random.usize(..self.kickers.len());
            self.seen.answers.extend(self.kickers.swap_remove(index).kill().await);
            self.seen.killed_kickers += 1;
        }
        if round % 7 == 2 {
            self.pause().await;
            let index = self.random.usize(..self.workers.len());
            self.workers.swap_remove(index).kill().await;
            self.seen.killed_workers += 1;
        }
        for answer in join_all(self.kickers.iter_mut().map(Kicker::answer)).await {
            self.seen.answers.push(answer);
        }
        self.look().await;
        if let Some(mut frozen) = struck
            && !frozen.has_ended()
        {
            frozen.thaw();
            self.seen.told_late.extend(frozen.ended_within(PATIENCE).await.1);
        }
        if kills_kicker {
            self.kickers.push(Kicker::start(&self.program, &self.demo).await);
        }
        if self.workers.len() < self.plan.workers {
            self.workers.push(worker(&self.demo).await);
        }
    }

    /// Starts a process that takes the key, and dies or freezes before it has sent its message.
    async fn strike(&mut self, round: usize) -> DemoProducer {
        let args = arguments(self.ledger.path(), &format!("{round}-struck"), 0);
        let call = json!({ "task": TASK, "args": args, "unique_key": KEY }).to_string();
        let fault = STRUCK[round / REST % STRUCK.len()];
        let mut struck = DemoProducer::start(&self.demo, fault, vec![call]).await;
        until("it is struck", async || struck.has_ended() || struck.is_frozen()).await;
        assert!(struck.told().is_empty(), "it has told nobody");
        self.seen.struck += 1;
        struck
    }

    async fn pause(&mut self) {
        sleep(LATEST_KILL.mul_f64(self.random.f64())).await;
    }

    /// Notes jobs that are unfinished at the same time. No kick is under way.
    async fn look(&mut self) {
        let mut filter = JobFilter::new();
        for status in Status::ALL.into_iter().filter(|status| !status.is_terminal()) {
            filter = filter.status(status);
        }
        let jobs = self.client.jobs().list(filter, 100).await.expect("jobs can be listed").jobs;
        let ids: BTreeSet<String> = jobs.iter().map(|job| job.id.to_string()).collect();
        if ids.len() > 1 {
            self.seen.together.insert(ids);
        }
    }

    /// Waits until nothing is left. The key is free then: a kick makes a job.
    async fn rest(&mut self, round: usize) {
        self.until_empty().await;
        let (line, began) = (format!("{round}-rest"), Instant::now());
        let (args, options) = (arguments(self.ledger.path(), &line, 0), KickOptions::new().unique_key(KEY));
        let kicked = soon(self.client.kiq_by_name(TASK, &args, options)).await;
        let took = began.elapsed();
        let told =
            kicked.map(|job| (job.id().to_string(), job.existing())).map_err(|error| error.to_string());
        if told.as_ref().is_ok_and(|(_, existing)| *existing) {
            self.seen.held_by_nobody.push(line.clone());
        }
        self.seen.lone.push(took);
        self.seen.answers.push(Answer { line, told, took });
        self.until_empty().await;
    }

    async fn until_empty(&self) {
        until("the queue is empty", async || {
            let depths = self.client.backend().broker().depths(&["default".to_owned()]).await;
            depths.is_ok_and(|depths| depths[0].ready + depths[0].held + depths[0].scheduled == 0)
        })
        .await;
    }

    async fn end(mut self) -> Figures {
        for worker in self.workers.drain(..) {
            worker.stop().await;
        }
        let mut records = BTreeMap::new();
        let told = self.seen.answers.iter().filter_map(|answer| answer.told.as_ref().ok());
        let ids: BTreeSet<&String> = told.map(|(id, _)| id).chain(&self.seen.told_late).collect();
        for id in ids {
            if let Ok(record) = self.client.jobs().get(&id.as_str().into()).await {
                records.insert(id.clone(), record);
            }
        }
        Figures::of(&self.seen, &self.ledger.lines(), &records, self.client.deadline())
    }
}

async fn worker(demo: &Demo) -> DemoWorker {
    // Nobody here is poison, but many die of it.
    demo.worker(&["--ack-wait", "1s", "--max-crashes", "1000"]).await
}
