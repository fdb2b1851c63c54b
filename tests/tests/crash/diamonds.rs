//! Flows of four jobs, two of which take the result of the first, while workers and the server are
//! killed.

use std::collections::HashMap;
use std::time::Duration;

use aioq::flow::join;
use aioq::prelude::*;
use aioq::{Error, TaskHandle};
use aioq_tests::{Demo, NatsServer, PATIENCE};
use futures_util::StreamExt as _;
use futures_util::stream::iter;
use tokio::time::{Instant, sleep, timeout_at};

use crate::flow::STEADY;

const DIAMONDS: u64 = 1_000;

/// Time between two kills of workers.
const BETWEEN_KILLS: Duration = Duration::from_millis(1500);

/// Time for which the server is away.
const AWAY: Duration = Duration::from_millis(500);

/// The task of the demo program, as its client sees it.
#[task(name = "demo.append_total")]
async fn append_total(numbers: Vec<u64>, path: &str, line: &str) -> u64 {
    unreachable!("{numbers:?}, {path}, {line}: the workers are demo programs")
}

/// Kicks one diamond, again and again until it is confirmed. Under its ids it is there once.
async fn kick(client: &Client, path: &str, n: u64) -> TaskHandle<u64> {
    let begun = Instant::now();
    loop {
        let step = |name: &str| append_total::with(path, format!("{name}-{n}"));
        let root = append_total(vec![n], path, format!("root-{n}")).id(format!("root-{n}")).shared();
        let side = |name: &str| join([root.clone()]).then(step(name)).id(format!("{name}-{n}"));
        let diamond = join([side("left"), side("right")]).then(step("end")).id(format!("end-{n}"));
        match client.kiq_flow(diamond).await {
            Ok(handle) => return handle,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The result of a job. A wait that an outage ends is begun again.
async fn result(handle: TaskHandle<u64>) -> Result<u64, Error> {
    loop {
        match handle.result().await {
            Err(error) if is_outage(&error) => sleep(Duration::from_millis(50)).await,
            result => return result,
        }
    }
}

#[tokio::test]
async fn each_of_a_thousand_diamonds_ends_with_the_results_of_its_jobs_whoever_is_killed() {
    let mut server = NatsServer::start().await.unwrap();
    let demo = Demo::on(&server);
    let (client, ledger) = (demo.client().await, demo.ledger());
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(demo.worker(&STEADY).await);
    }
    let path = ledger.path().to_str().unwrap().to_owned();
    let kicker = client.clone();
    let all = tokio::spawn(async move {
        let kicks = (0..DIAMONDS).map(|n| kick(&kicker, &path, n));
        let handles: Vec<_> = iter(kicks).buffered(20).collect().await;
        iter(handles).map(result).buffered(100).collect::<Vec<_>>().await
    });
    let mut kills = 0;
    while !all.is_finished() {
        let next = Instant::now() + BETWEEN_KILLS;
        if kills % 4 == 2 {
            server.kill();
            sleep(AWAY).await;
            server.restart().await.unwrap();
        } else {
            workers.remove(0).kill().await;
            workers.push(demo.worker(&STEADY).await);
        }
        kills += 1;
        assert!(kills < 60, "the diamonds do not end");
        let _ = timeout_at(next, async {
            while !all.is_finished() {
                sleep(AWAY / 10).await
            }
        })
        .await;
    }
    let results: Vec<u64> = all.await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(results, (0..DIAMONDS).map(|n| 2 * n + 5).collect::<Vec<_>>());
    let lines = ledger.lines();
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (place, line) in lines.iter().enumerate() {
        first.entry(line).or_insert(place);
    }
    assert_eq!(first.len(), 4 * DIAMONDS as usize, "each job took the same results in each run");
    for n in 0..DIAMONDS {
        let place = |name: &str, total: u64| first[&*format!("{name}-{n} {total}")];
        let (left, right) = (place("left", n + 1), place("right", n + 1));
        assert!(place("root", n) < left.min(right));
        assert!(place("end", 2 * n + 4) > left.max(right));
    }
    let repeats = lines.len() - first.len();
    println!("{kills} kills, {repeats} repeated bodies");
    // A killed worker had at most its slots in bodies.
    assert!(repeats <= 100 * kills, "{repeats} repeated bodies after {kills} kills");
    for worker in workers {
        worker.stop().await;
    }
}

fn is_outage(error: &Error) -> bool {
    matches!(error.kind(), aioq::ErrorKind::Connection | aioq::ErrorKind::Deadline)
}
