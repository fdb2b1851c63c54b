//! Jobs that are aborted while they run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aioq::store::Status;
use aioq_tests::{Probe, Running, on_each_backend, soon};

use crate::bodies::{add, gated, obedient, stubborn};
use crate::worker;

on_each_backend! {
    async fn an_abort_drops_a_running_body_soon(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(gated()).await.unwrap();
        soon(probe.started.notified()).await;
        assert!(handle.abort("20s").await.unwrap());
        soon(probe.dropped.notified()).await;
        let record = handle.record().await.unwrap();
        assert_eq!(record.status, Status::Cancelled);
        assert_eq!(record.error.unwrap().message, "was stopped while it ran");
        assert!(!handle.abort("20s").await.unwrap(), "it has ended");
        assert!(handle.retry().await.unwrap(), "it may run again");
        probe.gate.add_permits(1);
        soon(handle.result()).await.unwrap();
        running.stop().await;
    }

    async fn an_abort_reaches_a_blocking_body_that_looks(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(obedient()).await.unwrap();
        soon(probe.started.notified()).await;
        assert!(handle.abort("20s").await.unwrap());
        assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
        running.stop().await;
    }

    async fn a_body_that_ignores_an_abort_is_waited_for_no_longer_than_said(bed: Bed) {
        let (probe, flag) = (Probe::default(), Arc::new(AtomicBool::new(false)));
        let app = bed.app().state(probe.clone()).state(Arc::clone(&flag));
        let running = Running::start(app).await;
        let client = bed.client().await;
        let handle = client.kiq(stubborn()).await.unwrap();
        soon(probe.started.notified()).await;
        assert!(!handle.abort("200ms").await.unwrap());
        flag.store(true, Ordering::SeqCst);
        assert_eq!(soon(handle.wait()).await.unwrap().status, Status::Completed, "it came to its end");
        running.stop().await;
    }

    async fn a_waiting_job_is_aborted_like_cancelled(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(add(1, 2)).await.unwrap();
        assert!(handle.abort("1s").await.unwrap());
        assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
    }
}
