//! Ended jobs that are cleaned on request.

use std::sync::Arc;

use aioq::jobs::JobFilter;
use aioq::prelude::*;
use aioq::store::Status;
use aioq::{ErrorKind, JobId};
use aioq_tests::{HeldStore, Probe, on_each_backend, soon};

use crate::bodies::{add, doomed, patient};
use crate::{ids, until_status, worker};

on_each_backend! {
    async fn ended_jobs_are_cleaned_by_age_and_number(bed: Bed) {
        let client = bed.client().await;
        let running = worker(&bed, &Probe::default()).await;
        for id in ["1", "2", "3"] {
            soon(client.kiq(add(1, 2).id(id)).await.unwrap().result()).await.unwrap();
        }
        soon(client.kiq(doomed("no").id("f")).await.unwrap().wait()).await.unwrap();
        running.stop().await;
        client.kiq(add(1, 2).id("waits")).await.unwrap();
        let jobs = client.jobs();
        assert_eq!(jobs.clean(Status::Completed, "1h", 100).await.unwrap().done, []);
        assert_eq!(jobs.clean(Status::Completed, "0s", 2).await.unwrap().done, [JobId::from("1"), "2".into()]);
        assert_eq!(jobs.clean(Status::Completed, "0s", 100).await.unwrap().done, [JobId::from("3")]);
        assert_eq!(jobs.clean(Status::Pending, "0s", 100).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        let left = jobs.list(JobFilter::new(), 10).await.unwrap();
        assert_eq!(ids(&left.jobs), ["waits", "f"]);
        assert!(jobs.remove(&"f".into()).await.unwrap());
        assert!(jobs.remove(&"waits".into()).await.unwrap());
        assert!(jobs.list(JobFilter::new(), 10).await.unwrap().jobs.is_empty());
    }

    async fn a_job_that_cannot_be_removed_is_named_and_the_others_go(bed: Bed) {
        let running = worker(&bed, &Probe::default()).await;
        let client = bed.client().await;
        for id in ["1", "2", "3"] {
            soon(client.kiq(add(1, 2).id(id)).await.unwrap().result()).await.unwrap();
        }
        for id in ["waits", "waits too"] {
            let waits = client.kiq(patient("no").id(id)).await.unwrap();
            until_status(&client, waits.id(), Status::Retrying).await;
        }
        running.stop().await;
        let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
        let client = Client::connect(bed.backend().with_jobs(store.clone())).await.unwrap();
        store.refuse("2");
        store.refuse("waits");
        let cleaned = client.jobs().clean(Status::Completed, "0s", 100).await.unwrap();
        assert_eq!((cleaned.done, cleaned.failed), (vec![JobId::from("1"), "3".into()], 1));
        let purged = client.queues().purge("default").await.unwrap();
        assert_eq!((purged.done, purged.failed), (1, 1));
        for (errors, id) in [(cleaned.errors, "2"), (purged.errors, "waits")] {
            let told: Vec<_> = errors.iter().map(|error| (error.kind(), error.id().unwrap().as_str())).collect();
            assert_eq!(told, [(ErrorKind::Permission, id)]);
        }
    }
}
