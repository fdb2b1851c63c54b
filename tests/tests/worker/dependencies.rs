//! Jobs that wait for others: when they start, and what becomes of them when a parent does not
//! complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aioq::broker;
use aioq::error::Reason;
use aioq::message::Envelope;
use aioq::prelude::*;
use aioq::store::{Expect, JobRecord, RecordLevel};
use aioq::tasks::{KickOptions, OnParentFailure};
use aioq::{Client, ErrorKind, JobId};
use aioq_tests::{Bed, PATIENCE, Probe, Running, ended, on_each_backend, record_when};

use crate::{options, probed};

#[task(queue = "default")]
async fn step(n: u32, how: &str, #[inject] ctx: &Context, #[inject] probe: &Probe) -> TaskResult<u32> {
    match how {
        "hold" => probe.gate.acquire().await.map_err(TaskError::from)?.forget(),
        "fail" => return Err(TaskError::fatal("broken")),
        // Until it is rerun by hand.
        "fail once" if ctx.message().supersedes.is_none() => return Err(TaskError::fatal("broken")),
        _ => {}
    }
    probe.run(n);
    Ok(n)
}

#[task(queue = "default")]
pub(crate) async fn blob(bytes: usize) -> String {
    "x".repeat(bytes)
}

#[task(queue = "default", ack = "on_receive")]
async fn acked_early(n: u32, #[inject] probe: &Probe) -> u32 {
    probe.run(n);
    probe.gate.acquire().await.unwrap().forget();
    n
}

#[task(queue = "default")]
async fn next(n: u32) -> u32 {
    n
}

async fn kick(client: &Client, n: u32, how: &str) -> TaskHandle<u32> {
    client.kiq(step(n, how)).await.unwrap()
}

async fn blocked<O>(client: &Client, handle: &TaskHandle<O>) -> JobRecord {
    record_when(client, handle.id(), |record| record.status == Status::Blocked).await
}

async fn completed<O>(handle: &TaskHandle<O>) {
    let record = ended(handle).await;
    assert_eq!(record.status, Status::Completed, "{:?}", record.error);
}

/// The text of the error of a job that failed for a parent.
async fn failed_for_parent<O>(handle: &TaskHandle<O>) -> String {
    let record = ended(handle).await;
    assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Dependency)), "{record:?}");
    assert!(record.dead_lettered && record.started_at.is_none());
    record.error.unwrap().message
}

