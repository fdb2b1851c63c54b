//! Every plug, pulled in every way, at every step of a job: exactly there, while jobs flow.
//!
//! A process is struck where a fault point says, or while it holds one job alone. So it is known what every cell may
//! repeat, and the ledger is held against that.

use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use aioq::broker::QueueDepth;
use aioq::store::Status;
use aioq::{Client, JobId, KickOptions};
use aioq_tests::{Demo, DemoProducer, DemoWorker, Ledger, NatsServer, PATIENCE, statuses, until};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Jobs that flow in each test at least, and in each cell of one that has several.
const ENOUGH: usize = 1000;
const FLOW: usize = 260;

/// The queue of the jobs that a worker has for itself.
const ASIDE: &str = "aside";

const STEADY: [&str; 2] = ["--ack-wait", "1s"];

/// One job after the other, so that one job at most is at the point.
const ONE_BY_ONE: [&str; 4] = ["--ack-wait", "1s", "--concurrency", "1"];

const ALONE: [&str; 6] = ["--ack-wait", "1s", "--concurrency", "1", "--queues", ASIDE];

/// How a process is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Term,
    Kill,
    /// And thawed when others have done its work.
    Stop,
}

impl Means {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::TERM,
            Self::Kill => Signal::KILL,
            Self::Stop => Signal::STOP,
        }
    }
}

/// Bodies that were begun, and ended, more often than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Repeats {
    starts: usize,
    ends: usize,
}

const NONE: Repeats = Repeats { starts: 0, ends: 0 };
const BEGUN: Repeats = Repeats { starts: 1, ends: 0 };
const WHOLE: Repeats = Repeats { starts: 1, ends: 1 };

/// What a job does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Lasts so many milliseconds.
    Plain(u64),
    Delayed,
    /// Fails once, and waits for its second attempt.
    Flaky,
}

impl Kind {
    /// All kinds wait and run at any time.
    fn of(n: usize) -> Self {
        match n % 10 {
            3 | 6 => Self::Flaky,
            9 => Self::Delayed,
            _ => Self::Plain(0),
        }
    }

    fn call(self, ledger: &Ledger, line: &str) -> (&'static str, Value, Duration) {
        let (path, delay) = (ledger.path(), Duration::from_millis(1200));
        match self {
            Self::Plain(ms) => {
                ("demo.append_slow", json!({ "path": path, "line": line, "ms": ms }), Duration::ZERO)
            }
            Self::Delayed => ("demo.append_slow", json!({ "path": path, "line": line, "ms": 0 }), delay),
            Self::Flaky => {
                ("demo.append_flaky", json!({ "path": path, "line": line, "failures": 1 }), Duration::ZERO)
            }
        }
    }

    /// What the ledger says of a job that has run.
    fn lines(self, line: &str) -> [String; 2] {
        match self {
            Self::Flaky => [format!("run {line}.1"), format!("run {line}.2")],
            _ => [format!("start {line}"), format!("end {line}")],
        }
    }

    fn attempts(self) -> u32 {
        if self == Self::Flaky { 2 } else { 1 }
    }
}

/// A job whose kick was confirmed.
struct Job {
    id: JobId,
    kind: Kind,
    line: String,
}

/// Jobs that flow past a worker that is never struck, and past others that are.
struct Bed {
    demo: Demo,
    client: Client,
    ledger: Ledger,
    steady: DemoWorker,
    jobs: Vec<Job>,
    /// Jobs that were numbered: no two write the same line.
    numbered: usize,
    /// What was repeated before the cell.
    before: Repeats,
}

impl Bed {
    async fn new() -> Self {
        Self::at(Demo::new().await).await
    }

    async fn at(demo: Demo) -> Self {
        let (client, ledger) = (demo.client().await, demo.ledger());
        let steady = demo.worker(&STEADY).await;
        Self { demo, client, ledger, steady, jobs: Vec::new(), numbered: 0, before: NONE }
    }

    /// Numbers that no job has yet.
    fn numbers(&mut self, jobs: usize) -> Range<usize> {
        let first = self.numbered;
        self.numbered += jobs;
        first..self.numbered
    }

