//! Jobs that are acked on receive.

use aioq::error::Reason;
use aioq::prelude::*;
use aioq::store::Status;
use aioq_tests::{PATIENCE, Probe, Running, ended, on_each_backend, record_when};

use crate::{probed, short_lease};

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
}
