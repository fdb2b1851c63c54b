//! Events and workers, and promises of every command: exit codes, empty lists, foreign text.

use std::net::TcpListener;

use aioq_tests::{Demo, run_demo};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::shared::{ADD, assert_refused, until_status, value};

#[tokio::test]
async fn events_tell_of_a_job_that_a_worker_runs() {
    let demo = Demo::new().await;
    let _worker = demo.worker(&[]).await;
    let mut all = demo.events(&["--all", "--json", "--queue", "default"]).await;
    let mut ends = demo.events(&["--json"]).await;
    let mut people = demo.events(&["--status", "failed"]).await;
    let (sum, bad) = (
        demo.kick("demo.add", ADD, &[]).await,
        demo.kick("demo.fail", r#"{"message": "no\nluck"}"#, &[]).await,
    );

    let event = |line: String| serde_json::from_str::<Value>(&line).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let event = event(all.next().await);
        seen.push((event["id"].clone(), event["kind"].clone()));
    }
    for (id, kind) in [(&sum, "kicked"), (&sum, "completed"), (&bad, "kicked"), (&bad, "failed")] {
        assert!(seen.contains(&(json!(id), json!(kind))), "{kind} in {seen:?}");
    }
    let end = event(ends.next().await);
    let (end, failure) =
        if end["id"] == *sum { (end, event(ends.next().await)) } else { (event(ends.next().await), end) };
    for (field, expected) in [
        ("kind", json!("completed")),
        ("id", json!(sum)),
        ("task", json!("demo.add")),
        ("queue", json!("default")),
        ("status", json!("completed")),
        ("attempt", json!(1)),
        ("error", Value::Null),
    ] {
        assert_eq!(end[field], expected, "{end}");
    }
    assert_eq!(failure["error"], "Failure: no\nluck");
    let line = people.next().await;
    assert!(line.contains("failed     default  demo.fail  ") && line.contains(&bad), "{line}");
    assert!(line.ends_with("attempt 1  Failure: no\\nluck"), "{line}");

    assert_eq!(all.interrupt().await, Some(0));
    // No event comes that could not be written.
    assert_eq!((ends.close().await, people.close().await), (Some(0), Some(0)));
}

#[tokio::test]
async fn workers_are_listed_with_what_they_do() {
    let demo = Demo::new().await;
    let worker = demo.worker(&["--queues", "mail,default", "--concurrency", "7"]).await;
    let workers = value(&demo.run(&["workers", "--json"]).await);
    let [listed] = &workers.as_array().unwrap()[..] else { panic!("{workers}") };
    assert_eq!(listed["worker_id"], worker.id());
    assert_eq!((&listed["queues"], &listed["concurrency"]), (&json!(["default", "mail"]), &json!(7)));
    assert_eq!((&listed["alive"], &listed["busy"]), (&json!(true), &json!(0)));
    for field in ["registered_at", "last_heartbeat", "host", "version"] {
        assert!(listed[field].is_string(), "{field} in {listed}");
    }
    let table = demo.run(&["workers"]).await;
    let [head, row] = table.lines()[..] else { panic!("{table:?}") };
    assert!(head.starts_with("WORKER") && row.starts_with(&worker.id()), "{table:?}");
    assert!(row.contains("alive") && row.contains("0/7") && row.contains("default, mail"), "{table:?}");
    worker.stop().await;
    assert_eq!(demo.run(&["workers", "--json"]).await.lines(), ["[]"]);
}

#[tokio::test]
async fn a_bad_status_exits_with_2_and_lists_those_that_there_are() {
    for command in
        [&["jobs", "list"][..], &["dead", "list"], &["events"], &["jobs", "clean", "--older-than", "1h"]]
    {
        let ran = run_demo(&[command, &["--status", "done"]].concat()).await;
        assert_refused(&ran, 2, &["unknown status `done`", "scheduled, blocked, pending, running, retrying"]);
    }
}

#[tokio::test]
async fn commands_on_an_empty_memory_end() {
    for command in [
        &["jobs", "list", "--json"][..],
        &["dead", "list", "--json"],
        &["queues", "--json"],
        &["workers", "--json"],
        &["schedules", "--json"],
    ] {
        assert_eq!(run_demo(&[command, &["--memory"]].concat()).await.lines(), ["[]"]);
    }
    for verb in ["get", "cancel", "abort", "retry", "remove", "wait"] {
        assert_refused(&run_demo(&["jobs", verb, "who", "--memory"]).await, 1, &["job `who`: no such job"]);
    }
    for verb in ["replay", "drop"] {
        assert_refused(&run_demo(&["dead", verb, "who", "--memory"]).await, 1, &["job `who`: no such job"]);
        run_demo(&["dead", verb, "--all", "--memory"]).await.lines();
    }
    assert_eq!(run_demo(&["purge", "x", "--yes", "--memory"]).await.lines(), ["dropped 0 jobs"]);
    let clean = ["jobs", "clean", "--status", "failed", "--older-than", "1s", "--memory"];
    assert_eq!(run_demo(&clean).await.lines(), ["forgot 0 jobs"]);
}