    /// Kicks a job; the line that it writes.
    async fn kick(&mut self, kind: Kind, queue: &str) -> String {
        let line = self.numbers(1).start.to_string();
        let (task, args, delay) = kind.call(&self.ledger, &line);
        let options = KickOptions::new().queue(queue).delay(delay);
        let id = self.client.kiq_by_name(task, &args, options).await.unwrap().id().clone();
        self.jobs.push(Job { id, kind, line: line.clone() });
        line
    }

    /// Kicks so many jobs of all kinds.
    async fn flow(&mut self, jobs: usize) {
        let kicks = self.numbers(jobs).map(|n| {
            let (client, kind, line) = (self.client.clone(), Kind::of(n), n.to_string());
            let (task, args, delay) = kind.call(&self.ledger, &line);
            let options = KickOptions::new().delay(delay);
            async move {
                let id = client.kiq_by_name(task, &args, options).await.unwrap().id().clone();
                Job { id, kind, line }
            }
        });
        let kicked = join_all(kicks).await;
        self.jobs.extend(kicked);
    }

    /// Lets jobs flow until these workers are at their points, and a cell's worth of them.
    async fn flow_until_struck(&mut self, workers: &[DemoWorker]) {
        let (first, deadline) = (self.jobs.len(), Instant::now() + PATIENCE);
        while !workers.iter().all(|worker| worker.log().contains("fault point")) {
            assert!(Instant::now() < deadline, "the point is never passed");
            self.flow(20).await;
        }
        self.flow(FLOW.saturating_sub(self.jobs.len() - first)).await;
    }

