//! Every plug, pulled in every way, at every step of a job: exactly there, while jobs flow.
//!
//! A process is struck where a fault point says, or while it holds one job alone. So it is known
//! what every cell may repeat, and the ledger is held against that.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use aioq_tests::{Demo, DemoProducer, DemoWorker, NatsServer, PATIENCE, until};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::bed::ONE_BY_ONE;
use crate::flow::{ASIDE, BEGUN, ENOUGH, FLOW, Flow, Job, Kind, NONE, Repeats, WHOLE, taken_over, waiting};

const ALONE: [&str; 6] = ["--ack-wait", "1s", "--concurrency", "1", "--queues", ASIDE];

/// Means of striking a process.
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

fn assert_struck(status: ExitStatus, means: Means, log: &str) {
    match means {
        // It took the signal for what it is, and ended well.
        Means::Term => assert!(status.success(), "{status}: {log}"),
        _ => assert_eq!(status.signal(), Some(means.signal().as_raw()), "{log}"),
    }
}

/// Ends the cell of a worker that was struck; how many of its runs came to nothing.
async fn settle(bed: &Flow, mut worker: DemoWorker, means: Means) -> usize {
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

/// Strikes workers at each point, in the middle of the flow. `repeat` tells which points repeat a
/// job.
async fn strike_workers(means: Means, repeat: &[&str]) {
    let mut bed = Flow::new().await;
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

/// Strikes a worker that is alone with one job, and lets another do the rest. `thaw` says when a
/// frozen one goes on.
async fn strike_alone(
    bed: &mut Flow,
    mut worker: DemoWorker,
    means: Means,
    thaw: impl AsyncFnOnce(&Flow),
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

/// Strikes workers in the middle of a body, while a job of theirs waits, and while they hold a
/// claim.
async fn strike_workers_alone(means: Means, in_body: Repeats, refused_in_body: usize) {
    let mut bed = Flow::new().await;

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
    // A release by a late worker is refused as well.
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

/// Milliseconds for which workers are held up, for the server to be struck meanwhile.
const HELD_UP: u64 = 7000;

/// Strikes the server while workers are held up at every step, with jobs that wait; `most` may be
/// repeated.
async fn strike_server(means: Means, most: usize) {
    let mut server = NatsServer::start().await.unwrap();
    let mut bed = Flow::at(Demo::on(&server)).await;
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

/// Strikes producers with a kick that is not sent, with one that is confirmed and not told, and
/// with one that has its unique key and is not sent, while jobs of theirs are delayed and wait for
/// a retry.
async fn strike_producers(means: Means) {
    const AT: usize = 520;
    let mut bed = Flow::new().await;
    for (point, sent) in [("kicking", 0), ("kicked", 1), ("locked", 0)] {
        let numbers: Vec<_> = bed.numbers(AT + FLOW).collect();
        let calls = numbers.iter().map(|n| {
            let (task, args, delay) = Kind::of(*n).call(&bed.ledger, &n.to_string());
            // Only such a kick passes the point; each job has a key of its own.
            let key = (point == "locked").then(|| n.to_string());
            let delay_ms = delay.as_millis() as u64;
            json!({ "task": task, "args": args, "delay_ms": delay_ms, "unique_key": key }).to_string()
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
