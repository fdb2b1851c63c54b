//! Leases: jobs that are delivered again, claims, and the records of other workers.

use aioq::JobId;
use aioq::broker::Expect;
use aioq::error::Reason;
use aioq::message::Codec;
use aioq::prelude::*;
use aioq::store::{JobRecord, Status};
use aioq_tests::{PATIENCE, Running, ended, lease_passes, on_each_backend, record_when};

use crate::bodies::{flaky, hold};
use crate::{LEASE, probed, redeliver, short_lease};

async fn handle_record(client: &Client, id: &JobId) -> JobRecord {
    client.backend().jobs().unwrap().get(id).await.unwrap().unwrap().record
}

on_each_backend! {
    async fn a_job_of_a_crashed_worker_runs_elsewhere_after_ack_wait(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app.worker_options(short_lease())).await;
        let client = bed.client().await;
        let handle = client.kiq(hold()).await.unwrap();
        probe.started.notified().await;
        worker.crash();
        let (app, probe) = probed(&bed);
        let other = Running::start(app.worker_options(short_lease())).await;
        tokio::time::timeout(PATIENCE, probe.started.notified()).await.expect("it comes back");
        probe.gate.add_permits(1);
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        other.stop().await;
    }

    async fn a_job_that_outlasts_its_lease_runs_once_and_reads_as_running(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app.worker_options(short_lease())).await;
        // Either may get the job, so they share the probe.
        let app = probed(&bed).0.state(probe.clone());
        let rival = Running::start(app.worker_options(short_lease())).await;
        let handle = worker.client.kiq(hold()).await.unwrap();
        let record = record_when(&worker.client, handle.id(), |record| record.status == Status::Running).await;
        assert!(record.worker_id.is_some() && record.started_at.is_some());
        for _ in 0..2 {
            lease_passes(&worker.client, LEASE).await;
        }
        probe.gate.add_permits(1);
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        assert_eq!(probe.runs(), 1);
        rival.stop().await;
        worker.stop().await;
    }

    async fn a_job_that_ended_before_its_ack_is_not_run_again(bed: Bed) {
        // As after a crash between save and ack: the record is there, and the message too.
        let client = bed.client().await;
        let handle = client.kiq(flaky(0)).await.unwrap();
        let store = client.backend().jobs().unwrap();
        let mut record = handle.record().await.unwrap();
        record.status = Status::Completed;
        record.result = Some(Codec::MessagePack.encode(&99).unwrap());
        store.put(record.into(), Expect::Absent, None).await.unwrap();
        redeliver(&client, "default").await;
        let (app, probe) = probed(&bed);
        let worker = app.worker_options(short_lease().burst(true)).worker().await.unwrap();
        worker.run(std::future::pending()).await.unwrap();
        assert_eq!(probe.runs(), 0);
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 99);
        assert!(client.backend().broker().find(handle.id()).await.unwrap().is_none());
    }

    async fn a_job_whose_process_died_each_time_is_poison(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(flaky(0)).await.unwrap();
        let store = client.backend().jobs().unwrap();
        let mut record = handle.record().await.unwrap();
        record.status = Status::Running;
        (record.starts, record.solo) = (5, 5);
        store.put(record.into(), Expect::Absent, None).await.unwrap();
        let child = client.kiq(flaky(0).after(&handle)).await.unwrap();
        redeliver(&client, "default").await;
        let (app, probe) = probed(&bed);
        let worker = Running::start(app.worker_options(short_lease())).await;
        let record = ended(&handle).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Poison)));
        assert_eq!(ended(&child).await.reason, Some(Reason::Dependency));
        assert_eq!(probe.runs(), 0);
        worker.stop().await;
    }

    async fn releases_of_what_had_not_started_do_not_count_as_crashes(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(flaky(0)).await.unwrap();
        for _ in 0..10 {
            redeliver(&client, "default").await;
        }
        let worker = Running::start(probed(&bed).0.worker_options(short_lease())).await;
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        worker.stop().await;
    }

    async fn a_worker_that_lost_its_job_neither_overwrites_nor_acks(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let handle = worker.client.kiq(hold()).await.unwrap();
        probe.started.notified().await;
        // Another worker claims the job, as after a long freeze of this one.
        let store = worker.client.backend().jobs().unwrap().clone();
        let mut record = handle.record().await.unwrap();
        record.status = Status::Running;
        record.worker_id = Some("the other".into());
        let found = store.get(handle.id()).await.unwrap();
        let expect = found.map_or(Expect::Absent, |stored| Expect::Revision(stored.revision));
        store.put(record.into(), expect, None).await.unwrap();
        probe.gate.add_permits(1);
        worker.stop().await;
        let client = bed.client().await;
        let record = handle_record(&client, handle.id()).await;
        assert_eq!((record.status, record.worker_id.as_deref()), (Status::Running, Some("the other")));
        assert!(client.backend().broker().find(handle.id()).await.unwrap().is_some(), "the message is still there");
    }

    async fn a_running_record_of_its_own_is_not_mistaken_for_another_workers(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let handle = worker.client.kiq(hold()).await.unwrap();
        probe.started.notified().await;
        let running = record_when(&worker.client, handle.id(), |record| record.status == Status::Running).await;
        // As if a renewal had been stored although its confirmation was lost.
        let store = worker.client.backend().jobs().unwrap().clone();
        let revision = store.get(handle.id()).await.unwrap().unwrap().revision;
        store.put(running.into(), Expect::Revision(revision), None).await.unwrap();
        probe.gate.add_permits(1);
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        assert_eq!(probe.runs(), 1);
        worker.stop().await;
    }
}
