//! Jobs that are acked on receive.

use std::sync::Arc;

use aioq::error::Reason;
use aioq::prelude::*;
use aioq::store::Status;
use aioq_tests::{HeldStore, PATIENCE, Probe, Running, ended, on_each_backend, record_when, soon};

use crate::{probed, redeliver, short_lease, stateful};

#[task(ack = "on_receive", retry(max = 5, backoff = "1ms"))]
async fn at_most_once(how: &str, #[inject] ctx: &Context, #[inject] probe: &Probe) -> TaskResult<()> {
    probe.run(ctx.attempt());
    match how {
        "snooze" => Err(TaskError::snooze("1ms")),
        "wait" => std::future::pending().await,
        _ => Err(TaskError::new("no")),
    }
}

on_each_backend! {
    async fn a_task_that_acks_on_receive_runs_once_and_is_never_put_off(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app.worker_options(short_lease())).await;
        let record = ended(&worker.client.kiq(at_most_once("snooze")).await.unwrap()).await;
        assert_eq!((record.status, record.attempt), (Status::Failed, 1));
        let failed = worker.client.kiq(at_most_once("fail")).await.unwrap();
        assert_eq!(ended(&failed).await.status, Status::Failed);
        assert_eq!(probe.runs(), 2);
        // Run again on request, it is recorded again.
        assert!(worker.client.jobs().retry(failed.id()).await.unwrap());
        let again = async {
            while probe.runs() < 3 {
                probe.started.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("it runs again");
        let first = ended(&failed).await;
        record_when(&worker.client, failed.id(), |record| record.status == Status::Failed).await;
        assert_eq!(first.attempt, 1);
        worker.stop().await;
    }

    async fn a_job_acked_on_receive_that_is_cut_short_by_shutdown_is_recorded_as_failed(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app.worker_options(short_lease())).await;
        let client = bed.client().await;
        let handle = client.kiq(at_most_once("wait")).await.unwrap();
        probe.started.notified().await;
        worker.stop().await;
        let record = ended(&handle).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Error)));
        assert!(record.error.unwrap().message.contains("the worker stopped"));
    }

    async fn a_job_acked_on_receive_that_was_given_back_unstarted_runs(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(at_most_once("fail")).await.unwrap();
        // A first delivery leaves no record. From the second on, a worker writes that it has the
        // job.
        redeliver(&client, "default").await;
        let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
        store.hold_next();
        let probe = Probe::default();
        let app = stateful(App::new(bed.backend().with_jobs(store.clone()))).state(probe.clone());
        let first = Running::start(app.worker_options(short_lease())).await;
        soon(store.held()).await;
        let other = client.kiq(at_most_once("wait")).await.unwrap();
        probe.until_runs(1).await;
        first.tell_to_stop();
        assert_eq!(ended(&other).await.status, Status::Failed, "the grace period is over");
        store.let_go();
        first.ended().await;
        let left = client.backend().jobs().unwrap().get(handle.id()).await.unwrap().unwrap().record;
        assert_eq!((left.status, left.started_at), (Status::Pending, None));
        assert!(left.worker_id.is_some(), "the worker had claimed it");

        let (app, probe) = probed(&bed);
        let second = Running::start(app.worker_options(short_lease())).await;
        assert_eq!(ended(&handle).await.status, Status::Failed);
        assert_eq!(probe.runs(), 1, "its body has begun for the first time");
        second.stop().await;
    }
}