    async fn depth(&self, queue: &str) -> QueueDepth {
        // Refused while the server is away.
        let ask = async || self.client.backend().broker().depths(&[queue.to_owned()]).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ask().await {
                Ok(mut depths) => return depths.remove(0),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    /// Whether nothing is ready, and so many jobs are in hand.
    async fn holds_only(&self, flow: u64, aside: u64) -> bool {
        let (here, there) = (self.depth("default").await, self.depth(ASIDE).await);
        (here.ready, here.held, there.ready, there.held) == (0, flow, 0, aside)
    }

    async fn until_empty(&self) {
        until("the queues are empty", async || {
            let (flow, aside) = (self.depth("default").await, self.depth(ASIDE).await);
            [flow, aside].iter().all(|depth| depth.ready + depth.held + waiting(depth) == 0)
        })
        .await;
    }

    async fn until_ledger_has(&self, line: &str, times: usize) {
        until(line, async || self.ledger.count(line) >= times).await;
    }

    /// What was repeated in all.
    fn repeats(&self) -> Repeats {
        let mut counts = HashMap::<String, usize>::new();
        for line in self.ledger.lines() {
            *counts.entry(line).or_default() += 1;
        }
        // A body that writes one line is begun and ended with it.
        let beyond = |kind: &str| {
            let lines = counts.iter().filter(|(line, _)| line.starts_with(kind) || line.starts_with("run "));
            lines.map(|(_, count)| count - 1).sum()
        };
        Repeats { starts: beyond("start "), ends: beyond("end ") }
    }

    /// What the cell repeated.
    fn cell(&mut self, name: &str) -> Repeats {
        let (before, now) = (self.before, self.repeats());
        self.before = now;
        let repeats = Repeats { starts: now.starts - before.starts, ends: now.ends - before.ends };
        println!("{name}: {} bodies begun again, {} ended again", repeats.starts, repeats.ends);
        repeats
    }

    /// Every job ran, took its attempts and no more, and has exactly one record that says so.
    async fn end(self) {
        self.until_empty().await;
        let ran = self.ledger.lines();
        let statuses = statuses(self.demo.url(), self.demo.prefix()).await;
        for Job { id, kind, line } in &self.jobs {
            assert!(kind.lines(line).iter().all(|line| ran.contains(line)), "{line} ran");
            assert_eq!(
                statuses.get(id.as_str()).map(Vec::as_slice),
                Some(&["completed".to_owned()][..]),
                "{line}"
            );
            let record = self.client.jobs().get(id).await.unwrap();
            assert_eq!((record.status, record.attempt), (Status::Completed, kind.attempts()), "{line}");
        }
        println!("{} jobs in all", self.jobs.len());
        assert!(self.jobs.len() >= ENOUGH, "jobs flowed");
        assert_eq!(taken_over(&self.steady), 0, "it was never struck");
        self.steady.stop().await;
    }
}

/// Jobs that are delayed or wait for their next attempt.
fn waiting(depth: &QueueDepth) -> u64 {
    depth.scheduled + depth.retrying
}

/// How many runs of this worker came to nothing, because another had taken their job over.
fn taken_over(worker: &DemoWorker) -> usize {
    worker.log().matches("took the job over").count()
}

fn assert_struck(status: ExitStatus, means: Means, log: &str) {
    match means {
        // It took the signal for what it is, and ended well.
        Means::Term => assert!(status.success(), "{status}: {log}"),
        _ => assert_eq!(status.signal(), Some(means.signal().as_raw()), "{log}"),
    }
}

/// Ends the cell of a worker that was struck; how many of its runs came to nothing.
async fn settle(bed: &Bed, mut worker: DemoWorker, means: Means) -> usize {
    match means {
        Means::Stop => {
            until("it stops", async || worker.is_frozen()).await;
            bed.until_empty().await;
            assert!(worker.is_frozen(), "others did its work");
            worker.thaw();
            // It ends well when it has settled what it held.
            worker.terminate();
            assert!(worker.ended_within(PATIENCE).await.success(), "{}", worker.log());
            taken_over(&worker)
        }
        Means::Term | Means::Kill => {
            let status = worker.ended_within(PATIENCE).await;
            assert_struck(status, means, &worker.log());
            bed.until_empty().await;
            taken_over(&worker)
        }
    }
}

/// Strikes workers at each point, in the middle of the flow. `repeat` tells which points repeat a job.
async fn strike_workers(means: Means, repeat: &[&str]) {
    let mut bed = Bed::new().await;
    for (point, pass) in [
        ("fetched", 3),
        ("started", 3),
        ("ran", 3),
        ("saved", 3),
        ("acked", 3),
        ("announced", 1),
        ("replaced", 1),
        // Late enough that more is fetched ahead.
        ("ran", 40),
    ] {
        let fault = format!("{point}:{pass}:{}", means.name());
        let worker = vec![bed.demo.worker_with_fault(&fault, &ONE_BY_ONE).await];
        bed.flow_until_struck(&worker).await;
        let refused = settle(&bed, worker.into_iter().next().unwrap(), means).await;
        let expected = if repeat.contains(&point) { WHOLE } else { NONE };
        assert_eq!(bed.cell(&format!("worker, {fault}")), expected, "{fault}");
        // A run that comes too late is told so; one that was killed says nothing.
        let late = if means == Means::Stop { expected.ends } else { 0 };
        assert_eq!(refused, late, "{fault}");
    }
    bed.end().await;
}

#[tokio::test]
async fn workers_that_end_at_any_step_repeat_nothing() {
    strike_workers(Means::Term, &[]).await;
}

#[tokio::test]
async fn workers_that_are_killed_at_any_step_repeat_only_what_had_run_and_was_not_saved() {
    strike_workers(Means::Kill, &["ran"]).await;
}

#[tokio::test]
async fn workers_that_freeze_at_any_step_repeat_only_what_they_had_begun_and_not_saved() {
    strike_workers(Means::Stop, &["started", "ran"]).await;
}

/// Strikes a worker that is alone with one job, and lets another do the rest. `thaw` says when a frozen one goes on.
async fn strike_alone(
    bed: &mut Bed,
    mut worker: DemoWorker,
    means: Means,
    thaw: impl AsyncFnOnce(&Bed),
) -> usize {
    worker.signal(means.signal());
    match means {
        Means::Stop => until("it stops", async || worker.is_frozen()).await,
        _ => {
            let status = worker.ended_within(PATIENCE).await;
            assert_struck(status, means, &worker.log());
        }
    }
    bed.flow(FLOW).await;
    let next = bed.demo.worker(&ALONE).await;
    if means == Means::Stop {
        thaw(bed).await;
        worker.thaw();
        worker.terminate();
        assert!(worker.ended_within(PATIENCE).await.success(), "{}", worker.log());
    }
    bed.until_empty().await;
    assert_eq!(taken_over(&next), 0);
    next.stop().await;
    taken_over(&worker)
}

/// Strikes workers in the middle of a body, while a job of theirs waits, and while they hold a claim.
async fn strike_workers_alone(means: Means, in_body: Repeats, refused_in_body: usize) {
    let mut bed = Bed::new().await;

    let worker = bed.demo.worker(&ALONE).await;
    // Long enough to be struck in; of a frozen one, to be taken over in.
    let line = bed.kick(Kind::Plain(if means == Means::Stop { 4000 } else { 1500 }), ASIDE).await;
    let start = format!("start {line}");
    bed.until_ledger_has(&start, 1).await;
    let refused =
        strike_alone(&mut bed, worker, means, async |bed| bed.until_ledger_has(&start, 2).await).await;
    assert_eq!((bed.cell(&format!("worker, body: {means:?}")), refused), (in_body, refused_in_body));

    for kind in [Kind::Flaky, Kind::Delayed] {
        let worker = bed.demo.worker(&ALONE).await;
        let line = bed.kick(kind, ASIDE).await;
        if kind == Kind::Flaky {
            bed.until_ledger_has(&format!("run {line}.1"), 1).await;
        }
        until("the job waits", async || waiting(&bed.depth(ASIDE).await) == 1).await;
        let refused = strike_alone(&mut bed, worker, means, async |bed| bed.until_empty().await).await;
        let name = if kind == Kind::Flaky { "retry waits" } else { "delayed" };
        assert_eq!((bed.cell(&format!("worker, {name}: {means:?}")), refused), (NONE, 0), "{name}");
    }

    // Only what is delivered again is claimed.
    bed.kick(Kind::Plain(0), ASIDE).await;
    let mut first = bed.demo.worker_with_fault("started:1:kill", &ALONE).await;
    first.ended_within(PATIENCE).await;
    let mut worker = bed.demo.worker_with_fault(&format!("claimed:1:{}", means.name()), &ALONE).await;
    worker.says("fault point").await;
    let next = bed.demo.worker(&ALONE).await;
    bed.flow(FLOW).await;
    let refused = settle(&bed, worker, means).await;
    next.stop().await;
    // What a late one gives back is refused as well.
    let late = usize::from(means == Means::Stop);
    assert_eq!((bed.cell(&format!("worker, claimed: {means:?}")), refused), (NONE, late));
    bed.end().await;
}

#[tokio::test]
async fn workers_that_end_while_jobs_run_or_wait_repeat_nothing() {
    strike_workers_alone(Means::Term, NONE, 0).await;
}

#[tokio::test]
async fn workers_that_are_killed_while_jobs_run_or_wait_repeat_only_what_ran() {
    strike_workers_alone(Means::Kill, BEGUN, 0).await;
}

#[tokio::test]
async fn workers_that_freeze_while_jobs_run_or_wait_repeat_only_what_ran() {
    strike_workers_alone(Means::Stop, BEGUN, 1).await;
}

/// How many milliseconds workers are held up, for the server to be struck meanwhile.
const HELD_UP: u64 = 7000;

/// Strikes the server while workers are held up at every step, with jobs that wait; `most` may be repeated.
async fn strike_server(means: Means, most: usize) {
    let mut server = NatsServer::start().await.unwrap();
    let mut bed = Bed::at(Demo::on(&server)).await;
    let mut workers = Vec::new();
    // The first job of each, so that nothing is fetched ahead.
    for point in ["fetched", "started", "ran", "saved"] {
        let fault = format!("{point}:1:{HELD_UP}");
        workers.push(bed.demo.worker_with_fault(&fault, &ONE_BY_ONE).await);
    }
    workers.push(bed.demo.worker_with_fault(&format!("announced:1:{HELD_UP}"), &ALONE).await);
    let held_since = Instant::now();
    bed.kick(Kind::Flaky, ASIDE).await;
    bed.flow_until_struck(&workers).await;
    // All others are done, or wait.
    while waiting(&bed.depth("default").await) == 0 || !bed.holds_only(4, 1).await {
        bed.flow(10).await;
        until("all others are done or wait", async || bed.holds_only(4, 1).await).await;
    }
    assert!(held_since.elapsed() < Duration::from_millis(HELD_UP), "the workers are at their points");
    match means {
        Means::Term => server.terminate(),
        Means::Kill => server.kill(),
        Means::Stop => {
            server.freeze();
            // Longer than all leases last.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            server.thaw();
        }
    }
    if means != Means::Stop {
        server.restart().await.unwrap();
    }
    let next = bed.demo.worker(&ALONE).await;
    bed.flow(ENOUGH).await;
    bed.until_empty().await;
    next.stop().await;
    let mut refused = 0;
    for mut worker in workers {
        worker.terminate();
        assert!(worker.ended_within(PATIENCE).await.success(), "{}", worker.log());
        refused += taken_over(&worker);
    }
    let repeats = bed.cell(&format!("server, workers at every step: {means:?}"));
    assert!(repeats.starts <= most, "{repeats:?}");
    assert_eq!(repeats, Repeats { starts: refused, ends: refused }, "what ran twice was refused once");
    bed.end().await;
}

#[tokio::test]
async fn a_server_that_ends_while_jobs_are_at_every_step_costs_no_job() {
    strike_server(Means::Term, 3).await;
}

#[tokio::test]
async fn a_server_that_is_killed_while_jobs_are_at_every_step_costs_no_job() {
    strike_server(Means::Kill, 3).await;
}

#[tokio::test]
async fn a_server_that_freezes_while_jobs_are_at_every_step_costs_no_job() {
    strike_server(Means::Stop, 2).await;
}

/// Strikes producers with a kick that is not sent, and with one that is confirmed and not told, while jobs of theirs
/// are delayed and wait for a retry.
async fn strike_producers(means: Means) {
    const AT: usize = 520;
    let mut bed = Bed::new().await;
    for (point, sent) in [("kicking", 0), ("kicked", 1)] {
        let numbers: Vec<_> = bed.numbers(AT + FLOW).collect();
        let calls = numbers.iter().map(|n| {
            let (task, args, delay) = Kind::of(*n).call(&bed.ledger, &n.to_string());
            json!({ "task": task, "args": args, "delay_ms": delay.as_millis() as u64 }).to_string()
        });
        let fault = format!("{point}:{AT}:{}", means.name());
        let mut producer = DemoProducer::start(&bed.demo, &fault, calls.collect()).await;
        until("it is struck", async || producer.has_ended() || producer.is_frozen()).await;
        assert!(waiting(&bed.depth("default").await) > 0, "jobs wait");
        bed.until_empty().await;
        assert_eq!(producer.told().len(), AT - 1, "{fault}");
        // Nothing was promised of the last one, and it runs if it was sent.
        let first_line = &Kind::of(numbers[AT - 1]).lines(&numbers[AT - 1].to_string())[0];
        assert_eq!(bed.ledger.count(first_line), sent, "{fault}");
        if means == Means::Stop {
            producer.thaw();
        }
        let (status, ids) = producer.ended_within(PATIENCE).await;
        match means {
            Means::Stop => assert!(status.success() && ids.len() == numbers.len(), "it goes on: {status}"),
            _ => assert_eq!(status.signal(), Some(means.signal().as_raw()), "{fault}"),
        }
        let told = ids.iter().zip(numbers);
        bed.jobs.extend(told.map(|(id, n)| Job {
            id: id.as_str().into(),
            kind: Kind::of(n),
            line: n.to_string(),
        }));
        bed.until_empty().await;
        assert_eq!(bed.cell(&format!("producer, {fault}")), NONE);
    }
    bed.end().await;
}

#[tokio::test]
async fn producers_that_end_within_a_kick_repeat_nothing_and_lose_nothing_that_was_confirmed() {
    strike_producers(Means::Term).await;
}

#[tokio::test]
async fn producers_that_are_killed_within_a_kick_repeat_nothing_and_lose_nothing_that_was_confirmed() {
    strike_producers(Means::Kill).await;
}

#[tokio::test]
async fn producers_that_freeze_within_a_kick_repeat_nothing_and_go_on() {
    strike_producers(Means::Stop).await;
}
