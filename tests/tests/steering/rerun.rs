//! Jobs that are run again on request.

use std::sync::Arc;

use aioq::ErrorKind;
use aioq::prelude::*;
use aioq::store::{Expect, Status};
use aioq_tests::{HeldStore, Probe, on_each_backend, soon};

use crate::bodies::{add, at_most_once, doomed, reports_and_fails};
use crate::{until_status, worker};

on_each_backend! {
    async fn a_retry_that_another_one_has_overtaken_says_so_and_leaves_nothing_behind(bed: Bed) {
        let running = worker(&bed, &Probe::default()).await;
        let client = bed.client().await;
        let handle = client.kiq(doomed("no")).await.unwrap();
        handle.result().await.unwrap_err();
        let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
        let slow = Client::builder(bed.backend().with_jobs(store.clone())).hook(store.clone()).connect().await;
        let (slow, id) = (slow.unwrap().jobs(), handle.id().clone());
        let overtaken = tokio::spawn(async move { slow.retry(&id).await });
        soon(store.held()).await;
        assert!(handle.retry().await.unwrap());
        until_status(&client, handle.id(), Status::Failed).await;
        running.stop().await;
        store.let_go();
        assert!(!soon(overtaken).await.unwrap().unwrap(), "its message is not run");
        let depths = client.queues().depths(&["default".to_owned()]).await.unwrap();
        assert_eq!((depths[0].ready, depths[0].held), (0, 0));
    }

    async fn a_late_write_of_an_earlier_run_finds_that_the_job_was_run_again(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(add(1, 2).delay("1h")).await.unwrap();
        assert!(handle.cancel().await.unwrap());
        let late = Arc::new(handle.record().await.unwrap());
        assert!(handle.retry().await.unwrap());
        // As the first write of a run that was cut off before the job was cancelled.
        let store = client.backend().jobs().unwrap();
        let refused = store.put(late, Expect::Absent, None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert_eq!(handle.status().await.unwrap(), Status::Pending);
        let running = worker(&bed, &Probe::default()).await;
        assert_eq!(soon(handle.result()).await.unwrap(), 3);
        running.stop().await;
    }

    async fn a_job_that_is_run_again_keeps_the_latest_of_its_history(bed: Bed) {
        let running = worker(&bed, &Probe::default()).await;
        let client = bed.client().await;
        let handle = client.kiq(reports_and_fails()).await.unwrap();
        let record = soon(handle.wait()).await.unwrap();
        assert_eq!((record.errors.len(), record.logs.len()), (2, 2), "of both attempts");
        for round in 2..=6 {
            assert!(handle.retry().await.unwrap());
            until_status(&client, handle.id(), Status::Failed).await;
            let record = handle.record().await.unwrap();
            assert_eq!((record.errors.len(), record.logs.len()), ((2 * round).min(10), 2 * round));
        }
        running.stop().await;
        assert!(handle.retry().await.unwrap());
        let waiting = handle.record().await.unwrap();
        assert_eq!((waiting.status, waiting.errors.len(), waiting.logs.len()), (Status::Pending, 10, 12));
        assert_eq!(waiting.progress.unwrap().done, 1);
        assert!(handle.cancel().await.unwrap());
        let cancelled = handle.record().await.unwrap();
        assert_eq!((cancelled.errors.len(), cancelled.logs.len()), (10, 12));
    }

    async fn a_job_that_was_to_run_again_is_not_found_without_its_message(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(add(1, 2).delay("1h")).await.unwrap();
        assert!(handle.cancel().await.unwrap());
        assert!(handle.retry().await.unwrap());
        let broker = client.backend().broker();
        let queued = broker.find(handle.id()).await.unwrap().unwrap();
        assert!(*broker.remove(&[queued]).await[0].as_ref().unwrap());
        assert_eq!(handle.record().await.unwrap_err().kind(), ErrorKind::NotFound);
        // A cancel would have nothing to keep that could be run again.
        assert_eq!(handle.cancel().await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    async fn a_job_acked_on_receive_runs_again_when_it_is_retried(bed: Bed) {
        let probe = Probe::default();
        let client = bed.client().await;
        let handle = client.kiq(at_most_once().delay("1h")).await.unwrap();
        assert!(handle.cancel().await.unwrap());
        assert!(handle.retry().await.unwrap());
        let running = worker(&bed, &probe).await;
        soon(probe.started.notified()).await;
        assert!(handle.abort("20s").await.unwrap());
        running.stop().await;
    }

    async fn of_two_clients_that_retry_a_job_at_once_one_does(bed: Bed) {
        let (one, other) = (bed.client().await, bed.client().await);
        for round in 0..20 {
            let handle = one.kiq(add(1, 2).id(format!("{round}"))).await.unwrap();
            assert!(handle.cancel().await.unwrap());
            let (jobs, other_jobs) = (one.jobs(), other.jobs());
            let (first, second) = tokio::join!(jobs.retry(handle.id()), other_jobs.retry(handle.id()));
            assert_ne!(first.unwrap(), second.unwrap(), "exactly one");
            assert_eq!(handle.status().await.unwrap(), Status::Pending);
        }
    }

    async fn a_job_that_expired_while_it_waits_can_be_run_again_or_removed(bed: Bed) {
        let client = bed.client().await;
        let expired = async |id: &'static str| {
            let handle = client.kiq(add(1, 2).id(id).ttl("1ms")).await.unwrap();
            until_status(&client, handle.id(), Status::Expired).await;
            handle
        };
        let first = expired("1").await;
        assert!(!first.cancel().await.unwrap());
        assert!(first.remove().await.unwrap());
        assert_eq!(first.record().await.unwrap_err().kind(), ErrorKind::NotFound);
        let second = expired("2").await;
        assert!(second.retry().await.unwrap());
        let running = worker(&bed, &Probe::default()).await;
        assert_eq!(soon(second.result()).await.unwrap(), 3);
        running.stop().await;
    }
}
