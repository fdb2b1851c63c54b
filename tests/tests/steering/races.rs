//! Cancels that race with workers and with retries.

use aioq::JobId;
use aioq::store::Status;
use aioq_tests::{Bed, Probe, on_each_backend, soon};

use crate::bodies::{add, gated, hasty};
use crate::worker;

/// Rounds of a hundred races.
const ROUNDS: usize = 25;

on_each_backend! {
    async fn of_thousands_of_races_with_two_workers_no_cancelled_job_runs(bed: Bed) {
        let probe = Probe::default();
        probe.gate.add_permits(1_000_000);
        let running = [worker(&bed, &probe).await, worker(&bed, &probe).await];
        let client = bed.client().await;
        let mut cancelled = 0;
        for round in 0..ROUNDS {
            // Generated ids and chosen ones, for now and for just now.
            let calls = (0..100).map(|job| match job % 4 {
                0 => gated().id(format!("{round}-{job}")),
                1 => gated().delay("3ms"),
                _ => gated().delay("0s"),
            });
            let handles = client.kiq_all(calls).await;
            let ids: Vec<JobId> = handles.iter().map(|handle| handle.as_ref().unwrap().id().clone()).collect();
            // Some at once, some one by one, while the workers fetch.
            let (bulk, single) = ids.split_at(50);
            let (in_bulk, one_by_one) = tokio::join!(
                async { client.jobs().cancel_all(bulk).await },
                futures_util::future::join_all(single.iter().map(|id| async { client.jobs().cancel(id).await })),
            );
            let fates: Vec<bool> = in_bulk.into_iter().chain(one_by_one).map(Result::unwrap).collect();
            cancelled += fates.iter().filter(|fate| **fate).count();
            for (handle, cancelled) in handles.into_iter().zip(fates) {
                let record = soon(handle.unwrap().wait()).await.unwrap();
                let expected = if cancelled { Status::Cancelled } else { Status::Completed };
                assert_eq!(record.status, expected, "{}", record.id);
            }
        }
        for running in running {
            running.stop().await;
        }
        assert_eq!(probe.runs() as usize, 100 * ROUNDS - cancelled);
    }

    async fn of_races_with_retries_no_cancelled_job_runs_again(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        // One takes a third of a second on NATS, and nearly no time in memory.
        let races = if matches!(bed, Bed::Memory(_)) { 200 } else { 50 };
        for _ in 0..races {
            // Fails at once and waits a millisecond for its next attempt, over and over.
            let handle = client.kiq(hasty()).await.unwrap();
            soon(probe.started.notified()).await;
            let cancelled = handle.cancel().await.unwrap();
            let runs = probe.runs();
            if cancelled {
                assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
                // Something that comes after in the same queue has run.
                assert_eq!(soon(client.kiq(add(1, 2)).await.unwrap().result()).await.unwrap(), 3);
                assert_eq!(probe.runs(), runs, "it ran after it was cancelled");
            } else {
                handle.abort("20s").await.unwrap();
            }
        }
        running.stop().await;
    }
}
