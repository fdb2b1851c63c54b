//! Queues: purged, listed, and named at will.

use std::time::Duration;

use aioq::ErrorKind;
use aioq::jobs::JobFilter;
use aioq::store::Status;
use aioq::worker::WorkerOptions;
use aioq_tests::{PATIENCE, Probe, Running, on_each_backend, soon};

use crate::bodies::{add, gated, patient};
use crate::{app, ids, until_status, worker};

on_each_backend! {
    async fn a_purge_drops_what_waits_and_says_how_much(bed: Bed) {
        let probe = Probe::default();
        let client = bed.client().await;
        let running = worker(&bed, &probe).await;
        let held = client.kiq(gated()).await.unwrap();
        soon(probe.started.notified()).await;
        let retrying = client.kiq(patient("no")).await.unwrap();
        until_status(&client, retrying.id(), Status::Retrying).await;
        client.queues().pause("default").await.unwrap();
        probe.gate.add_permits(1);
        soon(held.result()).await.unwrap();
        running.stop().await;
        for _ in 0..700 {
            client.kiq(add(1, 2)).await.unwrap();
        }
        client.kiq(add(1, 2).delay("1h")).await.unwrap();
        let other = client.kiq(add(1, 2).queue("other")).await.unwrap();
        assert_eq!(client.queues().purge("default").await.unwrap().done, 702);
        assert_eq!(client.queues().purge("default").await.unwrap().done, 0);
        assert_eq!(retrying.record().await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(other.status().await.unwrap(), Status::Pending);
        assert_eq!(client.queues().purge("unheard of").await.unwrap().done, 0);
    }

    async fn queues_are_listed_with_their_depth_age_and_pause(bed: Bed) {
        let client = bed.client().await;
        client.kiq(add(1, 2).queue("a")).await.unwrap();
        client.kiq(add(1, 2).queue("a")).await.unwrap();
        client.kiq(add(1, 2).queue("b.b").delay("1h")).await.unwrap();
        client.queues().pause("c").await.unwrap();
        let queues = client.queues().list().await.unwrap();
        let told: Vec<_> = queues.iter().map(|info| (info.queue.as_str(), info.depth, info.paused)).collect();
        assert_eq!(told, [("a", 2, false), ("b.b", 0, false), ("c", 0, true)]);
        assert!(queues[0].oldest_age().unwrap() < PATIENCE);
        assert_eq!(queues[1].oldest_age(), None);
        assert_eq!(queues[1].counts.clone().into_iter().collect::<Vec<_>>(), [(Status::Scheduled, 1)]);
    }

    async fn any_name_is_that_of_a_queue(bed: Bed) {
        let client = bed.client().await;
        let mut names = ["a.b", "..", "50%", "%2E", "größe >*", "a b", "."].map(str::to_owned);
        let long = ".".repeat(aioq::message::MAX_NAME_BYTES);
        for name in names.iter().chain([&long]) {
            let handle = client.kiq(add(1, 2).queue(name).id(name.as_str())).await.unwrap();
            client.queues().pause(name).await.unwrap();
            assert_eq!(handle.record().await.unwrap().queue, *name);
            let list = client.jobs().list(JobFilter::new().queue(name), 10).await.unwrap();
            assert_eq!(ids(&list.jobs), [name.as_str()]);
        }
        assert!(client.queues().resume(&long).await.unwrap());
        assert_eq!(client.queues().purge(&long).await.unwrap().done, 1);
        names.sort_unstable();
        assert_eq!(client.queues().paused().await.unwrap().into_iter().collect::<Vec<_>>(), names);
        let listed = client.queues().list().await.unwrap();
        let paused = listed.into_iter().filter(|info| info.paused).map(|info| info.queue);
        assert_eq!(paused.collect::<Vec<_>>(), names);
    }

    async fn a_purge_forgets_a_job_that_was_given_back(bed: Bed) {
        let probe = Probe::default();
        let options = WorkerOptions::new().grace(Duration::from_millis(10));
        let impatient = Running::start(app(&bed, &probe).worker_options(options)).await;
        let client = bed.client().await;
        let handle = client.kiq(gated().id("back")).await.unwrap();
        soon(probe.started.notified()).await;
        impatient.stop().await;
        assert_eq!(client.queues().purge("default").await.unwrap().done, 1);
        assert_eq!(handle.record().await.unwrap_err().kind(), ErrorKind::NotFound);
        let anew = client.kiq(gated().id("back")).await.unwrap();
        assert!(!anew.existing(), "its id is free");
        probe.gate.add_permits(1);
        let running = worker(&bed, &probe).await;
        soon(anew.result()).await.unwrap();
        running.stop().await;
    }
}
