//! Results, errors and panics of bodies, and the records of jobs that ran.

use aioq::error::Reason;
use aioq::message::Codec;
use aioq::prelude::*;
use aioq::store::Status;
use aioq::{ErrorKind, JobId, Result};
use aioq_tests::{Bed, PATIENCE, Probe, Running, ended, on_each_backend};

use crate::bodies::{add, flaky, parse};
use crate::{probed, stateful};

#[task]
async fn explode(#[inject] probe: &Probe) {
    probe.run(1);
    panic!("kaboom {}", 7);
}

#[task(timeout = "100ms")]
async fn endless(#[inject] probe: &Probe) {
    probe.run(1);
    std::future::pending::<()>().await;
}

#[task]
pub(crate) async fn parent(n: i64) -> TaskResult<JobId> {
    Ok(add(n, n).kiq().await?.id().clone())
}

#[task]
fn blocking_parent(n: i64) -> TaskResult<JobId> {
    Ok(add(n, n).kiq_blocking()?.id().clone())
}

#[task(retry(max = 30, backoff = "1ms"))]
async fn verbose() -> Result<(), String> {
    Err("very long ".repeat(10_000))
}

on_each_backend! {
    async fn a_kicked_job_runs_and_its_result_is_pushed_to_the_handle(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let handle = bed.client().await.kiq(add(2, 3)).await.unwrap();
        assert!(!handle.existing());
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 5);
        let record = handle.record().await.unwrap();
        assert_eq!((record.status, record.attempt, record.task.as_str()), (Status::Completed, 1, "add"));
        assert_eq!(record.arguments.unwrap().to_json(), r#"{"a":2,"b":3}"#);
        assert!(record.kicked_at <= record.started_at && record.started_at <= record.finished_at);
        assert!(record.worker_id.is_some());
        assert_eq!(worker.stop().await.jobs, 1);
    }

    async fn an_unknown_job_is_not_found(bed: Bed) {
        let client = bed.client().await;
        let error = client.jobs().get(&"nobody".into()).await.unwrap_err();
        assert_eq!((error.kind(), error.id().unwrap().as_str()), (ErrorKind::NotFound, "nobody"));
        assert_eq!(client.handle::<i64>("nobody").await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    async fn an_error_of_the_body_fails_the_job_with_its_type_and_text(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let handle = worker.client.kiq(parse("seven")).await.unwrap();
        let error = handle.result_within(PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::JobFailed);
        assert_eq!(error.job_error().unwrap().exc_type, "ParseIntError");
        let record = handle.record().await.unwrap();
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Error)));
        assert!(record.dead_lettered && record.message.is_some());
        assert_eq!(worker.client.kiq(parse("7")).await.unwrap().result_within(PATIENCE).await.unwrap(), 7);
    }

    async fn a_panic_fails_the_attempt_and_the_worker_goes_on(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let record = ended(&worker.client.kiq(explode()).await.unwrap()).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Panic)));
        assert_eq!(record.error.unwrap().message, "kaboom 7");
        assert_eq!(worker.client.kiq(add(1, 1)).await.unwrap().result_within(PATIENCE).await.unwrap(), 2);
    }

    async fn an_attempt_that_takes_too_long_is_dropped(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let record = ended(&worker.client.kiq(endless()).await.unwrap()).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Timeout)));
        assert_eq!(record.error.unwrap().exc_type, "TimeoutError");
    }

    async fn ten_thousand_jobs_through_three_workers_run_once_each_with_the_right_results(bed: Bed) {
        let (mut workers, mut probes) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (app, probe) = probed(&bed);
            workers.push(Running::start(app).await);
            probes.push(probe);
        }
        let client = bed.client().await;
        let sums = client.kiq_all((0..5_000).map(|n| add(n, 1))).await;
        let counted = client.kiq_all((0..5_000).map(|_| flaky(0))).await;
        for (n, sum) in sums.into_iter().enumerate() {
            assert_eq!(sum.unwrap().result_within(PATIENCE).await.unwrap(), n as i64 + 1);
        }
        for job in counted {
            assert_eq!(job.unwrap().result_within(PATIENCE).await.unwrap(), 1);
        }
        assert_eq!(probes.iter().map(|probe| probe.runs()).sum::<u32>(), 5_000);
        for worker in workers {
            worker.stop().await;
        }
    }

    async fn a_body_kicks_through_its_workers_client(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        for kicked in [worker.client.kiq(parent(4)).await.unwrap(), worker.client.kiq(blocking_parent(4)).await.unwrap()] {
            let child = kicked.result_within(PATIENCE).await.unwrap();
            let child = worker.client.handle::<i64>(child).await.unwrap();
            assert_eq!(child.result_within(PATIENCE).await.unwrap(), 8);
        }
    }

    async fn both_codecs_are_read_by_one_worker(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        for codec in [Codec::Json, Codec::MessagePack] {
            let client = Client::builder(bed.backend()).codec(codec).connect().await.unwrap();
            assert_eq!(client.kiq(add(20, 22)).await.unwrap().result_within(PATIENCE).await.unwrap(), 42);
        }
        worker.stop().await;
    }

    async fn a_failed_job_with_the_largest_arguments_is_settled_and_can_be_retried(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let limit = worker.client.max_payload_bytes().min(1024 * 1024) - 64;
        let handle = worker.client.kiq(parse("x".repeat(limit))).await.unwrap();
        let record = ended(&handle).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Error)));
        assert!(record.arguments.is_some_and(|arguments| arguments.len() > limit), "they are told by the message");
        assert!(worker.client.jobs().retry(handle.id()).await.unwrap());
        worker.stop().await;
    }

    async fn a_job_with_a_history_of_long_errors_is_settled(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let record = ended(&worker.client.kiq(verbose()).await.unwrap()).await;
        assert_eq!((record.status, record.attempt), (Status::Failed, 31));
        assert!(record.errors.len() >= 2);
        assert_eq!((record.errors[0].attempt, record.errors.last().unwrap().attempt), (1, 31));
        worker.stop().await;
    }
}

#[tokio::test]
async fn without_a_store_waiting_is_an_error_and_jobs_still_run() {
    let probe = Probe::default();
    let app = stateful(App::new(Bed::memory().backend().without_jobs())).state(probe.clone());
    let worker = Running::start(app).await;
    let handle = worker.client.kiq(flaky(1)).await.unwrap();
    assert_eq!(handle.result().await.unwrap_err().kind(), ErrorKind::Unsupported);
    let both = async {
        while probe.runs() < 2 {
            probe.started.notified().await;
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("it runs, and is retried");
    assert_eq!(probe.attempts(), [1, 2]);
    worker.stop().await;
}
