//! The command `kiq`: printed ids and results, refusals, and options of a job.

use aioq::broker::QueueDepth;
use aioq_tests::{Demo, Ran, until_within};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

pub(crate) const ADD: &str = r#"{"a": 1, "b": 2}"#;

/// The objects that a command printed, one per line.
fn objects(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) async fn job(demo: &Demo, id: &str) -> Value {
    serde_json::from_str(demo.run(&["jobs", "get", id, "--json"]).await.lines()[0]).unwrap()
}

pub(crate) async fn depth(demo: &Demo, queue: &str) -> QueueDepth {
    demo.client().await.backend().broker().depths(&[queue.to_owned()]).await.unwrap().remove(0)
}

#[track_caller]
pub(crate) fn assert_refused(ran: &Ran, why: &str) {
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
    assert!(ran.stderr.contains(why), "`{why}` in {}", ran.stderr);
}

/// Nobody listens there.
pub(crate) fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_id_is_printed_and_with_wait_the_result_on_the_next_line() {
    let demo = Demo::new().await;
    let _worker = demo.worker(&[]).await;
    let ran = demo.run(&["kiq", "demo.add", "--args", ADD]).await;
    let [id] = ran.lines()[..] else { panic!("{ran:?}") };
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!(ran.stderr, "");

    let ran = demo.run(&["kiq", "demo.add", "--args", ADD, "--wait"]).await;
    let [id, "3"] = ran.lines()[..] else { panic!("{ran:?}") };
    assert_eq!((job(&demo, id).await["result"].clone(), ran.stderr.as_str()), (json!(3), ""));

    let value = json!({ "value": { "a": [1, null, "ä\n"] } });
    let ran = demo.run(&["kiq", "demo.echo", "--args", &value.to_string(), "--wait", "30s"]).await;
    let [_, result] = ran.lines()[..] else { panic!("{ran:?}") };
    assert_eq!(serde_json::from_str::<Value>(result).unwrap(), value["value"]);
}

