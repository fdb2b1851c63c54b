//! Jobs that flow past workers while one of them is struck, and the count of repeated bodies.

use aioq::broker::QueueDepth;
use aioq::store::Status;
use aioq::tasks::KickOptions;
use aioq::{Client, JobId};
use aioq_tests::{Demo, DemoWorker, Ledger, PATIENCE, statuses, until};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// Jobs that flow in each test at least, and in each cell of one that has several.
pub(crate) const ENOUGH: usize = 1000;

pub(crate) const FLOW: usize = 260;

/// The queue of the jobs that a worker has for itself.
pub(crate) const ASIDE: &str = "aside";

pub(crate) const STEADY: [&str; 2] = ["--ack-wait", "1s"];

/// Bodies that were begun, and ended, more often than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Repeats {
    pub(crate) starts: usize,
    pub(crate) ends: usize,
}

pub(crate) const NONE: Repeats = Repeats { starts: 0, ends: 0 };

pub(crate) const BEGUN: Repeats = Repeats { starts: 1, ends: 0 };

pub(crate) const WHOLE: Repeats = Repeats { starts: 1, ends: 1 };

/// Kinds of jobs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lasts this number of milliseconds.
    Plain(u64),
    Delayed,
    /// Fails once, and waits for its second attempt.
    Flaky,
}

impl Kind {
    /// All kinds wait and run at any time.
    pub(crate) fn of(n: usize) -> Self {
        match n % 10 {
            3 | 6 => Self::Flaky,
            9 => Self::Delayed,
            _ => Self::Plain(0),
        }
    }

    pub(crate) fn call(self, ledger: &Ledger, line: &str) -> (&'static str, Value, Duration) {
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

    /// Lines in the ledger of a job that has run.
    pub(crate) fn lines(self, line: &str) -> [String; 2] {
        match self {
            Self::Flaky => [format!("run {line}.1"), format!("run {line}.2")],
            _ => [format!("start {line}"), format!("end {line}")],
        }
    }

    pub(crate) fn attempts(self) -> u32 {
        if self == Self::Flaky { 2 } else { 1 }
    }
}

/// A job whose kick was confirmed.
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) kind: Kind,
    pub(crate) line: String,
}

/// Jobs that flow past a worker that is never struck, and past others that are.
pub(crate) struct Flow {
    pub(crate) demo: Demo,
    pub(crate) client: Client,
    pub(crate) ledger: Ledger,
    pub(crate) steady: DemoWorker,
    pub(crate) jobs: Vec<Job>,
    /// Jobs that were numbered: no two write the same line.
    pub(crate) numbered: usize,
    /// Repeats before the cell.
    pub(crate) before: Repeats,
}

impl Flow {
    pub(crate) async fn new() -> Self {
        Self::at(Demo::new().await).await
    }

    pub(crate) async fn at(demo: Demo) -> Self {
        let (client, ledger) = (demo.client().await, demo.ledger());
        let steady = demo.worker(&STEADY).await;
        Self { demo, client, ledger, steady, jobs: Vec::new(), numbered: 0, before: NONE }
    }

    /// Numbers that no job has yet.
    pub(crate) fn numbers(&mut self, jobs: usize) -> Range<usize> {
        let first = self.numbered;
        self.numbered += jobs;
        first..self.numbered
    }

    /// Kicks a job; the line that it writes.
    pub(crate) async fn kick(&mut self, kind: Kind, queue: &str) -> String {
        let line = self.numbers(1).start.to_string();
        let (task, args, delay) = kind.call(&self.ledger, &line);
        let options = KickOptions::new().queue(queue).delay(delay);
        let id = self.client.kiq_by_name(task, &args, options).await.unwrap().id().clone();
        self.jobs.push(Job { id, kind, line: line.clone() });
        line
    }

    /// Kicks this number of jobs, of all kinds.
    pub(crate) async fn flow(&mut self, jobs: usize) {
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
    pub(crate) async fn flow_until_struck(&mut self, workers: &[DemoWorker]) {
        let (first, deadline) = (self.jobs.len(), Instant::now() + PATIENCE);
        while !workers.iter().all(|worker| worker.log().contains("fault point")) {
            assert!(Instant::now() < deadline, "the point is never passed");
            self.flow(20).await;
        }
        self.flow(FLOW.saturating_sub(self.jobs.len() - first)).await;
    }

    pub(crate) async fn depth(&self, queue: &str) -> QueueDepth {
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

    /// True if nothing is ready, and these numbers of jobs are in hand.
    pub(crate) async fn holds_only(&self, flow: u64, aside: u64) -> bool {
        let (here, there) = (self.depth("default").await, self.depth(ASIDE).await);
        (here.ready, here.held, there.ready, there.held) == (0, flow, 0, aside)
    }

    pub(crate) async fn until_empty(&self) {
        until("the queues are empty", async || {
            let (flow, aside) = (self.depth("default").await, self.depth(ASIDE).await);
            [flow, aside].iter().all(|depth| depth.ready + depth.held + waiting(depth) == 0)
        })
        .await;
    }

    pub(crate) async fn until_ledger_has(&self, line: &str, times: usize) {
        until(line, async || self.ledger.count(line) >= times).await;
    }

    /// All repeats so far.
    pub(crate) fn repeats(&self) -> Repeats {
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

    /// Repeats of the cell that ends here.
    pub(crate) fn cell(&mut self, name: &str) -> Repeats {
        let (before, now) = (self.before, self.repeats());
        self.before = now;
        let repeats = Repeats { starts: now.starts - before.starts, ends: now.ends - before.ends };
        println!("{name}: {} bodies begun again, {} ended again", repeats.starts, repeats.ends);
        repeats
    }

    /// Every job ran, took its attempts and no more, and has exactly one record that says so.
    pub(crate) async fn end(self) {
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
pub(crate) fn waiting(depth: &QueueDepth) -> u64 {
    depth.scheduled + depth.retrying
}

/// Number of runs of this worker that were refused, because another one had taken their job over.
pub(crate) fn taken_over(worker: &DemoWorker) -> usize {
    worker.log().matches("took the job over").count()
}
