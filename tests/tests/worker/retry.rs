//! Retries: by policy, on request of the body, and of jobs that have failed.

use aioq::broker::Expect;
use aioq::prelude::*;
use aioq::store::{JobRecord, Status};
use aioq::tasks::KickOptions;
use aioq::{ErrorKind, Message, Result};
use aioq_tests::{PATIENCE, Probe, Running, ended, on_each_backend, record_when};
use serde_json::json;

use crate::bodies::{add, flaky, hold, steered};
use crate::{options, probed, redeliver, short_lease};

#[task(retry(max = 5, backoff = "10ms", when = is_passing))]
async fn picky(passing: bool, #[inject] ctx: &Context, #[inject] probe: &Probe) -> Result<(), String> {
    probe.run(ctx.attempt());
    Err(if passing { "passing" } else { "lasting" }.to_owned())
}

fn is_passing(error: &String) -> bool {
    error == "passing"
}

#[task(retry(max = 1, backoff = "1h"))]
async fn slow_to_retry() -> Result<(), String> {
    Err("not now".to_owned())
}

/// Fails or snoozes once, and is due again after a second.
#[task(retry(max = 2, backoff = "1s"))]
async fn put_off_once(how: &str, #[inject] ctx: &Context, #[inject] probe: &Probe) -> TaskResult<u32> {
    match (how, probe.run(ctx.attempt())) {
        ("retry", 1) => Err(TaskError::from("not now")),
        ("snooze", 1) => Err(TaskError::snooze("1s")),
        _ => Ok(ctx.attempt()),
    }
}