#[tokio::test]
async fn a_result_of_nothing_is_null() {
    let demo = Demo::new().await;
    let _worker = demo.worker(&[]).await;
    let ran = demo.run(&["kiq", "demo.sleep", "--args", r#"{"ms": 1}"#, "--wait"]).await;
    assert_eq!(ran.lines()[1..], ["null"]);
}

#[tokio::test]
async fn json_is_an_object_with_id_status_result_and_error() {
    let demo = Demo::new().await;
    let ran = demo.run(&["kiq", "demo.add", "--args", ADD, "--json"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let [waiting] = &objects(&ran)[..] else { panic!("{ran:?}") };
    let id = waiting["id"].as_str().unwrap();
    assert_eq!(*waiting, json!({ "id": id, "status": "pending", "result": null, "error": null }));

    let _worker = demo.worker(&[]).await;
    let ran = demo.run(&["kiq", "demo.add", "--args", ADD, "--json", "--wait"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let [done] = &objects(&ran)[..] else { panic!("{ran:?}") };
    assert_eq!(*done, json!({ "id": done["id"], "status": "completed", "result": 3, "error": null }));

    let ran = demo.run(&["kiq", "demo.fail", "--args", r#"{"message": "no"}"#, "--json", "--wait"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let [failed] = &objects(&ran)[..] else { panic!("{ran:?}") };
    let error = json!({ "type": "Failure", "module": "demo", "message": "no", "chain": [] });
    assert_eq!(*failed, json!({ "id": failed["id"], "status": "failed", "result": null, "error": error }));
}

#[tokio::test]
async fn a_failed_job_exits_with_1_and_says_why_on_standard_error() {
    let demo = Demo::new().await;
    let _worker = demo.worker(&[]).await;
    let ran = demo.run(&["kiq", "demo.fail", "--args", r#"{"message": "no luck"}"#, "--wait"]).await;
    let id = ran.stdout.trim_end();
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(1), 1), "{ran:?}");
    assert_eq!(ran.stderr, format!("error: job `{id}` failed: Failure: no luck\n"));

    let ran = demo.run(&["kiq", "demo.panic", "--wait"]).await;
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(1), 1), "{ran:?}");
    assert!(ran.stderr.contains("this task panics"), "{ran:?}");
    assert_eq!(job(&demo, ran.stdout.trim_end()).await["reason"], "panic");
}

#[tokio::test]
async fn a_wait_that_is_over_exits_with_3_and_says_that_nobody_listens() {
    let demo = Demo::new().await;
    let ran = demo.run(&["kiq", "demo.add", "--args", ADD, "--wait", "200ms"]).await;
    let id = ran.stdout.trim_end();
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(3), 1), "{ran:?}");
    assert!(ran.stderr.contains("no live worker consumes the queue `default`"), "{ran:?}");
    assert!(ran.stderr.contains(&format!("`{id}` has not ended in time, it is pending")), "{ran:?}");

    let ran = demo.run(&["kiq", "demo.add", "--args", ADD, "--wait", "200ms", "--json"]).await;
    assert_eq!((ran.code, &objects(&ran)[0]["status"]), (Some(3), &json!("pending")), "{ran:?}");
}

#[tokio::test]
async fn what_is_wrong_is_refused_before_anything_is_sent() {
    let demo = Demo::new().await;
    let kiq = async |args: &[&str]| demo.run(&[&["kiq"], args].concat()).await;
    assert_refused(&kiq(&["demo.ad", "--args", ADD]).await, "did you mean `demo.add`?");
    assert_refused(&kiq(&["demo.add", "--args", r#"{"a": 1}"#]).await, "missing argument `b`");
    assert_refused(
        &kiq(&["demo.add", "--args", r#"{"a": 1, "b": "x"}"#]).await,
        "argument `b` does not fit i64",
    );
    assert_refused(
        &kiq(&["demo.add", "--args", r#"{"a": 1, "b": 2, "c": 3}"#]).await,
        "unexpected argument `c`",
    );
    assert_refused(&kiq(&["demo.add", "--args", "{nope"]).await, "not JSON");
    assert_refused(&kiq(&["demo.add", "--args", "[1, 2]"]).await, "");
    assert_refused(&kiq(&["demo.add", "--args", ADD, "--priority", "10"]).await, "priority");
    assert_refused(&kiq(&["demo.add", "--args", ADD, "--delay", "soon"]).await, "delay");
    assert_refused(&kiq(&["demo.add", "--args", ADD, "--at", "tomorrow"]).await, "tomorrow");
    assert_refused(&kiq(&["demo.add", "--args", ADD, "--label", "nope"]).await, "name=value");
    assert_refused(&kiq(&["demo.add", "--args", ADD, "--count", "0"]).await, "--count");
    assert_refused(&kiq(&["demo.add", "--args", ADD, "--count", "2", "--id", "x"]).await, "--id");
    assert_refused(&kiq(&["demo.add", "--args", ADD, "--id", ""]).await, "id");
    assert_refused(&kiq(&["demo.add", "--args", ADD, "--queue", ""]).await, "queue");
    assert_refused(&kiq(&["demo.add", "--args", ADD, "--args-file", "x"]).await, "--args-file");
    assert_refused(&kiq(&["demo.add", "--args-file", "/no/such/file"]).await, "/no/such/file");
    assert_refused(&kiq(&["demo.add", "--frobnicate"]).await, "--frobnicate");
    assert_refused(&kiq(&[]).await, "<NAME>");
    assert_eq!(depth(&demo, "default").await, QueueDepth::new("default"));
}

#[tokio::test]
async fn one_bad_line_of_a_file_keeps_all_from_being_sent() {
    let demo = Demo::new().await;
    let file = demo.path("calls");
    let args = ["kiq", "demo.add", "--args-file", file.to_str().unwrap()];
    std::fs::write(&file, format!("{ADD}\n\n{{nope\n")).unwrap();
    assert_refused(&demo.run(&args).await, &format!("{}:3", file.display()));
    std::fs::write(&file, format!("{ADD}\n{ADD}\n{{\"a\": 1}}\n")).unwrap();
    assert_refused(&demo.run(&args).await, "call 3: missing argument `b`");
    assert_eq!(depth(&demo, "default").await, QueueDepth::new("default"));
}

#[tokio::test]
async fn a_file_of_arguments_is_a_job_per_line_with_results_in_order() {
    let demo = Demo::new().await;
    let _worker = demo.worker(&[]).await;
    let file = demo.path("calls");
    let lines: Vec<_> = (0..50).map(|n| json!({ "a": n, "b": 100 }).to_string()).collect();
    std::fs::write(&file, lines.join("\n\n")).unwrap();
    let ran = demo.run(&["kiq", "demo.add", "--args-file", file.to_str().unwrap(), "--wait"]).await;
    let (ids, results) = (&ran.lines()[..50], &ran.lines()[50..]);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 50);
    assert_eq!(results, (100..150).map(|sum| sum.to_string()).collect::<Vec<_>>());

    let ran = demo.run(&["kiq", "demo.add", "--args-file", file.to_str().unwrap(), "--wait", "--json"]).await;
    let results: Vec<_> = objects(&ran).iter().map(|job| job["result"].as_u64().unwrap()).collect();
    assert_eq!((ran.code, results), (Some(0), (100..150).collect()));
}

#[tokio::test]
async fn count_kicks_copies() {
    let demo = Demo::new().await;
    let ran = demo.run(&["kiq", "demo.add", "--args", ADD, "--count", "1500"]).await;
    assert_eq!(ran.lines().iter().collect::<HashSet<_>>().len(), 1500);
    assert_eq!(depth(&demo, "default").await.ready, 1500);
    let ran = demo.run(&["worker", "--burst"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(depth(&demo, "default").await, QueueDepth::new("default"));
}

#[tokio::test]
async fn untyped_sends_what_would_be_refused() {
    let demo = Demo::new().await;
    let ran =
        demo.run(&["kiq", "other.task", "--args", r#"{"x": 1}"#, "--queue", "other", "--untyped"]).await;
    let other = job(&demo, ran.lines()[0]).await;
    assert_eq!((&other["task"], &other["status"]), (&json!("other.task"), &json!("pending")));
    assert_eq!((&other["args"], depth(&demo, "other").await.ready), (&json!({ "x": 1 }), 1));

    let _worker = demo.worker(&["--patience", "0s"]).await;
    let ran = demo.run(&["kiq", "demo.add", "--args", r#"{"a": 1}"#, "--untyped", "--wait"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(job(&demo, ran.stdout.trim_end()).await["reason"], "bad_arguments");
}

#[tokio::test]
async fn an_id_is_kicked_once_while_it_waits_and_after_it_ended() {
    let demo = Demo::new().await;
    let ledger = demo.ledger();
    let args = json!({ "path": ledger.path(), "line": "once" }).to_string();
    for _ in 0..2 {
        assert_eq!(demo.kick("demo.append", &args, &["--id", "order/7 ü"]).await, "order/7 ü");
    }
    assert_eq!(depth(&demo, "default").await.ready, 1);
    let _worker = demo.worker(&[]).await;
    for _ in 0..2 {
        let ran = demo.run(&["kiq", "demo.append", "--args", &args, "--id", "order/7 ü", "--wait"]).await;
        assert_eq!(ran.lines(), ["order/7 ü", "null"]);
    }
    assert_eq!(ledger.lines(), ["once"]);
}

/// Kicks with this delay; the status right after, and how long the job then waited for its start.
async fn delayed(demo: &Demo, delay: &str) -> (Value, Duration) {
    let ran = demo.run(&["kiq", "demo.add", "--args", ADD, "--delay", delay, "--json"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let kicked = objects(&ran).remove(0);
    let client = demo.client().await;
    let handle = client.handle::<i64>(kicked["id"].as_str().unwrap()).await.unwrap();
    let record = tokio::time::timeout(Duration::from_secs(20), handle.wait()).await.unwrap().unwrap();
    assert_eq!(handle.get_result().await.unwrap(), 3);
    let waited = record.started_at.unwrap().since(record.kicked_at.unwrap());
    println!("a delay of {delay} took {waited:?}");
    (kicked["status"].clone(), waited)
}

#[tokio::test]
async fn a_delayed_job_is_scheduled_and_runs_when_it_is_due() {
    let demo = Demo::new().await;
    let _worker = demo.worker(&[]).await;
    let (status, waited) = delayed(&demo, "2500ms").await;
    assert!(waited >= Duration::from_millis(2500) && waited < Duration::from_secs(6), "{waited:?}");
    assert_eq!(status, "scheduled");
}

#[tokio::test]
async fn a_job_with_a_short_delay_is_scheduled_too() {
    let demo = Demo::new().await;
    let _worker = demo.worker(&[]).await;
    let (status, waited) = delayed(&demo, "1s").await;
    assert!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(4), "{waited:?}");
    assert_eq!(status, "scheduled");
}

#[tokio::test]
async fn options_reach_the_job() {
    let demo = Demo::new().await;
    let labels = ["--label", "team=growth", "--label", "sum=a=b"];
    let id =
        demo.kick("demo.add", ADD, &[&labels[..], &["--priority", "2", "--retries", "7"]].concat()).await;
    let found = job(&demo, &id).await;
    assert_eq!(found["labels"], json!({ "team": "growth", "sum": "a=b" }));
    assert_eq!((&found["priority"], &found["max_retries"]), (&json!(2), &json!(7)));
    let id = demo.kick("demo.add", ADD, &["--queue", "side"]).await;
    assert_eq!((&job(&demo, &id).await["queue"], depth(&demo, "side").await.ready), (&json!("side"), 1));
}

#[tokio::test]
async fn retries_are_runs_after_the_first() {
    let demo = Demo::new().await;
    let _worker = demo.worker(&[]).await;
    let args = ["kiq", "demo.fail", "--args", r#"{"message": "no"}"#, "--retries", "1", "--wait"];
    let ran = demo.run(&args).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let failed = job(&demo, ran.stdout.trim_end()).await;
    assert_eq!((&failed["attempt"], &failed["max_retries"]), (&json!(2), &json!(1)));
    assert_eq!((failed["errors"].as_array().unwrap().len(), &failed["dead_lettered"]), (2, &json!(true)));
}

#[tokio::test]
async fn a_timeout_ends_a_job_that_takes_too_long() {
    let demo = Demo::new().await;
    let _worker = demo.worker(&[]).await;
    let started = Instant::now();
    let ran =
        demo.run(&["kiq", "demo.sleep", "--args", r#"{"ms": 60000}"#, "--timeout", "100ms", "--wait"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
    let failed = job(&demo, ran.stdout.trim_end()).await;
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("failed"), &json!("timeout")));
}

#[tokio::test]
async fn a_high_priority_overtakes_all_but_what_is_in_flight_and_a_small_share() {
    let demo = Demo::new().await;
    let ledger = demo.ledger();
    for (line, priority, count) in [("low", "9", "100"), ("normal", "5", "100"), ("high", "0", "20")] {
        let args = json!({ "path": ledger.path(), "line": line }).to_string();
        demo.kick("demo.append", &args, &["--priority", priority, "--count", count]).await;
    }
    let ran = demo.run(&["worker", "--burst", "--concurrency", "1", "--blocking-threads", "1"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines = ledger.lines();
    let last = |line: &str| lines.iter().rposition(|other| other == line).unwrap();
    println!("the last high one was number {}, the last normal one {}", last("high"), last("normal"));
    assert!(lines.len() == 220 && last("high") < 40 && last("normal") < 180, "{lines:?}");
}

#[tokio::test]
async fn a_job_kicked_after_others_is_blocked_and_fails_or_runs_with_them() {
    let demo = Demo::new().await;
    let first = demo.kick("demo.add", r#"{"a": 1, "b": 2}"#, &[]).await;
    let second = demo.kick("demo.add", r#"{"a": 3, "b": 4}"#, &[]).await;
    let both = format!("{first},{second}");
    let sum = r#"{"a": 5, "b": 6}"#;
    let fails = demo.kick("demo.add", sum, &["--after", &both]).await;
    let runs = demo.kick("demo.add", sum, &["--after", &both, "--on-parent-failure", "run"]).await;
    let text = demo.run(&["jobs", "get", &fails]).await.stdout;
    let after = format!("after        {first} (pending), {second} (pending)");
    assert!(text.contains("blocked") && text.contains(&after), "{text:?}");
    let text = demo.run(&["jobs", "get", &first]).await.stdout;
    assert!(text.contains("before ") && text.contains(&format!("{runs} (blocked)")), "{text:?}");
    let object = demo.run(&["jobs", "get", &first, "--json"]).await.stdout;
    assert!(object.contains(r#""children_total":2"#) && !object.contains(r#""parents""#), "{object:?}");
    let tree = demo.run(&["jobs", "tree", &runs]).await.stdout;
    for line in [format!("{first}  demo.add  pending"), format!("  {fails}  demo.add  blocked")] {
        assert!(tree.lines().any(|other| other == line), "{tree}");
    }
    assert!(tree.contains("(see above)") && tree.lines().count() == 6, "{tree}");
    let tree = demo.run(&["jobs", "tree", &runs, "--limit", "2", "--json"]).await;
    assert!(tree.stdout.lines().count() == 2 && tree.stderr.contains("more than 2 jobs"), "{tree:?}");
    let blocked = demo.run(&["jobs", "list", "--status", "blocked", "--json"]).await;
    assert!(blocked.stdout.contains(&fails) && blocked.stdout.contains(&runs), "{blocked:?}");
    demo.run(&["jobs", "cancel", &second]).await.lines();
    let text = demo.run(&["jobs", "get", &fails]).await.stdout;
    assert!(text.contains(&format!("its parent `{second}` was cancelled")), "{text:?}");
    let worker = demo.worker(&[]).await;
    demo.run(&["jobs", "wait", &runs]).await.lines();
    worker.stop().await;
    let refused =
        demo.run(&["kiq", "demo.add", "--args", sum, "--after", "x", "--on-parent-failure", "no"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[tokio::test]
async fn a_second_kick_of_a_unique_key_names_the_first_job() {
    let demo = Demo::new().await;
    let flags = ["--unique-key", "sums", "--unique-for", "10m"];
    let id = demo.kick("demo.add", ADD, &flags).await;
    let again = demo.kick("demo.add", r#"{"a": 5, "b": 5}"#, &flags).await;
    assert_eq!(again, id);
    let text = demo.run(&["jobs", "get", &id]).await;
    assert!(text.lines().iter().any(|line| line.starts_with("unique key")), "{text:?}");
}

#[tokio::test]
async fn a_job_as_json_has_every_key_whatever_its_status() {
    let demo = Demo::new().await;
    let id = demo.kick("demo.add", ADD, &[]).await;
    let waiting = job(&demo, &id).await;
    let ran = demo.run(&["worker", "--burst"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let done = job(&demo, &id).await;
    let wanted = "args attempt dead_lettered depends_on error errors finished_at id kicked_at labels logs max_retries \
                  priority progress queue reason result run_at started_at status task unique_key worker_id";
    let mut wanted: Vec<_> = wanted.split_whitespace().collect();
    wanted.sort_unstable();
    for job in [&waiting, &done] {
        let mut keys: Vec<_> = job.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, wanted);
    }
    for key in ["args", "attempt", "id", "kicked_at", "labels", "max_retries", "priority", "queue", "task"] {
        assert_eq!(waiting[key], done[key], "{key}");
    }
    assert_eq!((&waiting["status"], &waiting["result"]), (&json!("pending"), &json!(null)));
    assert_eq!(
        (&done["status"], &done["result"], &done["attempt"]),
        (&json!("completed"), &json!(3), &json!(1))
    );
    assert_eq!((&done["args"], &done["error"]), (&json!({ "a": 1, "b": 2 }), &json!(null)));
    assert!(["started_at", "finished_at", "worker_id"].iter().all(|key| done[key].is_string()), "{done}");
    assert_eq!(job(&demo, &id).await, done, "two reads of an unchanged job are equal");

    let text = demo.run(&["jobs", "get", &id]).await;
    assert!(text.lines().contains(&"status       completed"), "{text:?}");
}

#[tokio::test]
async fn a_job_that_is_not_known_exits_with_1() {
    let demo = Demo::new().await;
    let ran = demo.run(&["jobs", "get", "nope", "--json"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.stderr.contains("job `nope`: no such job"), "{ran:?}");
}

#[tokio::test]
async fn a_waiting_job_is_seen_the_moment_the_command_returns() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    for _ in 0..20 {
        let id = demo.kick("demo.add", ADD, &[]).await;
        assert_eq!(client.jobs().get(&id.as_str().into()).await.unwrap().task, "demo.add");
    }
    until_within(Duration::from_secs(5), "all are there", async || depth(&demo, "default").await.ready == 20)
        .await;
}
