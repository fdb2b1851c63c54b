//! Debounced jobs whose kicker or worker dies or freezes between two steps: what was triggered runs
//! once, with the newest arguments.

use std::time::Duration;

use aioq::store::Status;
use aioq::task;
use aioq_tests::{DemoKick, statuses, until};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::time::{Instant, interval};

use crate::bed::{Bed, ONE_BY_ONE};

const TASK: &str = "demo.append_newest";

impl Bed {
    fn arguments(&self, line: &str) -> String {
        json!({ "path": self.ledger.path(), "line": line }).to_string()
    }

    /// Kicks the job with this line; the id of the job.
    async fn trigger(&self, line: &str) -> String {
        self.demo.kick(TASK, &self.arguments(line), &[]).await
    }

    /// Starts a process that kicks the job, with this fault.
    async fn struck_trigger(&self, fault: &str, line: &str) -> DemoKick {
        self.demo.kick_with_fault(fault, TASK, &self.arguments(line)).await
    }

    async fn status(&self, id: &str) -> Status {
        self.client.jobs().get(&id.into()).await.unwrap().status
    }

    /// Waits until this line was written, and nothing more is in the queue.
    async fn until_ran(&self, line: &str) {
        // First: a ticket that becomes due is not counted for a moment.
        until("it runs", async || self.ledger.count(&format!("end {line}")) == 1).await;
        self.until_empty().await;
    }

    /// Lets a worker do the rest, up to this line; then a trigger begins a new burst. The lines in
    /// the ledger.
    async fn end_burst(self, last_line: &str) -> Vec<String> {
        let worker = self.demo.worker(&ONE_BY_ONE).await;
        self.until_ran(last_line).await;
        let (lines, before) = (self.ledger.lines(), statuses(self.demo.url(), self.demo.prefix()).await);
        assert!(before.values().all(|statuses| statuses.len() == 1), "{before:?}");
        let last = self.trigger("last").await;
        assert!(!before.contains_key(&last), "all have ended");
        self.until_ran("last").await;
        worker.stop().await;
        lines
    }
}

/// The lines of a body that ran once.
fn once(line: &str) -> [String; 2] {
    [format!("start {line}"), format!("end {line}")]
}

#[tokio::test]
async fn a_burst_whose_kicker_was_killed_before_it_sent_the_ticket_is_run_by_the_next_trigger() {
    let bed = Bed::new().await;
    let worker = bed.demo.worker(&ONE_BY_ONE).await;
    let killed = bed.struck_trigger("locked:1:kill", "a").await.ended().await;
    assert_eq!((killed.code, &*killed.stdout), (None, ""), "it is told nothing");
    bed.until_empty().await;
    let id = bed.trigger("b").await;
    bed.until_ran("b").await;
    assert_eq!(bed.status(&id).await, Status::Completed);
    worker.stop().await;
    assert_eq!(bed.end_burst("b").await, once("b"));
}

#[tokio::test]
async fn a_ticket_that_is_sent_after_its_burst_has_run_runs_nothing() {
    let bed = Bed::new().await;
    let frozen = bed.struck_trigger("locked:1:stop", "a").await;
    let id = bed.trigger("b").await;
    let worker = bed.demo.worker(&ONE_BY_ONE).await;
    bed.until_ran("b").await;
    frozen.thaw();
    assert_eq!(frozen.ended().await.lines()[0], id);
    bed.until_empty().await;
    worker.stop().await;
    assert_eq!(bed.end_burst("b").await, once("b"));
}

/// What ran of two triggers whose worker was killed at this point.
async fn killed_worker_at(point: &str) -> Vec<String> {
    let bed = Bed::new().await;
    let id = bed.trigger("a").await;
    assert_eq!(bed.trigger("b").await, id);
    bed.killed_worker(point).await;
    bed.end_burst("b").await
}

#[tokio::test]
async fn the_newest_trigger_runs_once_although_its_worker_was_killed_at_any_step() {
    let all = join_all(["fetched", "closed", "acked", "started", "saved"].map(killed_worker_at)).await;
    assert_eq!(all, [(); 5].map(|()| once("b")));
}

#[tokio::test]
async fn a_trigger_after_a_worker_died_with_a_closed_burst_runs_in_place_of_those_before_it() {
    let bed = Bed::new().await;
    let id = bed.trigger("a").await;
    bed.trigger("b").await;
    bed.killed_worker("closed").await;
    let next = bed.trigger("c").await;
    assert_ne!(next, id, "the burst was closed");
    let worker = bed.demo.worker(&ONE_BY_ONE).await;
    bed.until_ran("c").await;
    assert_eq!((bed.status(&id).await, bed.status(&next).await), (Status::Cancelled, Status::Completed));
    worker.stop().await;
    assert_eq!(bed.end_burst("c").await, once("c"));
}

/// What ran of these triggers, if the worker that closed their burst was frozen until another had
/// done its work.
async fn frozen_worker_after(triggers: &[&str]) -> Vec<String> {
    let (bed, last) = (Bed::new().await, triggers[triggers.len() - 1]);
    for line in triggers {
        bed.trigger(line).await;
    }
    let worker = bed.demo.worker_with_fault("closed:1:stop", &ONE_BY_ONE).await;
    until("it is frozen", async || worker.is_frozen()).await;
    let next = bed.demo.worker(&ONE_BY_ONE).await;
    bed.until_ran(last).await;
    worker.thaw();
    worker.stop().await;
    next.stop().await;
    bed.end_burst(last).await
}

#[tokio::test]
async fn a_worker_that_froze_with_a_closed_burst_runs_nothing_again() {
    assert_eq!(frozen_worker_after(&["a"]).await, once("a"));
    assert_eq!(frozen_worker_after(&["a", "b"]).await, once("b"));
}

/// The task of the demo program, as its client sees it.
#[task(name = "demo.append_newest", unique(by = path, debounce = "500ms", max = "2s"))]
async fn append_newest(path: &str, line: &str) {
    unreachable!("{path}, {line}: the workers are demo programs")
}

/// Time of the storm, and the time between two of its triggers.
const STORM: Duration = Duration::from_secs(10);
const BETWEEN_TRIGGERS: Duration = Duration::from_millis(2);

#[tokio::test]
async fn a_storm_of_triggers_puts_no_job_off_for_longer_than_its_maximum() {
    let bed = Bed::new().await;
    let worker = bed.demo.worker(&ONE_BY_ONE).await;
    let path = bed.ledger.path().to_str().unwrap();
    let (begun, mut ticks, mut kicks) = (Instant::now(), interval(BETWEEN_TRIGGERS), 0);
    let mut under_way = FuturesUnordered::new();
    while begun.elapsed() < STORM {
        ticks.tick().await;
        kicks += 1;
        under_way.push(bed.client.kiq(append_newest(path, format!("{kicks}"))));
        if under_way.len() > 8 {
            under_way.next().await.unwrap().unwrap();
        }
    }
    while let Some(kicked) = under_way.next().await {
        kicked.unwrap();
    }
    bed.client.kiq(append_newest(path, "last")).await.unwrap();
    bed.until_ran("last").await;
    let runs = bed.ledger.lines().iter().filter(|line| line.starts_with("end ")).count();
    println!("{kicks} triggers, {runs} runs");
    assert!(runs >= 4, "{runs} runs of {kicks} triggers");
    assert_eq!(bed.ledger.lines().last().unwrap(), "end last");
    worker.stop().await;
}
