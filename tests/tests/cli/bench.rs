//! The command `bench`: what it prints, what it leaves alone, what it leaves behind.

use std::net::TcpListener;
use std::time::Duration;

use aioq_tests::{Demo, NatsServer, Ran, run_demo, until_within};
use serde_json::Value;

const WORKS: [&str; 6] = ["kick", "bulk", "drain", "both", "latency", "idle"];

/// Small enough for a test.
const SMALL: [&str; 7] = ["--jobs", "300", "--runs", "1", "--idle", "100ms", "--json"];

/// The only line that a command printed, for a work of that name.
#[track_caller]
fn line(ran: &Ran, work: &str, backend: &str) -> Value {
    let [line] = ran.lines()[..] else { panic!("{ran:?}") };
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["work"], &line["backend"]), (&work.into(), &backend.into()), "{line}");
    let fields = [
        "jobs",
        "jobs_per_s",
        "raw_jobs_per_s",
        "ratio",
        "p50_us",
        "p99_us",
        "cpu_s_per_million",
        "rss_mib",
        "result_p50_us",
        "result_p99_us",
    ];
    assert!(fields.iter().all(|name| line.get(name).is_some()), "{line}");
    line
}

/// Asserts that all of these are numbers above 0.
#[track_caller]
fn assert_measured(line: &Value, fields: &[&str]) {
    let is_measured = |name: &&&str| line[**name].as_f64().is_some_and(|number| number > 0.0);
    let missing: Vec<_> = fields.iter().filter(|name| !is_measured(name)).collect();
    assert!(missing.is_empty(), "{missing:?} in {line}");
}

/// Fields that a work measures.
fn numbers(work: &str) -> &'static [&'static str] {
    match work {
        "bulk" | "drain" => &["jobs_per_s", "raw_jobs_per_s", "ratio", "rss_mib"],
        "kick" | "both" => &["jobs_per_s", "raw_jobs_per_s", "ratio", "p50_us", "p99_us", "raw_p50_us"],
        "latency" => &["ratio", "p50_us", "raw_p50_us", "result_p50_us", "raw_result_p99_us", "result_ratio"],
        _ => &["rss_mib"],
    }
}

/// The names of all streams of a server.
async fn streams(url: &str) -> Vec<String> {
    let client = async_nats::connect(url).await.unwrap();
    let answer = client.request("$JS.API.STREAM.NAMES", bytes::Bytes::new()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    let names = answer["streams"].as_array().into_iter().flatten();
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_work_is_a_line_of_json_in_memory() {
    for work in WORKS {
        let ran = run_demo(&[&["bench", work, "--memory"][..], &SMALL].concat()).await;
        assert_measured(&line(&ran, work, "memory"), numbers(work));
    }
}

#[tokio::test]
async fn each_work_is_a_line_of_json_on_nats_and_nothing_is_left_behind() {
    let server = NatsServer::start().await.unwrap();
    let demo = Demo::on(&server);
    for work in WORKS {
        let ran = demo.run(&[&["bench", work][..], &SMALL].concat()).await;
        assert_measured(&line(&ran, work, "nats"), numbers(work));
        assert_eq!(streams(&server.url()).await, [""; 0], "after {work}");
    }
}

#[tokio::test]
async fn all_works_come_one_after_the_other_and_for_people_as_a_table() {
    let few = ["bench", "all", "--memory", "--jobs", "20", "--runs", "1", "--idle", "10ms"];
    let ran = run_demo(&[&few[..], &["--json"]].concat()).await;
    let work = |line: &&str| serde_json::from_str::<Value>(line).unwrap()["work"].clone();
    let works: Vec<Value> = ran.lines().iter().map(work).collect();
    assert_eq!(works, ["idle", "latency", "kick", "bulk", "drain", "both"]);

    let ran = run_demo(&few).await;
    let starts: Vec<_> = ran.lines().iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(starts, ["WORK", "idle", "latency", "kick", "bulk", "drain", "both"]);
    assert!(ran.stderr.contains("drain on memory, run 1 of 1"), "{}", ran.stderr);
}

#[tokio::test]
async fn without_records_there_is_no_result_to_wait_for() {
    for work in ["drain", "latency"] {
        let ran = run_demo(&[&["bench", work, "--memory", "--records", "none"][..], &SMALL].concat()).await;
        let line = line(&ran, work, "memory");
        assert_eq!((&line["records"], &line["result_p50_us"]), (&"none".into(), &Value::Null));
        assert_measured(&line, &["ratio"]);
    }
}

#[tokio::test]
async fn the_jobs_of_the_program_are_left_alone_and_its_tasks_are_its_own() {
    let demo = Demo::new().await;
    let id = demo.kick("demo.add", r#"{"a": 1, "b": 2}"#, &["--queue", "bench"]).await;
    demo.run(&[&["bench", "drain"][..], &SMALL].concat()).await.lines();
    let jobs = demo.run(&["jobs", "list", "--json"]).await;
    let jobs: Value = serde_json::from_str(jobs.lines()[0]).unwrap();
    let jobs: Vec<_> = jobs.as_array().unwrap().iter().map(|job| (&job["id"], &job["status"])).collect();
    assert_eq!(jobs, [(&id.into(), &"pending".into())]);
    assert!(!demo.run(&["tasks"]).await.stdout.contains("bench"));
}

#[tokio::test]
async fn an_interrupted_bench_leaves_nothing_behind() {
    let server = NatsServer::start().await.unwrap();
    let demo = Demo::on(&server);
    for work in ["kick", "drain", "both", "latency", "idle"] {
        let bench = demo.start(&["bench", work, "--jobs", "5000", "--runs", "1000"]);
        let is_there = async || !streams(&server.url()).await.is_empty();
        until_within(Duration::from_secs(20), "it works on the server", is_there).await;
        assert_eq!(bench.interrupt().await, Some(1), "{work}");
        assert_eq!(streams(&server.url()).await, [""; 0], "after {work}");
    }
}

#[tokio::test]
async fn mistakes_and_servers_that_are_not_there_are_refused() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("nats://{nobody}");
    for (args, why) in [
        (&["bench", "drain", "--memory", "--jobs", "0"][..], "at least 1"),
        (&["bench", "drain", "--memory", "--runs", "x"], "invalid digit"),
        (&["bench", "drain", "--memory", "--concurrency", "0"], "at least 1"),
        (&["bench", "drain", "--memory", "--records", "some"], "[possible values: none, results, full]"),
        (&["bench", "fly", "--memory"], "[possible values: kick, bulk, drain"),
        (&["bench", "drain", "--memory", "--nats", "nats://x"], "cannot be used together"),
        (&["bench", "kick", "--nats", &url], "cannot reach NATS"),
    ] {
        let ran = run_demo(args).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
        assert!(ran.stderr.contains(why), "`{why}` in {}", ran.stderr);
    }
}
