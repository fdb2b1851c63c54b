//! A demo program on a prefix of its own, its client and its ledger.

use aioq::Client;
use aioq_tests::{Demo, Ledger, PATIENCE, until};

/// One job after the other, so that one job at most is at the point.
pub(crate) const ONE_BY_ONE: [&str; 4] = ["--ack-wait", "1s", "--concurrency", "1"];

pub(crate) struct Bed {
    pub(crate) demo: Demo,
    pub(crate) client: Client,
    pub(crate) ledger: Ledger,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        let demo = Demo::new().await;
        let (client, ledger) = (demo.client().await, demo.ledger());
        Self { demo, client, ledger }
    }

    /// Starts a worker that is killed at this point, and waits until it is.
    pub(crate) async fn killed_worker(&self, point: &str) {
        self.killed_worker_at(&format!("{point}:1")).await;
    }

    /// The same, at a point and the number of the pass there.
    pub(crate) async fn killed_worker_at(&self, pass: &str) {
        let fault = format!("{pass}:kill");
        let mut worker = self.demo.worker_with_fault(&fault, &ONE_BY_ONE).await;
        let status = worker.ended_within(PATIENCE).await;
        assert!(!status.success() && worker.log().contains("fault point"), "{}", worker.log());
    }

    pub(crate) async fn until_empty(&self) {
        until("the queue is empty", async || {
            let depths = self.client.backend().broker().depths(&["default".to_owned()]).await;
            let depth = depths.unwrap().remove(0);
            depth.ready + depth.held + depth.scheduled == 0
        })
        .await;
    }
}