#[tokio::test]
async fn without_a_server_every_command_exits_with_2() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("nats://127.0.0.1:{port}");
    let commands = [
        &["jobs", "list"][..],
        &["jobs", "cancel", "a", "b"],
        &["jobs", "wait", "a"],
        &["dead", "replay", "--all"],
        &["queues"],
        &["purge", "q", "--yes"],
        &["workers"],
        &["schedules"],
        &["schedules", "pause", "s"],
        &["events"],
    ];
    let runs = commands.map(async |command| run_demo(&[command, &["--nats", &url]].concat()).await);
    for ran in join_all(runs).await {
        assert_refused(&ran, 2, &[&port.to_string()]);
    }
}

#[tokio::test]
async fn the_flag_for_memory_counts_before_the_variable_of_a_server() {
    let run = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(aioq_tests::demo_binary().unwrap());
        command.args(args).env("AIOQ_NATS", "nats://127.0.0.1:1");
        command.output().await.unwrap()
    };
    assert!(run(&["jobs", "list", "--memory", "--json"]).await.status.success());
    let both = run(&["jobs", "list", "--memory", "--nats", "nats://127.0.0.1:1"]).await;
    assert_eq!(both.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&both.stderr).contains("cannot be used together"));
}

/// Text that would forge a line, paint, ring, turn the direction of writing, hide.
const WILD: &str = "x\u{1b}[31m\u{7}\n2026 ERROR forged\u{9b}2J\u{202e}\u{200b}y";

/// Output that a terminal shows as it is: no line is forged, nothing moves the cursor, turns or
/// hides.
#[track_caller]
fn assert_tame(what: &str, text: &str) {
    let wild = |letter: char| (letter.is_control() && letter != '\n') || "\u{202e}\u{200b}".contains(letter);
    assert!(!text.contains(wild), "{what}: {text:?}");
    assert!(text.lines().all(|line| !line.starts_with("2026 ERROR")), "{what}: {text:?}");
}

#[tokio::test]
async fn foreign_text_is_shown_tame_by_every_command_and_in_logs_and_kept_whole_in_json() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let message = json!({ "message": WILD }).to_string();
    let kicked = demo
        .run(&["kiq", "demo.fail", "--args", &message, "--id", WILD, "--queue", WILD, "--wait", "1ms"])
        .await;
    assert_eq!(kicked.code, Some(3), "{kicked:?}");
    assert!(kicked.stdout.starts_with("x\\u{1b}[31m\\u{7}\\n2026"), "{kicked:?}");
    assert_tame("kiq", &format!("{}{}", kicked.stdout, kicked.stderr));
    let options = aioq::tasks::KickOptions::new().id("unknown").queue(WILD);
    client.kiq_by_name(WILD, &json!({}), options).await.unwrap();
    let mut events = demo.events(&["--queue", WILD]).await;
    let mut worker = demo.worker(&["--queues", WILD]).await;
    until_status(&demo, WILD, "failed").await;
    assert_tame("events", &events.next().await);
    worker.says("left to workers of a newer release").await;
    for command in [
        &["jobs", "list"][..],
        &["jobs", "get", WILD],
        &["jobs", "wait", WILD],
        &["jobs", "cancel", WILD, "no\u{1b}such"],
        &["jobs", "get", "no\u{1b}such"],
        &["dead", "list"],
        &["dead", "drop", "unknown"],
        &["queues"],
        &["resume", WILD],
        &["purge", WILD],
        &["workers"],
        &["doctor"],
        &["check"],
        &["jobs", "retry", WILD, "unknown"],
    ] {
        let ran = demo.run(command).await;
        assert!(!ran.stdout.is_empty() || !ran.stderr.is_empty() || command[1] == "retry", "{ran:?}");
        assert_tame(&format!("{command:?}"), &format!("{}{}", ran.stdout, ran.stderr));
    }
    assert_tame("the log of the worker", &worker.log());
    worker.kill().await;
    let json = demo.run(&["jobs", "get", WILD, "--json"]).await;
    let record = value(&json);
    assert_eq!(
        (&record["id"], &record["queue"], &record["args"]["message"]),
        (&json!(WILD), &json!(WILD), &json!(WILD))
    );
}

#[tokio::test]
async fn an_empty_list_says_so_to_people_and_exits_with_0() {
    let demo = Demo::new().await;
    for (command, none) in [
        (&["jobs", "list"][..], "no jobs\n"),
        (&["dead", "list"], "no dead letters\n"),
        (&["queues"], "no queues\n"),
        (&["workers"], "no workers\n"),
    ] {
        let ran = demo.run(command).await;
        assert_eq!((ran.lines(), ran.stderr.as_str()), (vec![], none));
        let ran = demo.run(&[command, &["--json"]].concat()).await;
        assert_eq!((ran.lines(), ran.stderr.as_str()), (vec!["[]"], ""));
    }
}
