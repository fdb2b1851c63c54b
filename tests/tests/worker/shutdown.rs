//! The end of a worker: on request, after the grace period, and of a burst.

use std::time::Duration;

use aioq::ErrorKind;
use aioq::store::Status;
use aioq_tests::{PATIENCE, Running, on_each_backend};

use crate::bodies::{add, hold};
use crate::{options, probed};

on_each_backend! {
    async fn shutdown_lets_running_jobs_finish_and_gives_back_what_has_not_started(bed: Bed) {
        let (app, probe) = probed(&bed);
        let options = options().concurrency(1).max_prefetch(50);
        let worker = Running::start(app.worker_options(options)).await;
        let client = bed.client().await;
        let first = client.kiq(hold()).await.unwrap();
        probe.started.notified().await;
        let rest = client.kiq_all((0..20).map(|n| add(n, 1))).await;
        worker.tell_to_stop();
        // Another worker has the rest while the first still runs its last job.
        let other = Running::start(probed(&bed).0).await;
        for handle in rest {
            handle.unwrap().result_within(PATIENCE).await.unwrap();
        }
        assert_eq!(first.get_result().await.unwrap_err().kind(), ErrorKind::NotReady);
        probe.gate.add_permits(1);
        assert_eq!(first.result_within(PATIENCE).await.unwrap(), 1);
        worker.ended().await;
        other.stop().await;
    }

    async fn after_the_grace_period_running_jobs_are_given_back_without_spending_an_attempt(bed: Bed) {
        let (app, probe) = probed(&bed);
        let options = options().grace(Duration::from_millis(50));
        let worker = Running::start(app.worker_options(options)).await;
        let client = bed.client().await;
        let handle = client.kiq(hold()).await.unwrap();
        probe.started.notified().await;
        assert_eq!(worker.stop().await.cut_off, 0);
        let (app, probe) = probed(&bed);
        let other = Running::start(app).await;
        tokio::time::timeout(PATIENCE, probe.started.notified()).await.expect("it starts again at once");
        probe.gate.add_permits(1);
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        other.stop().await;
    }

    async fn burst_ends_when_nothing_is_ready_and_does_not_wait_for_later(bed: Bed) {
        let client = bed.client().await;
        let later = client.kiq(add(1, 1).delay("1h")).await.unwrap();
        let now = client.kiq_all((0..50).map(|n| add(n, 1))).await;
        let worker = probed(&bed).0.worker_options(options().burst(true)).worker().await.unwrap();
        let summary = tokio::time::timeout(PATIENCE, worker.run(std::future::pending())).await.unwrap().unwrap();
        assert_eq!(summary.jobs, 50);
        for handle in now {
            handle.unwrap().get_result().await.unwrap();
        }
        assert_eq!(later.record().await.unwrap().status, Status::Scheduled);
    }
}
