//! The tasks and states of a worker, and the workers that run.

use std::time::Duration;

use aioq::ErrorKind;
use aioq::prelude::*;
use aioq::store::Status;
use aioq::tasks::KickOptions;
use aioq_tests::{Bed, PATIENCE, Running, ended, on_each_backend};
use serde_json::json;

use crate::bodies::add;
use crate::probed;

struct Needed;

#[task(queue = "needy")]
async fn needy(#[inject] _needed: &Needed) {}

#[task(queue = "minute")]
async fn succeeds() {}

on_each_backend! {
    async fn tasks_registered_at_run_time_run(bed: Bed) {
        #[derive(serde::Deserialize)]
        struct Triple {
            n: i64,
        }
        let triple = aioq::tasks::TaskDef::from_fn("triple", |_ctx: Context, Triple { n }| async move {
            Ok::<_, TaskError>(3 * n)
        });
        let worker = Running::start(probed(&bed).0.task(triple)).await;
        let handle = worker.client.kiq_by_name("triple", &json!({"n": 14}), KickOptions::new()).await.unwrap();
        let record = ended(&handle).await;
        assert_eq!(record.result.unwrap().decode::<i64>().unwrap(), 42);
        worker.stop().await;
    }

    async fn dequeue_takes_the_next_job_or_none(bed: Bed) {
        let client = bed.client().await;
        assert!(client.dequeue(&["default"], Duration::from_millis(20)).await.unwrap().is_none());
        let handle = client.kiq(add(1, 1)).await.unwrap();
        let delivery = client.dequeue(&["default"], PATIENCE).await.unwrap().unwrap();
        assert_eq!(&delivery.id, handle.id());
        delivery.receipt.ack().await.unwrap();
    }

    async fn a_worker_is_listed_while_it_lives(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let client = bed.client().await;
        let listed = async {
            loop {
                if let Some(info) = client.workers().list().await.unwrap().pop() {
                    return info;
                }
                tokio::task::yield_now().await;
            }
        };
        let info = tokio::time::timeout(PATIENCE, listed).await.expect("it registers");
        assert!(info.is_alive() && info.queues.contains(&"default".to_owned()));
        assert_eq!((info.concurrency, info.busy), (100, 0));
        worker.stop().await;
        assert!(client.workers().list().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_worker_without_a_needed_state_does_not_start() {
    let error = Bed::memory().app().worker().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("needs state `Probe`: add `.state(Probe…)`"), "{text}");
    assert!(text.contains("tests/worker/"), "{text}");
}

#[tokio::test]
async fn two_tasks_of_one_name_are_refused_with_both_places() {
    let other = aioq::tasks::TaskDef::from_fn("add", |_: Context, _: ()| async { Ok::<_, TaskError>(()) });
    let error = Bed::memory().app().task(other).worker().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("two tasks are called `add`"), "{error}");
}

#[tokio::test]
async fn only_tasks_of_the_consumed_queues_need_their_states() {
    let bed = Bed::memory();
    let worker = Running::start(bed.app_for("minute")).await;
    let record = ended(&worker.client.kiq(needy().queue("minute")).await.unwrap()).await;
    assert_eq!(record.status, Status::Failed);
    let error = record.error.unwrap().message;
    assert!(error.contains("the worker has no state") && error.contains("Needed"), "{error}");
    worker.stop().await;
    let refused = bed.app_for("needy").worker().await.unwrap_err().to_string();
    assert!(refused.contains("needs state `Needed`"), "{refused}");
    let in_place = bed.app().in_place().await.unwrap();
    in_place.kiq(succeeds()).await.unwrap().get_result().await.unwrap();
    assert!(in_place.kiq(needy()).await.unwrap().get_result().await.is_err());
}
