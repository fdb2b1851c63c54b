//! Lists of jobs, and the records in them.

use std::time::Duration;

use aioq::ErrorKind;
use aioq::jobs::{JobFilter, JobsPage};
use aioq::store::{RecordLevel, Status};
use aioq::worker::WorkerOptions;
use aioq_tests::{Bed, PATIENCE, Probe, Running, on_each_backend, soon};

use crate::bodies::{add, at_most_once, doomed, gated};
use crate::{app, ids, until_status, worker};

on_each_backend! {
    async fn jobs_are_listed_by_filter_the_latest_change_first(bed: Bed) {
        let client = bed.client().await;
        let running = worker(&bed, &Probe::default()).await;
        for id in ["c1", "c2", "c3"] {
            soon(client.kiq(add(1, 2).id(id).label("team", "growth")).await.unwrap().result()).await.unwrap();
        }
        for id in ["f1", "f2"] {
            soon(client.kiq(doomed("no").id(id)).await.unwrap().wait()).await.unwrap();
        }
        running.stop().await;
        for id in ["p1", "p2", "p3"] {
            client.kiq(add(1, 2).id(id)).await.unwrap();
        }
        client.kiq(add(1, 2).id("s1").delay("1h")).await.unwrap();
        client.kiq(add(1, 2).id("o1").queue("a.b c>*")).await.unwrap();
        let list = async |filter: JobFilter| client.jobs().list(filter, 100).await.unwrap();
        let found = async |filter: JobFilter| {
            let list = list(filter).await;
            assert!(list.complete && list.next.is_none());
            ids(&list.jobs).join(" ")
        };
        let all = JobFilter::new;
        assert_eq!(found(all().status(Status::Pending).queue("default")).await, "p3 p2 p1");
        assert_eq!(found(all().status(Status::Completed)).await, "c3 c2 c1");
        assert_eq!(found(all().status(Status::Failed).status(Status::Scheduled)).await, "s1 f2 f1");
        assert_eq!(found(all().queue("a.b c>*")).await, "o1");
        assert_eq!(found(all().task("doomed")).await, "f2 f1");
        assert_eq!(found(all().label("team", "growth")).await, "c3 c2 c1");
        assert_eq!(found(all().label("team", "sales")).await, "");
        assert_eq!(found(all().queue("nobody")).await, "");
        assert_eq!(found(all().status(Status::Running)).await, "");
        assert_eq!(found(all()).await, "o1 s1 p3 p2 p1 f2 f1 c3 c2 c1");

        // In pieces, by cursor and by offset.
        let (mut pieces, mut page) = (Vec::new(), JobsPage::of(3));
        loop {
            let list = client.jobs().list(all(), page).await.unwrap();
            pieces.extend(list.jobs.iter().map(|job| job.id.to_string()));
            let Some(next) = list.next else { break };
            page = JobsPage::of(3).after(next.to_string().parse().unwrap());
        }
        assert_eq!(pieces.join(" "), "o1 s1 p3 p2 p1 f2 f1 c3 c2 c1");
        let list = client.jobs().list(all(), JobsPage::of(2).offset(4)).await.unwrap();
        assert_eq!(ids(&list.jobs), ["p1", "f2"]);

        // Counts say the same.
        let counts = &client.queues().stats().await.unwrap()["default"];
        let counts: Vec<_> = counts.iter().map(|(status, count)| (*status, *count)).collect();
        assert_eq!(counts, [(Status::Scheduled, 1), (Status::Pending, 3), (Status::Completed, 3), (Status::Failed, 2)]);
    }

    async fn a_retried_job_is_listed_once_as_what_it_is(bed: Bed) {
        let client = bed.client().await;
        let running = worker(&bed, &Probe::default()).await;
        let handle = client.kiq(doomed("no").id("1")).await.unwrap();
        soon(handle.wait()).await.unwrap();
        running.stop().await;
        assert!(handle.retry().await.unwrap());
        let list = client.jobs().list(JobFilter::new(), 10).await.unwrap();
        let listed: Vec<_> = list.jobs.iter().map(|job| (job.id.as_str(), job.status, job.attempt)).collect();
        assert_eq!(listed, [("1", Status::Pending, 1)]);
        assert!(client.jobs().list(JobFilter::new().status(Status::Failed), 10).await.unwrap().jobs.is_empty());
        assert_eq!(client.queues().stats().await.unwrap()["default"].len(), 1);
    }

    async fn running_and_filtered_jobs_do_not_disturb_the_order_of_a_list(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        for id in ["c1", "c2", "c3"] {
            soon(client.kiq(add(1, 2).id(id)).await.unwrap().result()).await.unwrap();
        }
        for id in ["s1", "s2", "s3"] {
            client.kiq(add(1, 2).id(id).delay("1h")).await.unwrap();
        }
        let held = client.kiq(gated().id("r")).await.unwrap();
        until_status(&client, held.id(), Status::Running).await;
        client.kiq(gated().id("other").delay("1h")).await.unwrap();
        let list = client.jobs().list(JobFilter::new().queue("default"), 5).await.unwrap();
        assert_eq!(ids(&list.jobs), ["other", "r", "s3", "s2", "s1"]);
        let list = client.jobs().list(JobFilter::new().task("add"), 4).await.unwrap();
        assert_eq!(ids(&list.jobs), ["s3", "s2", "s1", "c3"]);
        let counts = client.jobs().counts(Duration::ZERO).await.unwrap();
        assert_eq!(counts.counts[&Status::Completed], 3);
        assert_eq!(client.jobs().counts(PATIENCE).await.unwrap().counted_at, counts.counted_at, "not counted again");
        probe.gate.add_permits(1);
        soon(held.result()).await.unwrap();
        running.stop().await;
    }

    async fn a_job_that_was_given_back_is_listed_as_it_is_found(bed: Bed) {
        let probe = Probe::default();
        let options = WorkerOptions::new().grace(Duration::from_millis(10));
        let impatient = Running::start(app(&bed, &probe).worker_options(options)).await;
        let client = bed.client().await;
        let handle = client.kiq(gated().id("back")).await.unwrap();
        soon(probe.started.notified()).await;
        impatient.stop().await;
        let found = handle.record().await.unwrap();
        assert_eq!((found.status, found.started_at.is_some()), (Status::Pending, true));
        for filter in [JobFilter::new(), JobFilter::new().status(Status::Pending), JobFilter::new().task("gated")] {
            assert_eq!(client.jobs().list(filter, 10).await.unwrap().jobs, std::slice::from_ref(&found));
        }
        assert!(client.jobs().list(JobFilter::new().status(Status::Running), 10).await.unwrap().jobs.is_empty());
        let counts = client.jobs().counts(Duration::ZERO).await.unwrap().counts;
        assert_eq!(counts.values().sum::<u64>(), 1, "{counts:?}");
    }

    async fn a_job_acked_on_receive_is_known_while_it_runs(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(at_most_once()).await.unwrap();
        soon(probe.started.notified()).await;
        assert_eq!(handle.status().await.unwrap(), Status::Running);
        assert!(handle.abort("20s").await.unwrap());
        assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
        running.stop().await;
    }

    async fn with_results_alone_a_completed_job_keeps_its_result_only(bed: Bed) {
        let app = app(&bed, &Probe::default()).records(RecordLevel::Results);
        let running = Running::start(app).await;
        let client = bed.client().await;
        let handle = client.kiq(add(1, 2).label("team", "growth")).await.unwrap();
        assert_eq!(soon(handle.result()).await.unwrap(), 3);
        let record = handle.record().await.unwrap();
        assert!(record.arguments.is_none() && record.labels.is_empty());
        let failed = client.kiq(doomed("no")).await.unwrap();
        soon(failed.wait()).await.unwrap();
        running.stop().await;
        assert!(failed.retry().await.unwrap(), "what it takes is kept");
    }

    async fn a_record_is_updated_only_along_the_states(bed: Bed) {
        let client = bed.client().await;
        let running = worker(&bed, &Probe::default()).await;
        let handle = client.kiq(add(1, 2)).await.unwrap();
        soon(handle.result()).await.unwrap();
        running.stop().await;
        let jobs = client.jobs();
        let stored = jobs.stored(handle.id()).await.unwrap().unwrap();
        let mut record = stored.record.clone();
        record.logs.push(aioq::store::LogLine { at: record.finished_at.unwrap(), line: "seen".to_owned() });
        jobs.update(&stored, record.clone()).await.unwrap();
        assert_eq!(handle.record().await.unwrap().logs.len(), 1);
        assert_eq!(jobs.update(&stored, record.clone()).await.unwrap_err().kind(), ErrorKind::Conflict);
        let stored = jobs.stored(handle.id()).await.unwrap().unwrap();
        record.status = Status::Running;
        assert_eq!(jobs.update(&stored, record).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[tokio::test]
async fn mocked_jobs_look_as_if_a_worker_had_them() {
    use aioq::testing::{set_complete, set_in_progress};

    let client = Bed::memory().client().await;
    let handle = client.kiq(add(1, 2)).await.unwrap();
    set_in_progress(&client, handle.id()).await.unwrap();
    assert_eq!(handle.status().await.unwrap(), Status::Running);
    set_complete(&client, handle.id(), Ok(3)).await.unwrap();
    assert_eq!(handle.result().await.unwrap(), 3);
    let again = set_complete(&client, handle.id(), Ok(3)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
    let failed = client.kiq(add(1, 2)).await.unwrap();
    set_complete(&client, failed.id(), Err::<(), _>("no")).await.unwrap();
    assert_eq!(failed.result().await.unwrap_err().kind(), ErrorKind::JobFailed);
    assert!(failed.retry().await.unwrap());
}
