//! Kicks that meet another job, a server that is away, or a runtime that is gone.

use std::time::{Duration, Instant};

use aioq::client::{KickHook, KickNext, Sent};
use aioq::{Backend, Client, ErrorKind, Memory, Message, Result};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, unique_prefix};
use async_trait::async_trait;
use tokio::runtime::{Builder, Runtime};

use crate::bodies::add;

async fn nats() -> Nats {
    Nats::new(NatsServer::shared().await.unwrap().url()).prefix(unique_prefix())
}

async fn backends() -> [Backend; 2] {
    [Memory::new().into(), nats().await.into()]
}

/// Sends everything to another queue, under another id.
struct Diverts;

#[async_trait]
impl KickHook for Diverts {
    async fn kick(&self, mut message: Message, next: KickNext<'_>) -> Result<Sent> {
        message.queue = "diverted".into();
        message.id = "elsewhere".into();
        next.run(message).await
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[tokio::test]
async fn a_handle_is_of_the_job_that_is_there() {
    for backend in backends().await {
        let client = Client::builder(backend).connect().await.unwrap();
        let first = client.kiq(add(1, 2).id("x").queue("one")).await.unwrap();
        let second = client.kiq(add(1, 2).id("x").queue("other")).await.unwrap();
        assert_eq!((first.queue(), second.queue(), second.existing()), ("one", "one", true));
        let many = client.kiq_all([add(1, 2).id("x").queue("third"), add(1, 2).id("y").queue("third")]).await;
        let queues: Vec<_> = many.iter().map(|handle| handle.as_ref().unwrap().queue()).collect();
        assert_eq!(queues, ["one", "third"]);
        client.shutdown().await.unwrap();
    }
    for backend in backends().await {
        let client = Client::builder(backend).hook(Diverts).connect().await.unwrap();
        let handle = client.kiq(add(1, 2)).await.unwrap();
        assert_eq!((handle.id().as_str(), handle.queue()), ("elsewhere", "diverted"));
        client.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_bulk_kick_has_one_deadline_while_the_server_is_away() {
    let mut server = NatsServer::start().await.unwrap();
    let span = Duration::from_secs(1);
    let nats = Nats::new(server.url()).deadline(span);
    let client = Client::builder(nats).deadline(span).connect().await.unwrap();
    server.kill();
    let chosen = |n: usize| if n % 2 == 1 { add(1, 2).id(n.to_string()) } else { add(1, 2).queue("x") };
    let started = Instant::now();
    for bulk in [(0..1000).map(|n| chosen(n * 2)).collect::<Vec<_>>(), (0..1000).map(chosen).collect()] {
        let fates = client.kiq_all(bulk).await;
        assert_eq!(fates.len(), 1000);
        for fate in fates {
            let error = fate.unwrap_err();
            assert!(error.is_outage() && error.id().is_some(), "{error:?}");
        }
    }
    assert!(started.elapsed() < span * 8, "{:?}", started.elapsed());
    // And it goes on where it can.
    server.restart().await.unwrap();
    while client.kiq(add(1, 2)).await.is_err() {}
    let fates = client.kiq_all((0..1000).map(chosen)).await;
    assert!(fates.iter().all(Result::is_ok));
}

#[test]
fn a_client_whose_runtime_is_gone_says_so_at_once() {
    let server = current_thread();
    let client = {
        let runtime = current_thread();
        runtime.block_on(async { Client::connect(nats().await).await.unwrap() })
    };
    let started = Instant::now();
    let errors = [
        server.block_on(client.kiq(add(1, 2))).unwrap_err(),
        client.kiq_blocking(add(1, 2)).unwrap_err(),
        server.block_on(client.kiq_all([add(1, 2)])).pop().unwrap().unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotStarted, "{error}");
        assert!(error.to_string().contains("runtime"), "{error}");
    }
    // Requests that were on their way are lost, and the error says so.
    let _ = server.block_on(client.shutdown());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
