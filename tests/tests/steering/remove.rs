//! Jobs that are removed, and late writes of those that held them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aioq::jobs::JobFilter;
use aioq::prelude::*;
use aioq::store::{Expect, Status};
use aioq::worker::WorkerOptions;
use aioq::{ErrorKind, JobId};
use aioq_tests::{Bed, HeldStore, PATIENCE, Probe, Running, on_each_backend, soon};

use crate::bodies::{add, gated};
use crate::{ids, until_status, worker};

/// The moment at which a worker is held: before or after it reads the record of its job.
#[derive(Clone, Copy, Debug)]
enum Moment {
    BeforeTheRead,
    AfterTheRead,
}

/// The trace that a removed job leaves in the store. Its placeholder expires.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trace {
    Placeholder,
    None,
}

/// Removes a job while a worker holds its first or second delivery, and kicks another under its id
/// before the worker goes on, or after it.
async fn removed_while_held(
    bed: &Bed,
    moment: Moment,
    is_redelivered: bool,
    trace: Trace,
    is_kicked_anew_first: bool,
) {
    let case =
        format!("{moment:?}, redelivered: {is_redelivered}, {trace:?}, anew first: {is_kicked_anew_first}");
    let (client, id) = (bed.client().await, JobId::from("job"));
    client.kiq(add(1, 1).id("job")).await.unwrap();
    if is_redelivered {
        let delivery = client.dequeue(&["default"], PATIENCE).await.unwrap().expect("the job is there");
        delivery.receipt.release(Duration::ZERO).await.unwrap();
    }
    let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
    match moment {
        Moment::BeforeTheRead => store.hold_before_next(),
        Moment::AfterTheRead => store.hold_next(),
    }
    let app = App::new(bed.backend().with_jobs(store.clone())).state(Probe::default());
    let app = app.state(Arc::new(AtomicBool::new(false)));
    let holder = Running::start(app.worker_options(WorkerOptions::new().concurrency(1))).await;
    soon(store.held()).await;
    assert!(client.jobs().remove(&id).await.unwrap(), "{case}");
    let records = client.backend().jobs().unwrap();
    if trace == Trace::None {
        let placeholder = records.get(&id).await.unwrap().unwrap();
        assert!(records.remove(&[placeholder]).await.remove(0).unwrap(), "{case}");
    }
    if !is_kicked_anew_first {
        store.let_go();
        // The worker takes one job after the other, so it has settled the first one then.
        soon(client.kiq(add(1, 1)).await.unwrap().result()).await.unwrap();
        let found = client.jobs().get(&id).await;
        assert_eq!(found.unwrap_err().kind(), ErrorKind::NotFound, "{case}");
    }
    let anew = client.kiq(add(1, 2).id("job")).await.unwrap();
    assert!(!anew.existing(), "its id is free: {case}");
    if is_kicked_anew_first {
        store.let_go();
    }
    assert_eq!(soon(anew.result()).await.unwrap_or_else(|error| panic!("{case}: {error}")), 3);
    assert!(anew.remove().await.unwrap(), "{case}");
    holder.stop().await;
    // The next case begins without a placeholder of this one.
    let placeholder = records.get(&id).await.unwrap().unwrap();
    assert!(records.remove(&[placeholder]).await.remove(0).unwrap(), "{case}");
}

on_each_backend! {
    async fn a_job_that_is_removed_while_a_worker_holds_it_stays_removed_and_its_id_is_free(bed: Bed) {
        for moment in [Moment::BeforeTheRead, Moment::AfterTheRead] {
            for (is_redelivered, trace, is_kicked_anew_first) in [
                (false, Trace::Placeholder, true),
                (false, Trace::Placeholder, false),
                (false, Trace::None, true),
                (false, Trace::None, false),
                (true, Trace::Placeholder, true),
                (true, Trace::None, true),
                (true, Trace::None, false),
            ] {
                removed_while_held(&bed, moment, is_redelivered, trace, is_kicked_anew_first).await;
            }
        }
    }

    async fn a_delivery_that_comes_late_takes_nothing_from_a_job_kicked_anew_that_runs(bed: Bed) {
        let (client, probe) = (bed.client().await, Probe::default());
        let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
        store.hold_before_next();
        client.kiq(gated().id("job")).await.unwrap();
        let app = App::new(bed.backend().with_jobs(store.clone())).state(Probe::default());
        let options = WorkerOptions::new().concurrency(1).max_prefetch(0);
        let late = Running::start(app.state(Arc::new(AtomicBool::new(false))).worker_options(options)).await;
        soon(store.held()).await;
        assert!(client.jobs().remove(&"job".into()).await.unwrap());
        let anew = client.kiq(gated().id("job")).await.unwrap();
        assert!(!anew.existing(), "its id is free");
        let running = worker(&bed, &probe).await;
        soon(probe.started.notified()).await;
        until_status(&client, anew.id(), Status::Running).await;
        store.let_go();
        // The worker takes one job after the other, so it has settled the first one then.
        late.stop().await;
        assert_eq!(anew.status().await.unwrap(), Status::Running);
        probe.gate.add_permits(1);
        soon(anew.result()).await.unwrap();
        assert_eq!(probe.runs(), 1);
        running.stop().await;
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
