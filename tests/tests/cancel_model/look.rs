//! Lists and counts, which must agree in every order of operations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::JobId;
use aioq::jobs::JobFilter;
use aioq::prelude::*;
use aioq::store::{JobRecord, Status, Watched};
use futures_util::StreamExt as _;

/// The only queue.
pub(crate) const QUEUE: &str = "default";

/// Number of looks at the counts before they are wrong.
const LOOKS: u32 = 100;

/// All records that are written from now on, but for the traces of jobs that were removed.
pub(crate) async fn watched(client: &Client) -> Arc<Mutex<Vec<JobRecord>>> {
    let records = Arc::new(Mutex::new(Vec::new()));
    let mut written = client.backend().jobs().unwrap().watch(Watched::All).await.unwrap();
    let noted = Arc::clone(&records);
    tokio::spawn(async move {
        while let Some(record) = written.next().await {
            if !record.is_removed() {
                noted.lock().unwrap().push(record);
            }
        }
    });
    records
}

/// All jobs: each once in the list, and as many of each status as are counted. A record that
/// another session has just written over may be counted for a moment.
pub(crate) async fn listed(client: &Client) -> BTreeMap<JobId, Status> {
    let mut looks = 0;
    loop {
        let jobs = client.jobs().list(JobFilter::new(), 1_000).await.unwrap().jobs;
        let mut counts: BTreeMap<Status, u64> = BTreeMap::new();
        let mut listed = BTreeMap::new();
        for job in jobs {
            *counts.entry(job.status).or_default() += 1;
            assert_eq!(listed.insert(job.id.clone(), job.status), None, "{} is in the list twice", job.id);
        }
        let counted = client.queues().stats().await.unwrap().remove(QUEUE).unwrap_or_default();
        if counted == counts {
            return listed;
        }
        looks += 1;
        assert!(looks < LOOKS, "the counts {counted:?} are those of the list, {listed:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Of jobs that have ended nothing is left in the broker.
pub(crate) async fn check_nothing_waits(client: &Client) {
    let depth = client.queues().depths(&[QUEUE.to_owned()]).await.unwrap().remove(0);
    assert_eq!(depth.ready + depth.held + depth.scheduled + depth.retrying, 0, "{depth:?}");
}
