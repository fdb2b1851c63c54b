//! Delays of days, in virtual time.

use std::time::Duration;

use aioq_tests::{Bed, Running};

use crate::bodies::add;
use crate::probed;

#[tokio::test(start_paused = true)]
async fn days_of_delay_pass_in_virtual_time() {
    let worker = Running::start(probed(&Bed::memory()).0).await;
    let handle = worker.client.kiq(add(1, 1).delay("3d")).await.unwrap();
    assert_eq!(handle.result().await.unwrap(), 2);
    let record = handle.record().await.unwrap();
    let waited = record.started_at.unwrap().since(record.kicked_at.unwrap());
    assert!(waited >= Duration::from_secs(3 * 24 * 3600), "{waited:?}");
    worker.stop().await;
}
