//! Handlers around clients and workers, and a worker that is told to end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aioq::ErrorKind;
use aioq::prelude::*;
use aioq::worker::WorkerOptions;
use aioq_tests::{Bed, HeldStore, PATIENCE, Probe, Running, soon};

use crate::bodies::at_most_once;
use crate::{app, worker};

/// Lines that handlers leave behind, in their order.
type Ledger = Arc<std::sync::Mutex<Vec<String>>>;

#[tokio::test]
async fn handlers_run_around_clients_and_workers() {
    let ledger = Ledger::default();
    let write = |line: &'static str| {
        let ledger = Arc::clone(&ledger);
        move |lifecycle: aioq::client::Lifecycle| {
            let ledger = Arc::clone(&ledger);
            async move {
                let state = lifecycle.state::<u32>().copied();
                ledger.lock().unwrap().push(format!("{line} {state:?}"));
                Ok::<_, aioq::Error>(())
            }
        }
    };
    let app = app(&Bed::memory(), &Probe::default())
        .state(7_u32)
        .on_client_startup(write("client up"))
        .on_client_shutdown(write("client down"))
        .on_worker_startup(write("worker up"))
        .on_worker_shutdown(write("first worker down"))
        .on_worker_shutdown(write("second worker down"));
    let worker = app.worker().await.unwrap();
    let client = worker.client().clone();
    Running::of(worker).stop().await;
    client.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(
        *ledger.lock().unwrap(),
        [
            "client up None",
            "worker up Some(7)",
            "second worker down Some(7)",
            "first worker down Some(7)",
            "client down None",
        ]
    );
}

#[tokio::test]
async fn a_startup_handler_that_fails_says_why_the_worker_does_not_run() {
    let app = app(&Bed::memory(), &Probe::default()).on_worker_startup(|_| async { Err("no disk") });
    let error = app.worker().await.unwrap().run(std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("no disk"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_job_acked_on_receive_that_is_given_back_before_it_began_runs() {
    let (bed, probe) = (Bed::memory(), Probe::default());
    let client = bed.client().await;
    let handle = client.kiq(at_most_once()).await.unwrap();
    let first = client.dequeue(&["default"], PATIENCE).await.unwrap().unwrap();
    first.receipt.release(Duration::ZERO).await.unwrap();
    let store = HeldStore::over(Arc::clone(bed.backend().jobs().unwrap()));
    let app = App::new(bed.backend().with_jobs(store.clone())).state(probe.clone());
    let options = WorkerOptions::new().grace(Duration::ZERO);
    let app = app.state(Arc::new(AtomicBool::new(false))).worker_options(options);
    store.hold_next();
    let ending = Running::start(app).await;
    soon(store.held()).await;
    let ended = tokio::spawn(ending.stop());
    tokio::time::sleep(Duration::from_millis(1)).await;
    // It is told to end, and now about to start the job.
    store.let_go();
    ended.await.unwrap();
    let running = worker(&bed, &probe).await;
    soon(probe.started.notified()).await;
    assert!(handle.abort("1s").await.unwrap());
    running.stop().await;
}
