//! The NATS backend on three servers that keep three copies.

use std::collections::HashSet;
use std::time::Duration;

use aioq::broker::{Demand, Expect};
use aioq::store::{JobRecord, Status};
use aioq::{Backend, ErrorKind};
use aioq_nats::Nats;
use aioq_tests::chaos::{Chaos, Means, Target};
use aioq_tests::{NatsServer, PATIENCE, until};

use crate::support;
use crate::support::{TestListener, cluster, envelope};

/// The number of the server that leads the stream of the jobs.
async fn leader(server: &NatsServer, prefix: &str) -> Option<usize> {
    let client = async_nats::connect(server.url()).await.unwrap();
    let subject = format!("$JS.API.STREAM.INFO.{}_JOBS", prefix.to_uppercase());
    let info = client.request(subject, bytes::Bytes::new()).await.ok()?;
    let info = String::from_utf8_lossy(&info.payload).into_owned();
    let leader = info.split("\"leader\":\"n").nth(1)?;
    leader[..1].parse().ok()
}

/// Kicks some and receives all.
async fn work(backend: &Backend, listener: &mut TestListener, round: usize) {
    let ids: Vec<_> = (0..20).map(|n| format!("{round}-{n}")).collect();
    for id in &ids {
        backend.broker().kick(envelope(id, "x"), Expect::Absent).await.unwrap();
    }
    let mut seen = HashSet::new();
    while seen.len() < ids.len() {
        for delivery in listener.take(Demand { now: 10, prefetch: 0 }).await {
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
        record.worker_id = Some(worker.into());
        std::sync::Arc::new(record)
    };
    let mut listener = TestListener::new(&backend, &["x"]).await;
    work(&backend, &mut listener, 0).await;
    let revision = jobs.put(record("first"), Expect::Absent, None).await.unwrap();
    let leader = leader(&servers[0], "aioq").await.unwrap();
    servers[leader].kill();
    work(&backend, &mut listener, 1).await;
    let conflict = jobs.put(record("second"), Expect::Absent, None).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    jobs.put(record("second"), Expect::Revision(revision), None).await.unwrap();
}

/// True if all copies of all streams of this flow are there again.
async fn is_whole(chaos: &Chaos) -> bool {
    for stream in ["JOBS", "RECORDS", "KV"] {
        let client = async_nats::connect(chaos.servers()[0].url()).await.unwrap();
        let subject = format!("$JS.API.STREAM.INFO.{}_{stream}", chaos.prefix().to_uppercase());
        let Ok(info) = client.request(subject, bytes::Bytes::new()).await else { return false };
        let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
        let Some(followers) = info["cluster"]["replicas"].as_array() else { return false };
        if !followers.iter().all(|follower| follower["current"] == true && follower["offline"] != true) {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn no_confirmed_kick_is_lost_when_each_of_three_servers_dies_as_the_leader() {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_chaos"));
    let mut chaos = Chaos::start_on(cluster().await, 3, program).await;
    let mut died = HashSet::new();
    // The leader dies, whichever it is; the third server may have to wait until it leads.
    for _ in 0..3 {
        chaos.until_ran(100).await;
        let led = until_led(&chaos, &died).await;
        println!("n{led} leads, and dies");
        chaos.strike(Target::Server, Means::Kill, led).await;
        died.insert(led);
        // Two of three must be there for anything to go on: the next one dies when this one is
        // back.
        until("the copies are whole", async || is_whole(&chaos).await).await;
    }
    chaos.until_ran(100).await;
    let figures = chaos.end().await;
    println!("{figures}");
    assert!(figures.is_clean(), "{figures}");
}

/// Waits until a server leads that has not died yet, and sees to it.
async fn until_led(chaos: &Chaos, died: &HashSet<usize>) -> usize {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "the lead never passes on from {died:?}");
        match leader(&chaos.servers()[0], chaos.prefix()).await {
            Some(leader) if !died.contains(&leader) => return leader,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
            Some(_) => {
                let client = async_nats::connect(chaos.servers()[0].url()).await.unwrap();
                let subject =
                    format!("$JS.API.STREAM.LEADER.STEPDOWN.{}_JOBS", chaos.prefix().to_uppercase());
                // Nobody else may be fit to lead for now.
                let _ = client.request(subject, bytes::Bytes::new()).await;
            }
        }
    }
}
