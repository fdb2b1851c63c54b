//! Unique keys whose kicker or worker dies or freezes between two steps: nobody keeps the key of a
//! job that never was, and no two jobs of it run.

use std::time::Duration;

use aioq::TaskHandle;
use aioq::store::Status;
use aioq::tasks::KickOptions;
use aioq_tests::{DemoProducer, PATIENCE, ended, record_when, statuses, until};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use crate::bed::{Bed, ONE_BY_ONE};
use crate::flow::STEADY;

/// Time after which a key without a job is free: a second of waiting, a few requests, and room for
/// a busy machine. It is below the deadline of a kick.
const FREE_AFTER: Duration = Duration::from_secs(4);

const KEY: &str = "k";

impl Bed {
    /// Kicks a job of the key that writes this line.
    async fn kick(&self, line: &str, ms: u64) -> TaskHandle<()> {
        let args = json!({ "path": self.ledger.path(), "line": line, "ms": ms });
        let options = KickOptions::new().unique_key(KEY);
        self.client.kiq_by_name("demo.append_slow", &args, options).await.unwrap()
    }

    /// Starts a process that kicks such a job, and is struck at this point.
    async fn kicker(&self, fault: &str, line: &str) -> DemoProducer {
        let args = json!({ "path": self.ledger.path(), "line": line, "ms": 0 });
        let call = json!({ "task": "demo.append_slow", "args": args, "unique_key": KEY });
        DemoProducer::start(&self.demo, fault, vec![call.to_string()]).await
    }

    /// Starts a process that kicks such a job, and is killed at this point before it is told
    /// anything.
    async fn killed_kicker(&self, point: &str, line: &str) {
        let kicker = self.kicker(&format!("{point}:1:kill"), line).await;
        let (status, told) = kicker.ended_within(PATIENCE).await;
        assert!(!status.success() && told.is_empty(), "{point}: {status}, {told:?}");
    }

    /// Starts a process that kicks such a job, and is frozen at this point.
    async fn frozen_kicker(&self, point: &str, line: &str) -> DemoProducer {
        let mut kicker = self.kicker(&format!("{point}:1:stop"), line).await;
        until("it is struck", async || kicker.is_frozen() || kicker.has_ended()).await;
        assert!(!kicker.has_ended(), "{point}: it is frozen");
        kicker
    }

    /// Kicks a job of a key that nobody holds. It is new, and was not waited for longer than a kick
    /// may be in doubt.
    async fn kick_anew_in_time(&self, line: &str) -> TaskHandle<()> {
        let began = Instant::now();
        let handle = self.kick(line, 0).await;
        let took = began.elapsed();
        println!("the key was taken after {took:.2?}");
        assert!(!handle.existing(), "the key is free");
        assert!(took < FREE_AFTER, "{took:?}");
        handle
    }

    /// Lets a worker do the rest; then the key is free. The lines in the ledger.
    async fn end(self) -> Vec<String> {
        let worker = self.demo.worker(&STEADY).await;
        self.until_empty().await;
        let lines = self.ledger.lines();
        let last = self.kick("last", 0).await;
        assert!(!last.existing(), "all have ended");
        assert_eq!(ended(&last).await.status, Status::Completed);
        worker.stop().await;
        for (id, statuses) in statuses(self.demo.url(), self.demo.prefix()).await {
            assert_eq!(statuses.len(), 1, "{id}: {statuses:?}");
        }
        lines
    }
}

/// The lines of jobs that run once, one after the other.
fn in_turn<const N: usize>(jobs: [&str; N]) -> Vec<String> {
    jobs.into_iter().flat_map(|job| [format!("start {job}"), format!("end {job}")]).collect()
}

async fn kill_kickers(points: &[&str]) {
    let bed = Bed::new().await;
    for point in points {
        bed.killed_kicker(point, "dead").await;
    }
    bed.kick_anew_in_time("a").await;
    assert_eq!(bed.end().await, in_turn(["a"]));
}

#[tokio::test]
async fn a_key_whose_kicker_was_killed_before_its_kick_is_free_after_a_second() {
    kill_kickers(&["locked"]).await;
}

#[tokio::test]
async fn a_key_that_two_killed_kickers_took_is_free_after_a_second() {
    // The second one takes it over from the first.
    kill_kickers(&["locked", "locked"]).await;
}

#[tokio::test]
async fn a_key_whose_doubter_was_killed_before_the_takeover_is_free_after_a_second() {
    kill_kickers(&["locked", "contested"]).await;
}

#[tokio::test]
async fn a_key_whose_kicker_was_killed_after_its_kick_belongs_to_its_job() {
    let bed = Bed::new().await;
    bed.killed_kicker("kicked", "a").await;
    assert!(bed.kick("b", 0).await.existing());
    assert_eq!(bed.end().await, in_turn(["a"]));
}

/// What a kick gets once the worker of the first job was killed at this point, and what ran.
async fn killed_worker_at(point: &str) -> (bool, Vec<String>) {
    let bed = Bed::new().await;
    let first = bed.kick("a", 0).await;
    bed.killed_worker(point).await;
    let second = bed.kick("b", 0).await;
    assert_eq!(second.existing(), second.id() == first.id());
    let is_existing = second.existing();
    let lines = bed.end().await;
    (is_existing, lines)
}