on_each_backend! {
    async fn a_note_on_the_record_of_a_waiting_job_skips_no_attempt(bed: Bed) {
        for (how, waits, attempts) in [("retry", Status::Retrying, [1, 2]), ("snooze", Status::Scheduled, [1, 1])] {
            let (app, probe) = probed(&bed);
            let worker = Running::start(app).await;
            let (client, handle) = (&worker.client, worker.client.kiq(put_off_once(how)).await.unwrap());
            record_when(client, handle.id(), |record| record.status == waits).await;
            let stored = client.jobs().stored(handle.id()).await.unwrap().unwrap();
            client.jobs().update(&stored, stored.record.clone()).await.unwrap();
            handle.result_within(PATIENCE).await.unwrap();
            assert_eq!(probe.attempts(), attempts, "{how}");
            worker.stop().await;
        }
    }

    async fn a_record_of_a_fresh_job_that_says_that_it_waits_costs_no_result(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let handle = worker.client.kiq(hold()).await.unwrap();
        probe.until_runs(1).await;
        let message = worker.client.backend().broker().find(handle.id()).await.unwrap().unwrap();
        let waiting = JobRecord::of(&Message::open(&message.body).unwrap(), Status::Pending);
        let store = worker.client.backend().jobs().unwrap();
        store.put(waiting.into(), Expect::Absent, None).await.unwrap();
        probe.gate.add_permits(1);
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        worker.stop().await;
    }

    async fn retries_run_until_one_succeeds_and_the_record_tells_of_each_failure(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let handle = worker.client.kiq(flaky(2)).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 3);
        assert_eq!(probe.attempts(), [1, 2, 3]);
        let record = handle.record().await.unwrap();
        assert_eq!((record.attempt, record.max_retries), (3, 3));
        let told: Vec<_> = record.errors.iter().map(|e| (e.attempt, e.error.message.as_str())).collect();
        assert_eq!(told, [(1, "failure 1"), (2, "failure 2")]);
    }

    async fn used_up_retries_fail_the_job_after_max_and_one_runs(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let record = ended(&worker.client.kiq(flaky(99)).await.unwrap()).await;
        assert_eq!((record.status, record.attempt), (Status::Failed, 4));
        assert_eq!(probe.attempts(), [1, 2, 3, 4]);
        assert_eq!(record.errors.len(), 4);
        // The call may say otherwise.
        let record = ended(&worker.client.kiq(flaky(99).retries(0)).await.unwrap()).await;
        assert_eq!((record.attempt, record.max_retries), (1, 0));
    }

    async fn only_errors_that_when_accepts_are_retried(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        assert_eq!(ended(&worker.client.kiq(picky(false)).await.unwrap()).await.attempt, 1);
        assert_eq!(ended(&worker.client.kiq(picky(true)).await.unwrap()).await.attempt, 6);
        assert_eq!(probe.runs(), 7);
    }

    async fn a_waiting_retry_holds_no_slot_and_reads_as_retrying(bed: Bed) {
        let app = probed(&bed).0;
        let worker = Running::start(app.worker_options(options().concurrency(1))).await;
        let waiting = worker.client.kiq(steered("fail").retries(0)).await.unwrap();
        assert_eq!(waiting.result_within(PATIENCE).await.unwrap(), 1);
        let retried = worker.client.kiq_by_name("slow_to_retry", &json!({}), KickOptions::new()).await.unwrap();
        let record = record_when(&worker.client, retried.id(), |record| record.status == Status::Retrying).await;
        assert!(record.run_at.unwrap() > aioq::Timestamp::now());
        assert_eq!(worker.client.kiq(add(1, 1)).await.unwrap().result_within(PATIENCE).await.unwrap(), 2);
    }

    async fn a_body_can_ask_for_a_retry_soon(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let handle = worker.client.kiq(steered("retry_in")).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 2);
        assert_eq!(probe.attempts(), [1, 2]);
    }

    async fn a_snooze_spends_no_attempt(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let handle = worker.client.kiq(steered("snooze")).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        assert_eq!(probe.attempts(), [1, 1]);
    }

    async fn a_fatal_error_is_not_retried(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let record = ended(&worker.client.kiq(steered("fatal")).await.unwrap()).await;
        assert_eq!((record.status, record.attempt, probe.attempts()), (Status::Failed, 1, vec![1]));
    }

    async fn a_body_can_call_its_job_off(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let handle = worker.client.kiq(steered("cancel")).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(handle.record().await.unwrap().status, Status::Cancelled);
    }

    async fn a_job_that_was_put_off_does_not_expire(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let handle = worker.client.kiq(steered("snooze").ttl("10ms")).await.unwrap();
        let result = handle.result_within(PATIENCE).await;
        // It may expire before its first start on a slow machine, and never after it.
        match probe.runs() {
            0 => assert_eq!(result.unwrap_err().kind(), ErrorKind::Expired),
            _ => assert_eq!(result.unwrap(), 1),
        }
        worker.stop().await;
    }

    async fn a_retry_that_was_announced_but_not_kicked_is_finished(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(flaky(0)).await.unwrap();
        let store = client.backend().jobs().unwrap();
        let mut record = handle.record().await.unwrap();
        record.status = Status::Retrying;
        record.run_at = Some(aioq::Timestamp::now());
        store.put(record.into(), Expect::Absent, None).await.unwrap();
        redeliver(&client, "default").await;
        let (app, probe) = probed(&bed);
        let worker = Running::start(app.worker_options(short_lease())).await;
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 2);
        assert_eq!(probe.attempts(), [2]);
        worker.stop().await;
    }

    async fn a_failed_job_runs_again_once_when_it_is_retried(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let jobs = worker.client.jobs();
        let handle = worker.client.kiq(steered("fatal")).await.unwrap();
        assert_eq!(ended(&handle).await.status, Status::Failed);
        // Of many that ask at once, one is first, and the job runs once.
        let retries = futures_util::future::join_all((0..8).map(|_| jobs.retry(handle.id()))).await;
        let done = retries.into_iter().filter(|retried| *retried.as_ref().unwrap()).count();
        assert!(done >= 1, "one retry takes");
        let again = async {
            while probe.runs() < 1 + done as u32 {
                probe.started.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("it runs again");
        let record = ended(&handle).await;
        assert_eq!((record.status, record.attempt), (Status::Failed, 1));
        let fine = worker.client.kiq(add(1, 1)).await.unwrap();
        fine.result_within(PATIENCE).await.unwrap();
        assert!(!jobs.retry(fine.id()).await.unwrap(), "a completed job is not run again");
        assert_eq!(jobs.retry(&"nobody".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
        worker.stop().await;
    }

    async fn a_job_can_be_retried_the_moment_its_failure_is_known(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        for n in 1..=20 {
            let handle = worker.client.kiq(steered("fatal")).await.unwrap();
            assert_eq!(handle.result_within(PATIENCE).await.unwrap_err().kind(), ErrorKind::JobFailed);
            assert!(worker.client.jobs().retry(handle.id()).await.unwrap(), "retry {n}");
        }
        let all = async {
            while probe.runs() < 40 {
                probe.started.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("all run again");
        worker.stop().await;
    }
}
