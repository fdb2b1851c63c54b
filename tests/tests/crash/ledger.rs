//! Ten thousand jobs on three worker processes: each runs once, and what is said of it is true.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use aioq::Client;
use aioq::message::Name;
use aioq::store::{JobRecord, Status};
use aioq_tests::{Demo, until_within};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

const APPENDS: usize = 4000;
const SUMS: usize = 3000;
const ECHOES: usize = 2000;
const FLAKY: usize = 1000;

/// Writes a line of arguments for each job, and kicks them; their ids in order.
async fn kick_all(demo: &Demo, task: &str, calls: impl Iterator<Item = Value>) -> Vec<String> {
    let file = demo.path(task);
    let mut lines = String::new();
    calls.for_each(|call| writeln!(lines, "{call}").unwrap());
    std::fs::write(&file, lines).unwrap();
    ids(demo, &["kiq", task, "--args-file", file.to_str().unwrap()]).await
}

async fn ids(demo: &Demo, args: &[&str]) -> Vec<String> {
    demo.run(args).await.lines().into_iter().map(str::to_owned).collect()
}

/// The records of these jobs, in order.
async fn records(client: &Client, ids: &[String]) -> Vec<JobRecord> {
    let jobs = client.jobs();
    let read = |id: &String| {
        let (jobs, id) = (jobs.clone(), id.as_str().into());
        async move { jobs.get(&id).await }
    };
    stream::iter(ids.iter().map(read).collect::<Vec<_>>()).buffered(64).try_collect().await.unwrap()
}

fn result<T: serde::de::DeserializeOwned>(record: &JobRecord) -> T {
    assert_eq!(record.status, Status::Completed, "{record:?}");
    record.result.as_ref().unwrap().decode().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_on_three_workers_run_once_each() {
    let demo = Demo::new().await;
    let (client, ledger) = (demo.client().await, demo.ledger());
    let (one, two, three) = tokio::join!(demo.worker(&[]), demo.worker(&[]), demo.worker(&[]));
    let (path, dir, started) = (ledger.path(), demo.path(""), Instant::now());

    let (appends, sums, echoes, flaky) = tokio::join!(
        kick_all(
            &demo,
            "demo.append",
            (0..APPENDS).map(|n| json!({ "path": path, "line": format!("job {n}") }))
        ),
        kick_all(&demo, "demo.add", (0..SUMS).map(|n| json!({ "a": n, "b": 1 }))),
        async {
            let (count, args) = (ECHOES.to_string(), json!({ "value": [1, "zwei", null] }).to_string());
            ids(&demo, &["kiq", "demo.echo", "--args", &args, "--count", &count]).await
        },
        kick_all(
            &demo,
            "demo.flaky",
            (0..FLAKY).map(|n| json!({ "key": format!("f{n}"), "failures": n % 3, "dir": dir }))
        ),
    );
    println!("10,000 jobs kicked after {:?}", started.elapsed());
    until_within(Duration::from_secs(60), "the queue is empty", async || {
        let depth = client.backend().broker().depths(&["default".to_owned()]).await.unwrap().remove(0);
        depth.ready + depth.held + depth.scheduled == 0
    })
    .await;
    println!("all of them run after {:?}", started.elapsed());

    let mut lines = ledger.lines();
    lines.sort_unstable();
    let mut wanted: Vec<_> = (0..APPENDS).map(|n| format!("job {n}")).collect();
    wanted.sort_unstable();
    assert!(lines == wanted, "each line is there once: {} lines of {APPENDS}", lines.len());

    let appends = records(&client, &appends).await;
    appends.iter().for_each(result::<()>);
    let sums = records(&client, &sums).await;
    assert_eq!(sums.iter().map(result::<usize>).collect::<Vec<_>>(), (1..=SUMS).collect::<Vec<_>>());
    let echoes = records(&client, &echoes).await;
    assert_eq!(echoes.len(), ECHOES);
    assert!(echoes.iter().all(|record| result::<Value>(record) == json!([1, "zwei", null])));
    let flaky = records(&client, &flaky).await;
    for (n, record) in flaky.iter().enumerate() {
        let attempts = u32::try_from(n % 3 + 1).unwrap();
        assert_eq!((result::<u32>(record), record.attempt), (attempts, attempts));
        assert_eq!(record.errors.len() + 1, attempts as usize);
    }

    let mut shares = BTreeMap::<Name, usize>::new();
    for record in appends.into_iter().chain(sums).chain(echoes).chain(flaky) {
        *shares.entry(record.worker_id.unwrap()).or_default() += 1;
    }
    println!("jobs by worker: {shares:?}");
    for worker in [one, two, three] {
        assert!(shares.remove(&*worker.id()).unwrap_or_default() >= 500);
        worker.stop().await;
    }
    assert!(shares.is_empty());
}
