//! The NATS backend on three servers that keep three copies.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use aioq::broker::{Demand, Expect};
use aioq::store::{JobRecord, Status};
use aioq::{Backend, ErrorKind};
use aioq_nats::Nats;
use aioq_tests::NatsServer;
use support::{Worker, cluster, envelope};

/// Which server leads the stream of the jobs.
async fn leader(server: &NatsServer) -> usize {
    let client = async_nats::connect(server.url()).await.unwrap();
    let info = client.request("$JS.API.STREAM.INFO.AIOQ_JOBS", bytes::Bytes::new()).await.unwrap();
    let info = String::from_utf8_lossy(&info.payload).into_owned();
    let leader = info.split("\"leader\":\"n").nth(1).unwrap();
    leader[..1].parse().unwrap()
}

/// Kicks some and receives all.
async fn work(backend: &Backend, worker: &mut Worker, round: usize) {
    let ids: Vec<_> = (0..20).map(|n| format!("{round}-{n}")).collect();
    for id in &ids {
        backend.broker().kick(envelope(id, "x"), Expect::Absent).await.unwrap();
    }
    let mut seen = HashSet::new();
    while seen.len() < ids.len() {
        for delivery in worker.take(Demand { now: 10, prefetch: 0 }).await {
            delivery.receipt.ack().await.unwrap();
            if ids.iter().any(|id| id == delivery.id.as_str()) {
                seen.insert(delivery.id.clone());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_when_the_leader_of_three_servers_dies() {
    let mut servers = cluster().await;
    let url = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let backend: Backend = Nats::new(url).replicas(3).deadline(Duration::from_secs(30)).into();
    support::start(&backend).await;
    let jobs = backend.jobs().unwrap();
    let record = |worker: &str| {
        let mut record = JobRecord::unreadable("a".into(), "x", Status::Running);
        record.worker_id = Some(worker.to_owned());
        std::sync::Arc::new(record)
    };
    let mut worker = Worker::new(&backend, &["x"]).await;
    work(&backend, &mut worker, 0).await;
    let revision = jobs.put(record("first"), Expect::Absent, None).await.unwrap();
    let leader = leader(&servers[0]).await;
    servers[leader].kill();
    work(&backend, &mut worker, 1).await;
    let conflict = jobs.put(record("second"), Expect::Absent, None).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    jobs.put(record("second"), Expect::Revision(revision), None).await.unwrap();
}
