//! Dead letters: listed, replayed and dropped.

use aioq::ErrorKind;
use aioq::jobs::JobFilter;
use aioq::store::Status;
use aioq::worker::WorkerOptions;
use aioq_tests::{Probe, Running, on_each_backend, soon};

use crate::bodies::doomed;
use crate::{app, ids};

on_each_backend! {
    async fn dead_letters_are_replayed_on_the_queue_they_came_from_or_dropped(bed: Bed) {
        let client = bed.client().await;
        let app = app(&bed, &Probe::default()).worker_options(WorkerOptions::new().queues(["mail"]));
        let running = Running::start(app).await;
        for id in ["1", "2", "3"] {
            soon(client.kiq(doomed("no").queue("mail").id(id)).await.unwrap().wait()).await.unwrap();
        }
        running.stop().await;
        let dead = client.dead_letters();
        let listed = dead.list(JobFilter::new(), 10).await.unwrap().jobs;
        assert_eq!(ids(&listed), ["3", "2", "1"]);
        assert_eq!(listed[0].queue, "mail");
        assert!(dead.drop(&"1".into()).await.unwrap());
        assert!(dead.replay(&"2".into()).await.unwrap());
        assert_eq!(dead.get(&"2".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
        let replayed = client.jobs().get(&"2".into()).await.unwrap();
        assert_eq!((replayed.status, replayed.queue.as_str(), replayed.attempt), (Status::Pending, "mail", 1));
        assert_eq!(dead.replay_all(JobFilter::new()).await.unwrap().done, 1);
        assert_eq!(dead.drop_all(JobFilter::new()).await.unwrap().done, 0);
        assert!(dead.list(JobFilter::new(), 10).await.unwrap().jobs.is_empty());
    }
}