#[tokio::test]
async fn a_key_whose_worker_was_killed_stays_with_the_job_until_that_is_saved() {
    let all = join_all(["fetched", "started", "ran", "saved", "acked"].map(killed_worker_at)).await;
    let [fetched, started, ran, saved, acked] = <[_; 5]>::try_from(all).unwrap();
    assert_eq!(fetched, (true, in_turn(["a"])));
    assert_eq!(started, (true, in_turn(["a"])));
    // What had run and was not saved runs again.
    assert_eq!(ran, (true, in_turn(["a", "a"])));
    assert_eq!(saved, (false, in_turn(["a", "b"])));
    assert_eq!(acked, (false, in_turn(["a", "b"])));
}

#[tokio::test]
async fn a_key_whose_worker_was_killed_in_the_body_stays_with_the_job() {
    let bed = Bed::new().await;
    let worker = bed.demo.worker(&ONE_BY_ONE).await;
    let first = bed.kick("a", 1500).await;
    until("it is in the body", async || bed.ledger.count("start a") == 1).await;
    worker.kill().await;
    assert_eq!(bed.kick("b", 0).await.id(), first.id(), "nobody runs it");
    let next = bed.demo.worker(&STEADY).await;
    until("it is in the body again", async || bed.ledger.count("start a") == 2).await;
    assert_eq!(bed.kick("c", 0).await.id(), first.id(), "another one runs it");
    assert_eq!(ended(&first).await.status, Status::Completed);
    next.stop().await;
    assert_eq!(bed.end().await, ["start a", "start a", "end a"]);
}

/// Freezes a kicker at this point until another kick has taken the key over, and lets it go on
/// while that one's job waits. The id that it is told; the handle of the other.
async fn thaw_after_takeover(bed: &Bed, point: &str) -> (String, TaskHandle<()>) {
    let kicker = bed.frozen_kicker(point, "a").await;
    let rival = bed.kick_anew_in_time("b").await;
    kicker.thaw();
    let (status, told) = kicker.ended_within(PATIENCE).await;
    assert!(status.success(), "{status}");
    assert_eq!(told.len(), 1, "it is answered");
    (told[0].clone(), rival)
}

#[tokio::test]
async fn a_kicker_that_froze_with_the_key_gets_the_job_of_the_one_who_took_it_over() {
    let bed = Bed::new().await;
    let (told, rival) = thaw_after_takeover(&bed, "locked").await;
    assert_eq!(told, rival.id().as_str());
    assert_eq!(bed.end().await, in_turn(["b"]));
}

#[tokio::test]
async fn a_job_that_is_kicked_late_does_not_run_beside_the_one_that_took_its_key_over() {
    let bed = Bed::new().await;
    // Nothing is asked any more between this point and the message.
    let (told, rival) = thaw_after_takeover(&bed, "kicking").await;
    assert_ne!(told, rival.id().as_str());
    let worker = bed.demo.worker(&STEADY).await;
    bed.until_empty().await;
    worker.stop().await;
    let record = bed.client.jobs().get(&told.as_str().into()).await.unwrap();
    let why = record.error.unwrap().message;
    assert_eq!((record.status, why), (Status::Cancelled, format!("its key was taken by `{}`", rival.id())));
    assert_eq!(bed.end().await, in_turn(["b"]));
}

#[tokio::test]
async fn a_job_that_is_kicked_late_does_not_run_while_the_one_that_took_its_key_over_runs() {
    let bed = Bed::new().await;
    let kicker = bed.frozen_kicker("kicking", "a").await;
    let worker = bed.demo.worker(&STEADY).await;
    let rival = bed.kick("b", 3000).await;
    assert!(!rival.existing());
    until("it is in the body", async || bed.ledger.count("start b") == 1).await;
    kicker.thaw();
    let (_, told) = kicker.ended_within(PATIENCE).await;
    let late = told[0].as_str().into();
    record_when(&bed.client, &late, |record| record.status == Status::Cancelled).await;
    worker.stop().await;
    assert_eq!(bed.end().await, in_turn(["b"]));
}

#[tokio::test]
async fn a_job_that_turns_up_while_its_key_is_doubted_keeps_it() {
    let bed = Bed::new().await;
    let first = bed.frozen_kicker("locked", "a").await;
    let doubter = bed.frozen_kicker("contested", "b").await;
    first.thaw();
    let (_, told) = first.ended_within(PATIENCE).await;
    doubter.thaw();
    let (_, told_too) = doubter.ended_within(PATIENCE).await;
    assert_eq!((told.len(), &told), (1, &told_too));
    assert_eq!(bed.end().await, in_turn(["a"]));
}

#[tokio::test]
async fn a_job_that_started_while_its_key_was_doubted_keeps_it() {
    let bed = Bed::new().await;
    let first = bed.frozen_kicker("locked", "a").await;
    let doubter = bed.frozen_kicker("contested", "b").await;
    first.thaw();
    let (_, told) = first.ended_within(PATIENCE).await;
    // It clears the mark, and ends.
    let worker = bed.demo.worker(&STEADY).await;
    bed.until_empty().await;
    worker.stop().await;
    doubter.thaw();
    let (_, anew) = doubter.ended_within(PATIENCE).await;
    assert_ne!(told, anew, "that job has ended");
    assert_eq!(bed.end().await, in_turn(["a", "b"]));
}