on_each_backend! {
    async fn a_job_starts_once_all_its_parents_have_completed(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        let (a, b) = (kick(client, 1, "hold").await, kick(client, 2, "hold").await);
        let child = client.kiq(step(3, "").after([&a, &b])).await.unwrap();
        let record = blocked(client, &child).await;
        assert_eq!(record.depends_on, [a.id().clone(), b.id().clone()]);
        let grandchild = client.kiq(step(4, "").after(&child)).await.unwrap();
        probe.gate.add_permits(1);
        let first = tokio::select! {
            _ = a.wait() => &b,
            _ = b.wait() => &a,
        };
        assert_eq!(child.status().await.unwrap(), Status::Blocked);
        assert!(!first.is_ready().await.unwrap());
        probe.gate.add_permits(1);
        assert_eq!(grandchild.result_within(PATIENCE).await.unwrap(), 4);
        assert_eq!(probe.attempts()[2..], [3, 4]);
        assert_eq!(child.record().await.unwrap().depends_on, [a.id().clone(), b.id().clone()]);
        assert!(edges(client).await.is_empty());
        worker.stop().await;
    }

    async fn a_job_after_parents_that_have_completed_runs_at_once(bed: Bed) {
        let (app, _) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        let (a, b) = (kick(client, 1, "").await, kick(client, 2, "").await);
        completed(&a).await;
        completed(&b).await;
        let child = client.kiq(step(3, "").after(&a).after_ids([b.id().clone()])).await.unwrap();
        assert_eq!(child.result_within(PATIENCE).await.unwrap(), 3);
        let none: [JobId; 0] = [];
        let free = client.kiq(step(4, "").after_ids(none)).await.unwrap();
        assert_eq!(free.result_within(PATIENCE).await.unwrap(), 4);
        worker.stop().await;
    }

    async fn a_kick_beside_the_end_of_the_parent_misses_nothing(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        for n in 0..50 {
            let (parent, early) = (JobId::from(format!("parent-{n}")), JobId::from(format!("early-{n}")));
            let first = client.kiq(step(n, "").id(parent.clone()));
            let child = client.kiq(step(1000 + n, "").after_ids([parent.clone()]).id(early));
            let (first, child) = tokio::join!(first, child);
            let (first, child) = (first.unwrap(), child.unwrap());
            completed(&first).await;
            // The kick of the child may have been before that of the parent.
            let record = ended(&child).await;
            let is_unknown = record.error.is_some_and(|error| error.message.contains("is unknown"));
            assert!(record.status == Status::Completed || is_unknown);
            let late = client.kiq(step(2000 + n, "").after(&first)).await.unwrap();
            completed(&late).await;
        }
        assert!(probe.runs() >= 100);
        worker.stop().await;
    }

    async fn jobs_after_one_that_fails_fail_in_turn_and_none_of_them_runs(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        let (good, bad) = (kick(client, 1, "hold").await, kick(client, 2, "fail").await);
        let child = client.kiq(step(3, "").after([&good, &bad])).await.unwrap();
        let grandchild = client.kiq(step(4, "").after(&child)).await.unwrap();
        let why = failed_for_parent(&child).await;
        assert_eq!(why, format!("its parent `{}` failed: broken", bad.id()));
        let why = failed_for_parent(&grandchild).await;
        assert_eq!(why, format!("its parent `{}` failed for a parent of its own", child.id()));
        let late = client.kiq(step(5, "").after(&grandchild)).await.unwrap();
        failed_for_parent(&late).await;
        let root = late.record().await.unwrap().error.unwrap().chain;
        assert_eq!(root, [format!("its parent `{}` failed: broken", bad.id())]);
        probe.gate.add_permits(1);
        completed(&good).await;
        assert_eq!(probe.attempts(), [1]);
        worker.stop().await;
    }

    async fn every_road_to_an_end_reaches_the_jobs_that_wait(bed: Bed) {
        let (app, _) = probed(&bed);
        let client = bed.client().await;
        let cancelled = kick(&client, 1, "").await;
        let after_cancelled = client.kiq(step(11, "").after(&cancelled)).await.unwrap();
        assert!(client.jobs().cancel(cancelled.id()).await.unwrap());
        assert!(failed_for_parent(&after_cancelled).await.ends_with("was cancelled"));

        let removed = kick(&client, 2, "").await;
        let after_removed = client.kiq(step(12, "").after(&removed)).await.unwrap();
        assert!(client.jobs().remove(removed.id()).await.unwrap());
        failed_for_parent(&after_removed).await;
        let after_gone = client.kiq(step(13, "").after(&removed)).await.unwrap();
        assert!(failed_for_parent(&after_gone).await.contains("is unknown"));
        let after_nothing = client.kiq(step(14, "").after_ids(["nobody"])).await.unwrap();
        assert!(failed_for_parent(&after_nothing).await.contains("`nobody` is unknown"));

        let nothing = BTreeMap::<String, u32>::new();
        let unknown_task = client.kiq_by_name("nobody.has.it", &nothing, KickOptions::new()).await.unwrap();
        let after_unknown = client.kiq(step(15, "").after(&unknown_task)).await.unwrap();
        let expired = client.kiq(step(3, "").ttl("1ms")).await.unwrap();
        let after_expired = client.kiq(step(16, "").after(&expired)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        let large = client.kiq(blob(2_000_000)).await.unwrap();
        let after_large = client.kiq(step(18, "").after(&large)).await.unwrap();
        let garbage = Envelope::new("garbage".into(), "default", "no message");
        client.backend().broker().kick(garbage, broker::Expect::Absent).await.unwrap();
        let after_garbage = client.kiq(step(19, "").after_ids(["garbage"])).await.unwrap();
        let worker = Running::start(app.worker_options(options().patience(Duration::ZERO))).await;
        failed_for_parent(&after_unknown).await;
        failed_for_parent(&after_large).await;
        failed_for_parent(&after_garbage).await;
        assert!(failed_for_parent(&after_expired).await.ends_with("expired"));

        let aborted = kick(&client, 4, "hold").await;
        let after_aborted = client.kiq(step(17, "").after(&aborted)).await.unwrap();
        record_when(&client, aborted.id(), |record| record.status == Status::Running).await;
        assert!(client.jobs().abort(aborted.id(), PATIENCE).await.unwrap());
        failed_for_parent(&after_aborted).await;
        worker.stop().await;
    }

    async fn a_purge_of_the_parents_ends_the_wait_for_them(bed: Bed) {
        let client = bed.client().await;
        let ready = kick(&client, 1, "").await;
        let delayed = client.kiq(step(2, "").delay("1h")).await.unwrap();
        let fails = [&ready, &delayed].map(|parent| step(3, "").after(parent));
        let fails = client.kiq_all(fails).await.into_iter().map(Result::unwrap);
        let runs = step(4, "").queue("other").after([&ready, &delayed]);
        let runs = client.kiq(runs.on_parent_failure(OnParentFailure::Run)).await.unwrap();
        let flow = client.kiq_flow(step(5, "").then(next)).await.unwrap();
        assert_eq!(client.queues().purge("default").await.unwrap().done, 3);
        for child in fails {
            assert!(failed_for_parent(&child).await.contains("is unknown"));
        }
        failed_for_parent(&flow).await;
        assert_eq!(runs.status().await.unwrap(), Status::Pending);
        for parent in [ready, delayed] {
            assert_eq!(parent.record().await.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }

    async fn a_job_may_run_or_wait_although_a_parent_failed(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        let bad = kick(client, 1, "fail once").await;
        let runs = step(2, "").after(&bad).on_parent_failure(OnParentFailure::Run);
        let runs = client.kiq(runs).await.unwrap();
        let waits = step(3, "").after(&bad).on_parent_failure(OnParentFailure::Wait);
        let waits = client.kiq(waits).await.unwrap();
        completed(&runs).await;
        blocked(client, &waits).await;
        assert!(client.jobs().retry(bad.id()).await.unwrap());
        completed(&waits).await;
        assert_eq!(probe.attempts(), [2, 1, 3]);
        worker.stop().await;
    }

    async fn a_rerun_of_the_parent_revives_all_that_failed_for_it(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        let (a, b) = (kick(client, 1, "fail once").await, kick(client, 2, "fail once").await);
        let child = client.kiq(step(3, "").after([&a, &b])).await.unwrap();
        let grandchild = client.kiq(step(4, "").after(&child)).await.unwrap();
        failed_for_parent(&grandchild).await;
        ended(&a).await;
        ended(&b).await;
        let refused = client.jobs().retry(child.id()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert!(refused.to_string().contains("rerun that"), "{refused}");
        assert!(client.jobs().retry(a.id()).await.unwrap());
        completed(&a).await;
        assert_eq!(child.status().await.unwrap(), Status::Failed);
        assert!(client.jobs().retry(b.id()).await.unwrap());
        record_when(client, grandchild.id(), |record| record.status == Status::Completed).await;
        assert_eq!(probe.attempts(), [1, 2, 3, 4]);
        worker.stop().await;
    }

    async fn a_job_that_failed_by_itself_runs_again_whatever_became_of_its_parents(bed: Bed) {
        let (app, _) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        let parent = kick(client, 1, "").await;
        let child = client.kiq(step(2, "fail").after(&parent)).await.unwrap();
        ended(&child).await;
        assert!(client.jobs().remove(parent.id()).await.unwrap());
        assert!(child.retry().await.unwrap());
        let record = record_when(client, child.id(), |record| record.errors.len() == 2).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Error)), "{record:?}");
        assert_eq!(record.depends_on, [parent.id().clone()]);
        worker.stop().await;
    }

    async fn a_job_called_off_while_it_waits_never_runs_and_waits_anew_if_it_is_rerun(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        let parent = kick(client, 1, "hold").await;
        let child = client.kiq(step(2, "").after(&parent)).await.unwrap();
        let grandchild = client.kiq(step(3, "").after(&child)).await.unwrap();
        assert!(child.cancel().await.unwrap() && !child.cancel().await.unwrap());
        assert!(failed_for_parent(&grandchild).await.ends_with("was cancelled"));
        assert!(child.retry().await.unwrap());
        blocked(client, &child).await;
        probe.gate.add_permits(1);
        record_when(client, grandchild.id(), |record| record.status == Status::Completed).await;
        assert_eq!(probe.attempts(), [1, 2, 3]);
        worker.stop().await;
    }

    async fn parents_may_be_in_the_same_bulk_in_any_order(bed: Bed) {
        let (app, probe) = probed(&bed);
        let client = bed.client().await;
        let calls = [
            step(3, "").id("c").after_ids(["a", "b"]),
            step(1, "").id("a"),
            step(2, "").id("b").after_ids(["a"]),
            step(9, "").id("x").after_ids(["y"]),
            step(9, "").id("y").after_ids(["x"]),
            step(8, "").id("z").after_ids(["z"]),
        ];
        let kicked = client.kiq_all(calls).await;
        let ids: Vec<_> = kicked[..3].iter().map(|kicked| kicked.as_ref().unwrap().id().as_str()).collect();
        assert_eq!(ids, ["c", "a", "b"]);
        for cyclic in &kicked[3..] {
            assert_eq!(cyclic.as_ref().unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        let calls = [step(7, "").id("v").after_ids(["u"]), step(7, "").id("u").priority(42)];
        for refused in client.kiq_all(calls).await {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(client.jobs().get(&"v".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
        let why = kicked[3].as_ref().unwrap_err().to_string();
        assert!(why.contains("`x` after `y` after `x`"), "{why}");
        let worker = Running::start(app).await;
        completed(kicked[0].as_ref().unwrap()).await;
        assert_eq!(probe.attempts(), [1, 2, 3]);
        worker.stop().await;
    }

    async fn a_job_may_have_more_parents_than_its_message_carries(bed: Bed) {
        let (app, probe) = probed(&bed);
        let client = bed.client().await;
        let ids: Vec<JobId> = (0..150).map(|n| JobId::from(format!("parent-{n}"))).collect();
        let calls = ids.iter().zip(0..).map(|(id, n)| step(n, "").id(id));
        assert!(client.kiq_all(calls).await.iter().all(Result::is_ok));
        let child = client.kiq(step(1000, "").after_ids(&ids)).await.unwrap();
        let worker = Running::start(app).await;
        completed(&child).await;
        assert_eq!((probe.runs(), probe.attempts().last()), (151, Some(&1000)));
        assert_eq!(child.record().await.unwrap().depends_on, ids);
        worker.stop().await;
    }

    async fn the_same_jobs_kicked_twice_are_there_once(bed: Bed) {
        let (app, probe) = probed(&bed);
        let client = bed.client().await;
        let calls = || [step(1, "").id("a"), step(2, "").id("b").after_ids(["a"])];
        for (round, existing) in [(0, false), (1, true)] {
            let kicked = client.kiq_all(calls()).await;
            assert!(kicked.iter().all(|kicked| kicked.as_ref().unwrap().existing() == existing), "{round}");
        }
        let worker = Running::start(app).await;
        let b = client.kiq_all(calls()).await.pop().unwrap().unwrap();
        completed(&b).await;
        assert!(client.kiq_all(calls()).await.iter().all(|kicked| kicked.as_ref().unwrap().existing()));
        assert_eq!(probe.attempts(), [1, 2]);
        worker.stop().await;
    }

    async fn a_client_without_records_cannot_kick_a_job_that_waits(bed: Bed) {
        let client = Client::builder(bed.backend()).records(RecordLevel::None).connect().await.unwrap();
        let parent = kick(&client, 1, "").await;
        for refused in [
            client.kiq(step(2, "").after(&parent)).await.map(|_| ()),
            client.kiq_flow(step(3, "").then(next)).await.map(|_| ()),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
        }
        assert_eq!(client.queues().purge("default").await.unwrap().done, 1);
    }

    async fn a_delay_counts_from_the_end_of_the_parents(bed: Bed) {
        let (app, _) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        let parent = kick(client, 1, "").await;
        let end = ended(&parent).await.finished_at.unwrap();
        let child = client.kiq(step(2, "").after(&parent).delay("1h")).await.unwrap();
        let record = record_when(client, child.id(), |record| record.status == Status::Scheduled).await;
        assert!(record.run_at.unwrap().since(end) >= Duration::from_secs(3600));
        worker.stop().await;
    }

    async fn a_unique_job_holds_its_key_while_it_waits(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        let parent = kick(client, 1, "hold").await;
        let kick = || client.kiq(step(2, "").after(&parent).unique_key("one"));
        let (first, second) = (kick().await.unwrap(), kick().await.unwrap());
        assert!(!first.existing() && second.existing() && first.id() == second.id());
        probe.gate.add_permits(1);
        completed(&first).await;
        let third = client.kiq(step(3, "").unique_key("one")).await.unwrap();
        assert!(!third.existing());
        worker.stop().await;
    }
}

/// A job in a queue that no worker reads, and one that waits for it.
async fn waiting_in_vain(client: &Client) -> TaskHandle<u32> {
    let parent = client.kiq(step(1, "").queue("unread")).await.unwrap();
    client.kiq(step(2, "").after(&parent).ttl("10m")).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_parent_whose_message_was_lost_is_found_by_the_sweep() {
    let (app, probe) = probed(&Bed::memory());
    let worker = Running::start(app).await;
    let child = waiting_in_vain(&worker.client).await;
    let lost = worker.client.dequeue(&["unread"], PATIENCE).await.unwrap().unwrap();
    lost.receipt.ack().await.unwrap();
    let record = child.wait().await.unwrap();
    assert_eq!(record.reason, Some(Reason::Dependency), "{record:?}");
    assert!(record.error.unwrap().message.contains("is unknown"));
    assert_eq!(probe.runs(), 0);
    worker.stop().await;
}

/// As a worker of another program leaves it that knows nothing of dependencies.
#[tokio::test(start_paused = true)]
async fn a_parent_that_ended_without_a_word_to_its_children_is_found_by_the_sweep() {
    let (app, _) = probed(&Bed::memory());
    let worker = Running::start(app).await;
    let client = &worker.client;
    let parent = client.kiq(step(1, "").queue("unread")).await.unwrap();
    let child = client.kiq(step(2, "").after(&parent)).await.unwrap();
    let taken = client.dequeue(&["unread"], PATIENCE).await.unwrap().unwrap();
    let mut ended = parent.record().await.unwrap();
    ended.status = Status::Completed;
    client.backend().jobs().unwrap().put(Arc::new(ended), Expect::Any, None).await.unwrap();
    taken.receipt.ack().await.unwrap();
    assert_eq!(child.result().await.unwrap(), 2);
    worker.stop().await;
}

/// As a server leaves it that lost the newest writes.
#[tokio::test(start_paused = true)]
async fn a_job_whose_edge_was_lost_is_released_by_the_sweep() {
    let (app, probe) = probed(&Bed::memory());
    let worker = Running::start(app).await;
    let client = &worker.client;
    let (a, b) = (kick(client, 1, "hold").await, kick(client, 2, "hold").await);
    let child = client.kiq(step(3, "").after([&a, &b])).await.unwrap();
    let kv = client.backend().kv();
    let lost = kv.scan("after.").await.unwrap();
    for edge in lost {
        kv.delete(&edge.key, Expect::Any).await.unwrap();
    }
    probe.gate.add_permits(2);
    for parent in [&a, &b] {
        completed(parent).await;
    }
    assert_eq!(child.result().await.unwrap(), 3);
    worker.stop().await;
}

/// A job that is acked on receive, and that its worker has put away until it is due.
#[tokio::test(start_paused = true)]
async fn a_parent_that_runs_without_a_message_is_waited_for() {
    let (app, probe) = probed(&Bed::memory());
    let worker = Running::start(app).await;
    let client = &worker.client;
    let parent = client.kiq(acked_early(1)).await.unwrap();
    let child = client.kiq(step(2, "").after(&parent)).await.unwrap();
    aioq_tests::until("it runs", async || probe.runs() == 1).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(child.status().await.unwrap(), Status::Blocked);
    probe.gate.add_permits(1);
    assert_eq!(child.result().await.unwrap(), 2);
    worker.stop().await;
}

/// As a worker leaves it that was killed while it ran a job which is acked on receive.
#[tokio::test(start_paused = true)]
async fn a_parent_whose_worker_died_after_its_ack_fails_with_those_that_wait() {
    let (app, probe) = probed(&Bed::memory());
    let worker = Running::start(app).await;
    let client = &worker.client;
    let parent = JobId::from("parent");
    let mut record = JobRecord::unreadable(parent.clone(), "default", Status::Running);
    record.worker_id = Some("gone".into());
    let ttl = Some(Duration::from_secs(3600));
    client.backend().jobs().unwrap().put(Arc::new(record), Expect::Absent, ttl).await.unwrap();
    let child = client.kiq(step(2, "").after_ids([&parent])).await.unwrap();
    let runs = step(3, "").after_ids([&parent]).on_parent_failure(OnParentFailure::Run);
    let runs = client.kiq(runs).await.unwrap();
    let why = child.wait().await.unwrap().error.unwrap().message;
    assert!(why.starts_with("its parent `parent` failed: its worker died"), "{why}");
    assert_eq!(runs.result().await.unwrap(), 3);
    assert_eq!(client.jobs().get(&parent).await.unwrap().status, Status::Failed);
    assert_eq!(probe.runs(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_blocked_job_expires_although_its_parent_waits() {
    let (app, probe) = probed(&Bed::memory());
    let worker = Running::start(app).await;
    let child = waiting_in_vain(&worker.client).await;
    let record = child.wait().await.unwrap();
    assert_eq!((record.status, record.reason), (Status::Expired, Some(Reason::Expired)), "{record:?}");
    assert!(record.finished_at.unwrap() >= record.kicked_at.unwrap() + Duration::from_secs(600));
    assert_eq!(probe.runs(), 0);
    worker.stop().await;
}

/// The keys of all edges.
async fn edges(client: &Client) -> Vec<String> {
    let open = async || {
        let found = client.backend().kv().scan("after.").await.unwrap();
        found.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    aioq_tests::until("the edges to be gone", async || open().await.is_empty()).await;
    open().await
}
