//! Jobs that are removed, and late writes of those that held them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aioq::ErrorKind;
use aioq::jobs::JobFilter;
use aioq::prelude::*;
use aioq::store::{Expect, Status};
use aioq::worker::WorkerOptions;
use aioq_tests::{HeldStore, Probe, Running, on_each_backend, soon};

use crate::bodies::add;
use crate::{ids, worker};

on_each_backend! {
    async fn a_job_that_is_removed_while_a_worker_holds_it_stays_removed_and_its_id_is_free(bed: Bed) {
        let client = bed.client().await;
        let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
        let app = App::new(bed.backend().with_jobs(store.clone())).state(Probe::default());
        let options = WorkerOptions::new().concurrency(1);
        let app = app.state(Arc::new(AtomicBool::new(false))).worker_options(options);
        let held = Running::start(app).await;
        for kicked_anew_first in [true, false] {
            store.hold_next();
            client.kiq(add(1, 1).id("job")).await.unwrap();
            soon(store.held()).await;
            assert!(client.jobs().remove(&"job".into()).await.unwrap());
            if !kicked_anew_first {
                store.let_go();
                // The worker takes one job after the other, so it has settled the first one then.
                soon(client.kiq(add(1, 1)).await.unwrap().result()).await.unwrap();
                assert_eq!(client.jobs().get(&"job".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
            }
            let anew = client.kiq(add(1, 2).id("job")).await.unwrap();
            assert!(!anew.existing(), "its id is free");
            if kicked_anew_first {
                store.let_go();
            }
            assert_eq!(soon(anew.result()).await.unwrap(), 3);
            assert!(anew.remove().await.unwrap());
        }
        held.stop().await;
    }

    async fn a_late_write_does_not_bring_back_what_was_removed_cleaned_or_purged(bed: Bed) {
        let client = bed.client().await;
        let (jobs, store) = (client.jobs(), client.backend().jobs().unwrap());
        let mut late = Vec::new();
        for id in ["removed", "cleaned", "purged"] {
            let handle = client.kiq(add(1, 2).delay("1h").id(id)).await.unwrap();
            assert!(handle.cancel().await.unwrap());
            late.push(handle.record().await.unwrap());
        }
        assert!(jobs.remove(&"removed".into()).await.unwrap());
        assert!(jobs.retry(&"purged".into()).await.unwrap());
        assert_eq!(client.queues().purge("default").await.unwrap().done, 1);
        assert_eq!(jobs.clean(Status::Cancelled, "0s", 10).await.unwrap().done.len(), 1);
        for record in late {
            let id = record.id.clone();
            let refused = store.put(Arc::new(record), Expect::Absent, None).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict, "{id}");
            assert_eq!(jobs.get(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
            assert!(jobs.stored(&id).await.unwrap().is_none());
        }
        assert_eq!(ids(&jobs.list(JobFilter::new(), 10).await.unwrap().jobs), [""; 0]);
        let running = worker(&bed, &Probe::default()).await;
        for (id, queue) in [("removed", "default"), ("cleaned", "default"), ("purged", "aside")] {
            let anew = client.kiq(add(1, 2).id(id).queue(queue)).await.unwrap();
            assert!(!anew.existing(), "the id {id} is free");
            match queue {
                "default" => assert_eq!(soon(anew.result()).await.unwrap(), 3),
                _ => assert!(anew.cancel().await.unwrap() && anew.retry().await.unwrap(), "in any queue"),
            }
        }
        running.stop().await;
    }
}
