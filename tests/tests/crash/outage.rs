//! A server that is away for longer than a lease lasts: jobs that run meanwhile go on, and are not
//! run again.

use std::time::Duration;

use aioq::store::Status;
use aioq::tasks::KickOptions;
use aioq::{Client, JobId};
use aioq_tests::{Demo, DemoWorker, Ledger, NatsServer, statuses, until};
use serde_json::json;

const ARGS: [&str; 2] = ["--ack-wait", "2s"];

/// A job that lasts, on a server of its own, and the worker that runs it.
struct Outage {
    server: NatsServer,
    demo: Demo,
    client: Client,
    ledger: Ledger,
    id: JobId,
    worker: DemoWorker,
}

impl Outage {
    /// Once the record says that the job runs.
    async fn of_a_job_of(ms: u64) -> Self {
        let server = NatsServer::start().await.unwrap();
        let demo = Demo::on(&server);
        let (client, ledger) = (demo.client().await, demo.ledger());
        let worker = demo.worker(&ARGS).await;
        let args = json!({ "path": ledger.path(), "line": "job", "ms": ms });
        let kicked = client.kiq_by_name("demo.append_slow", &args, KickOptions::new()).await.unwrap();
        let id = kicked.id().clone();
        until("the job runs", async || client.jobs().get(&id).await.unwrap().status == Status::Running).await;
        Self { server, demo, client, ledger, id, worker }
    }

    async fn assert_ran_once(&self) {
        until("the job has ended", async || {
            self.client.jobs().get(&self.id).await.is_ok_and(|job| job.status.is_terminal())
        })
        .await;
        let record = self.client.jobs().get(&self.id).await.unwrap();
        assert_eq!((record.status, record.attempt), (Status::Completed, 1));
        assert_eq!(record.worker_id.as_deref(), Some(&*self.worker.id()));
        assert_eq!((self.ledger.count("start job"), self.ledger.count("end job")), (1, 1));
        until("its message is gone", async || {
            let depth = &self.client.backend().broker().depths(&["default".to_owned()]).await.unwrap()[0];
            depth.ready + depth.held + depth.scheduled == 0
        })
        .await;
        assert_eq!(statuses(self.demo.url(), self.demo.prefix()).await[self.id.as_str()], ["completed"]);
    }
}

/// Longer than the lease, in the time of the job.
const AWAY: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_job_that_runs_while_the_server_is_away_is_not_started_again_by_its_own_worker() {
    let mut outage = Outage::of_a_job_of(12_000).await;
    outage.server.kill();
    tokio::time::sleep(AWAY).await;
    outage.server.restart().await.unwrap();
    outage.assert_ran_once().await;
    outage.worker.stop().await;
}

#[tokio::test]
async fn a_job_that_runs_while_the_server_is_away_is_not_taken_over_by_another_worker() {
    let mut outage = Outage::of_a_job_of(12_000).await;
    let others = [outage.demo.worker(&ARGS).await, outage.demo.worker(&ARGS).await];
    outage.server.kill();
    tokio::time::sleep(AWAY).await;
    outage.server.restart().await.unwrap();
    outage.assert_ran_once().await;
    outage.worker.stop().await;
    for other in others {
        other.stop().await;
    }
}

#[tokio::test]
async fn a_job_that_runs_while_the_server_is_frozen_is_not_taken_over_by_another_worker() {
    let outage = Outage::of_a_job_of(18_000).await;
    let other = outage.demo.worker(&ARGS).await;
    outage.server.freeze();
    tokio::time::sleep(AWAY * 2).await;
    outage.server.thaw();
    outage.assert_ran_once().await;
    outage.worker.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_job_whose_worker_died_while_the_server_was_away_runs_again_soon() {
    let mut outage = Outage::of_a_job_of(2_000).await;
    let next = outage.demo.worker(&ARGS).await;
    outage.server.kill();
    outage.worker.kill().await;
    outage.server.restart().await.unwrap();
    until("the job has ended", async || {
        outage.client.jobs().get(&outage.id).await.is_ok_and(|job| job.status.is_terminal())
    })
    .await;
    let record = outage.client.jobs().get(&outage.id).await.unwrap();
    assert_eq!((record.status, record.worker_id.as_deref()), (Status::Completed, Some(&*next.id())));
    assert_eq!(outage.ledger.count("end job"), 1);
    next.stop().await;
}
