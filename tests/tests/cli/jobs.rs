//! Jobs, queues, dead letters, workers and events from the command line, on NATS: what is printed, what happens,
//! how it exits.

use std::net::TcpListener;

use aioq_tests::{Demo, Ran, run_demo, until};
use futures_util::future::join_all;
use serde_json::{Value, json};

const ADD: &str = r#"{"a": 1, "b": 2}"#;

/// Names that a server, a shell or a file system would trip over.
const ODD: [&str; 6] = ["a.b.c", "two words", "*", ">", "größe ✓", "50%/x"];

/// The one JSON value that a command printed.
#[track_caller]
fn value(ran: &Ran) -> Value {
    let [line] = ran.lines()[..] else { panic!("{ran:?}") };
    serde_json::from_str(line).unwrap()
}

#[track_caller]
fn ids(ran: &Ran) -> Vec<String> {
    let rows = value(ran);
    rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// A command that went well and had nothing to say.
#[track_caller]
fn assert_done(ran: &Ran) {
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
}

/// A command that was refused with that exit code, one line for each of these.
#[track_caller]
fn assert_refused(ran: &Ran, code: i32, why: &[&str]) {
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
    for why in why {
        assert!(ran.stderr.contains(why), "`{why}` in {}", ran.stderr);
    }
}

async fn job(demo: &Demo, id: &str) -> Value {
    value(&demo.run(&["jobs", "get", id, "--json"]).await)
}

async fn status(demo: &Demo, id: &str) -> String {
    job(demo, id).await["status"].as_str().unwrap().to_owned()
}

async fn until_status(demo: &Demo, id: &str, wanted: &str) {
    until(wanted, async || status(demo, id).await == wanted).await;
}

/// Kicks a job and lets it run to its end.
async fn ran(demo: &Demo, task: &str, args: &str) -> String {
    let id = demo.kick(task, args, &[]).await;
    demo.run(&["worker", "--burst"]).await.lines();
    id
}

async fn failed(demo: &Demo, message: &str) -> String {
    let id = ran(demo, "demo.fail", &json!({ "message": message }).to_string()).await;
    assert_eq!(status(demo, &id).await, "failed");
    id
}

#[tokio::test]
async fn a_list_is_an_array_of_records_the_latest_first() {
    let demo = Demo::new().await;
    let first = demo.kick("demo.add", ADD, &[]).await;
    let second = demo.kick("demo.sleep", r#"{"ms": 1}"#, &["--label", "team=blue"]).await;
    let later = demo.kick("demo.add", ADD, &["--queue", "mail", "--delay", "2h"]).await;
    let list = async |args: &[&str]| demo.run(&[&["jobs", "list"], args].concat()).await;

    let all = list(&["--json"]).await;
    assert_eq!((ids(&all), all.stderr.as_str()), (vec![later.clone(), second.clone(), first.clone()], ""));
    assert_eq!(value(&all)[1], job(&demo, &second).await);
    for (filter, expected) in [
        (&["--queue", "mail"][..], vec![&later]),
        (&["--task", "demo.add"], vec![&later, &first]),
        (&["--label", "team=blue"], vec![&second]),
        (&["--status", "scheduled"], vec![&later]),
        (&["--status", "delayed", "--status", "WAITING"], vec![&later, &second, &first]),
        (&["--status", "pending,running", "--task", "demo.add"], vec![&first]),
        (&["--status", "failed"], vec![]),
    ] {
        let listed = list(&[filter, &["--json"]].concat()).await;
        assert_eq!(ids(&listed).iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }

    let table = list(&[]).await;
    let [head, row, ..] = table.lines()[..] else { panic!("{table:?}") };
    let columns: Vec<_> = head.split_whitespace().collect();
    assert_eq!(columns, ["ID", "STATUS", "TASK", "QUEUE", "WHEN", "ATTEMPT", "DETAIL"]);
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(words, [&later, "scheduled", "demo.add", "mail", "in", "2", "h", "1/1", "-"]);
}

#[tokio::test]
async fn a_list_goes_on_from_its_cursor_to_the_end() {
    let demo = Demo::new().await;
    let file = demo.path("calls");
    std::fs::write(&file, format!("{ADD}\n").repeat(7)).unwrap();
    let kicked = demo.run(&["kiq", "demo.add", "--args-file", file.to_str().unwrap()]).await;
    let mut expected: Vec<_> = kicked.lines().into_iter().map(str::to_owned).collect();
    expected.reverse();

    let mut listed = Vec::new();
    let mut piece = demo.run(&["jobs", "list", "--json", "--limit", "3"]).await;
    while let Some(cursor) = piece.stderr.strip_prefix("next: ") {
        assert_eq!(ids(&piece).len(), 3);
        listed.extend(ids(&piece));
        piece = demo.run(&["jobs", "list", "--json", "--limit", "3", "--after", cursor.trim_end()]).await;
    }
    listed.extend(ids(&piece));
    assert_eq!((listed, piece.stderr.as_str()), (expected, ""));
    let table = demo.run(&["jobs", "list", "--limit", "3"]).await;
    assert!(table.lines().len() == 4 && table.stderr.starts_with("next: "), "{table:?}");
    assert_refused(&demo.run(&["jobs", "list", "--after", "nonsense"]).await, 2, &["no cursor"]);
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

#[tokio::test]
async fn a_job_is_shown_with_the_history_of_its_failures() {
    let demo = Demo::new().await;
    let id = failed(&demo, "no luck").await;
    let shown = demo.run(&["jobs", "get", &id]).await;
    let has = |start: &str, end: &str| {
        assert!(
            shown.lines().iter().any(|line| line.starts_with(start) && line.ends_with(end)),
            "{start} … {end} in {shown:?}"
        );
    };
    has("id           ", &id);
    has("status       ", "failed");
    has("dead letter  ", "yes");
    has("finished at  ", ")");
    has("error        ", "Failure: no luck");
    has("failure      attempt 1, ", ": Failure: no luck");
}

#[tokio::test]
async fn waiting_jobs_are_cancelled_and_nothing_else_is() {
    let demo = Demo::new().await;
    let done = ran(&demo, "demo.add", ADD).await;
    let (one, two) =
        (demo.kick("demo.add", ADD, &[]).await, demo.kick("demo.add", ADD, &["--delay", "1h"]).await);
    let three = demo.kick("demo.add", ADD, &[]).await;
    assert_done(&demo.run(&["jobs", "cancel", &one, &two]).await);
    assert_eq!(
        (status(&demo, &one).await, status(&demo, &two).await),
        ("cancelled".into(), "cancelled".into())
    );

    let again = demo.run(&["jobs", "cancel", &one, "who", &done, &three]).await;
    let refused = [format!("error: job `{one}` is cancelled"), format!("error: job `{done}` is completed")];
    assert_refused(&again, 1, &[&refused[0], &refused[1], "error: job `who`: no such job"]);
    assert_eq!(again.stderr.lines().count(), 3);
    assert_eq!(status(&demo, &three).await, "cancelled", "the others are done all the same");
}

#[tokio::test]
async fn a_running_job_is_aborted_and_one_that_does_not_listen_is_told_of() {
    let demo = Demo::new().await;
    let _worker = demo.worker(&[]).await;
    let sleeping = demo.kick("demo.sleep", r#"{"ms": 60000}"#, &[]).await;
    until_status(&demo, &sleeping, "running").await;
    assert_refused(
        &demo.run(&["jobs", "cancel", &sleeping]).await,
        1,
        &["is running", "`jobs abort` stops it"],
    );
    assert_refused(&demo.run(&["jobs", "remove", &sleeping]).await, 1, &[&sleeping, "is running"]);
    assert_done(&demo.run(&["jobs", "abort", &sleeping]).await);
    assert_eq!(status(&demo, &sleeping).await, "cancelled");
    assert_refused(&demo.run(&["jobs", "abort", &sleeping, "who"]).await, 1, &["it had ended", "`who`"]);

    let spinning = demo.kick("demo.spin", r#"{"ms": 8000}"#, &[]).await;
    until_status(&demo, &spinning, "running").await;
    let ran = demo.run(&["jobs", "abort", &spinning, "--timeout", "100ms"]).await;
    assert_refused(&ran, 1, &[&spinning, "has not ended in time"]);
    assert_refused(&demo.run(&["jobs", "abort", "x", "--timeout", "soon"]).await, 2, &["soon"]);
}

#[tokio::test]
async fn jobs_that_failed_run_again_and_others_do_not() {
    let demo = Demo::new().await;
    let (bad, good) = (failed(&demo, "once").await, ran(&demo, "demo.add", ADD).await);
    let ran = demo.run(&["jobs", "retry", &bad, &good, "who"]).await;
    assert_refused(&ran, 1, &[&format!("job `{good}` is completed"), "job `who`: no such job"]);
    assert_eq!(status(&demo, &bad).await, "pending");
}

#[tokio::test]
async fn removed_jobs_are_gone() {
    let demo = Demo::new().await;
    let (done, waiting) = (ran(&demo, "demo.add", ADD).await, demo.kick("demo.add", ADD, &[]).await);
    assert_done(&demo.run(&["jobs", "remove", &done, &waiting]).await);
    for id in [&done, &waiting] {
        assert_refused(&demo.run(&["jobs", "get", id]).await, 1, &[&format!("job `{id}`: no such job")]);
    }
    assert_refused(&demo.run(&["jobs", "remove", &done]).await, 1, &[&done]);
}

#[tokio::test]
async fn jobs_that_ended_long_enough_ago_are_cleaned() {
    let demo = Demo::new().await;
    demo.run(&["kiq", "demo.add", "--args", ADD, "--count", "3"]).await.lines();
    let bad = failed(&demo, "kept").await;
    let clean =
        async |args: &[&str]| demo.run(&[&["jobs", "clean", "--status", "success"], args].concat()).await;
    assert_eq!(clean(&["--older-than", "1h"]).await.lines(), ["forgot 0 jobs"]);
    assert_eq!(clean(&["--older-than", "0s", "--limit", "1"]).await.lines(), ["forgot 1 job"]);
    assert_eq!(clean(&["--older-than", "0s"]).await.lines(), ["forgot 2 jobs"]);
    assert_eq!(ids(&demo.run(&["jobs", "list", "--json"]).await), [bad]);
    assert_refused(&clean(&[]).await, 2, &["--older-than"]);
    let ran = demo.run(&["jobs", "clean", "--status", "pending", "--older-than", "1h"]).await;
    assert_refused(&ran, 2, &["only jobs that have ended"]);
}

#[tokio::test]
async fn waiting_for_jobs_prints_their_ends_in_order() {
    let demo = Demo::new().await;
    let (sum, bad) =
        (demo.kick("demo.add", ADD, &[]).await, demo.kick("demo.fail", r#"{"message": "no"}"#, &[]).await);
    let wait = ["jobs", "wait", &sum, &bad, "--json"];
    let work = async { demo.run(&["worker", "--burst"]).await.lines().len() };
    let (waited, _) = tokio::join!(demo.run(&wait), work);
    let objects: Vec<Value> = waited.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[0], json!({ "id": sum, "status": "completed", "result": 3, "error": null }));
    assert_eq!((waited.code, &objects[1]["error"]["message"]), (Some(1), &json!("no")), "{waited:?}");

    assert_eq!(demo.run(&["jobs", "wait", &sum, &sum]).await.lines(), ["3", "3"]);
    let waited = demo.run(&["jobs", "wait", &bad, "who"]).await;
    assert_refused(
        &waited,
        1,
        &[&format!("error: job `{bad}` failed: Failure: no"), "job `who`: no such job"],
    );
    let waiting = demo.kick("demo.add", ADD, &[]).await;
    let waited = demo.run(&["jobs", "wait", &waiting, "--timeout", "100ms"]).await;
    assert_refused(&waited, 3, &[&format!("job `{waiting}` has not ended in time, it is pending")]);
}

#[tokio::test]
async fn queues_are_counted_by_status() {
    let demo = Demo::new().await;
    failed(&demo, "x").await;
    demo.kick("demo.add", ADD, &[]).await;
    demo.kick("demo.add", ADD, &["--delay", "1h"]).await;
    demo.kick("demo.add", ADD, &["--queue", "mail"]).await;
    assert_done(&demo.run(&["pause", "mail"]).await);

    let queues = value(&demo.run(&["queues", "--json"]).await);
    let [first, mail] = &queues.as_array().unwrap()[..] else { panic!("{queues}") };
    assert_eq!(first["counts"], json!({ "pending": 1, "scheduled": 1, "failed": 1 }));
    let age = mail["oldest_age_seconds"].as_f64().unwrap();
    assert!((0.0..60.0).contains(&age), "{age}");
    let expected = json!({
        "queue": "mail", "depth": 1, "held": 0, "oldest_age_seconds": age, "paused": true, "counts": { "pending": 1 }
    });
    assert_eq!(*mail, expected);

    let table = demo.run(&["queues"]).await;
    let rows: Vec<Vec<_>> = table.lines().iter().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..5], ["QUEUE", "STATE", "OLDEST", "PENDING", "HELD"]);
    assert_eq!(
        (rows[1][..2].to_vec(), rows[2][..2].to_vec()),
        (vec!["default", "open"], vec!["mail", "paused"])
    );
    assert!(table.lines()[0].contains("PENDING") && rows.len() == 3, "{table:?}");
}

#[tokio::test]
async fn odd_names_of_queues_and_jobs_come_back_as_they_went() {
    let demo = Demo::new().await;
    for name in ODD {
        assert_eq!(demo.kick("demo.add", ADD, &["--queue", name, "--id", name]).await, name);
        assert_done(&demo.run(&["pause", name]).await);
    }
    let queues = value(&demo.run(&["queues", "--json"]).await);
    for name in ODD {
        let queue = queues.as_array().unwrap().iter().find(|queue| queue["queue"] == name);
        assert_eq!(
            (&queue.unwrap()["depth"], &queue.unwrap()["paused"]),
            (&json!(1), &json!(true)),
            "{name}"
        );
        assert_eq!(ids(&demo.run(&["jobs", "list", "--queue", name, "--json"]).await), [name]);
        assert_eq!(job(&demo, name).await["queue"], name);
        assert_done(&demo.run(&["resume", name]).await);
        assert_done(&demo.run(&["jobs", "cancel", name]).await);
        assert_done(&demo.run(&["jobs", "retry", name]).await);
        assert_eq!(demo.run(&["purge", name, "--yes"]).await.lines(), ["dropped 1 job"]);
    }
    assert_eq!(queues.as_array().unwrap().len(), ODD.len());
}

#[tokio::test]
async fn a_queue_is_purged_only_if_that_is_meant() {
    let demo = Demo::new().await;
    let done = ran(&demo, "demo.add", ADD).await;
    demo.run(&["kiq", "demo.add", "--args", ADD, "--count", "3"]).await.lines();
    demo.kick("demo.add", ADD, &["--delay", "1h"]).await;
    let other = demo.kick("demo.add", ADD, &["--queue", "mail"]).await;
    let ran = demo.run(&["purge", "default"]).await;
    assert_refused(&ran, 1, &["4 jobs of the queue `default` would be dropped", "--yes"]);
    assert_eq!(ids(&demo.run(&["jobs", "list", "--json"]).await).len(), 6);
    assert_eq!(demo.run(&["purge", "default", "--yes"]).await.lines(), ["dropped 4 jobs"]);
    let mut left = ids(&demo.run(&["jobs", "list", "--json"]).await);
    left.sort();
    assert_eq!(left, [done, other]);
    assert_eq!(demo.run(&["purge", "default", "--yes"]).await.lines(), ["dropped 0 jobs"]);
    assert_refused(&demo.run(&["purge", "never-used"]).await, 1, &["0 jobs of the queue `never-used`"]);
    assert_refused(&demo.run(&["purge", ""]).await, 2, &["a queue name has 1 to"]);
}

#[tokio::test]
async fn dead_letters_are_listed_replayed_and_dropped() {
    let demo = Demo::new().await;
    let (one, two) = (failed(&demo, "one").await, failed(&demo, "two").await);
    let three = failed(&demo, "three").await;
    let alive = demo.kick("demo.add", ADD, &[]).await;
    let list = async |args: &[&str]| demo.run(&[&["dead", "list", "--json"], args].concat()).await;

    let dead = list(&[]).await;
    assert_eq!(ids(&dead), [&*three, &two, &one]);
    assert_eq!(value(&dead)[2], job(&demo, &one).await);
    assert_eq!(ids(&list(&["--task", "demo.add"]).await), [""; 0]);
    assert_eq!(ids(&list(&["--status", "expired"]).await), [""; 0]);
    assert_eq!(ids(&list(&["--status", "failed", "--limit", "1"]).await), [&*three]);
    assert_eq!(demo.run(&["dead", "list"]).await.lines().len(), 4);

    assert_done(&demo.run(&["dead", "replay", &one]).await);
    assert_eq!(status(&demo, &one).await, "pending");
    let ran = demo.run(&["dead", "replay", &one, &alive, "who"]).await;
    let why = format!("job `{alive}`: is no dead letter, it is pending");
    assert_refused(&ran, 1, &[&format!("job `{one}`: is no dead letter"), &why, "job `who`: no such job"]);
    let ran = demo.run(&["dead", "drop", &two, &alive, "who"]).await;
    assert_refused(&ran, 1, &[&format!("job `{alive}` is pending: it is no dead letter"), "`who`"]);
    assert_eq!(ids(&list(&[]).await), [&*three]);
    assert_eq!(status(&demo, &alive).await, "pending", "it was left alone");
}

#[tokio::test]
async fn all_dead_letters_are_replayed_or_dropped_at_once() {
    let demo = Demo::new().await;
    for _ in 0..2 {
        failed(&demo, "x").await;
    }
    let panicked = ran(&demo, "demo.panic", "{}").await;
    let dead = async |args: &[&str]| demo.run(&[&["dead"], args].concat()).await;
    assert_eq!(dead(&["replay", "--all", "--queue", "mail"]).await.lines(), ["replayed 0 dead letters"]);
    assert_eq!(dead(&["replay", "--all", "--task", "demo.panic"]).await.lines(), ["replayed 1 dead letter"]);
    assert_eq!(status(&demo, &panicked).await, "pending");
    assert_eq!(dead(&["drop", "--all"]).await.lines(), ["dropped 2 dead letters"]);
    assert_eq!(ids(&dead(&["list", "--json"]).await), [""; 0]);
    for bad in [&["replay"][..], &["drop"], &["drop", "--queue", "q"], &["replay", "x", "--all"]] {
        assert_refused(&dead(bad).await, 2, &["--all"]);
    }
}

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
    assert!(String::from_utf8_lossy(&both.stderr).contains("contradict"));
}

/// Text that would forge a line, paint, ring, turn the direction of writing, hide.
const WILD: &str = "x\u{1b}[31m\u{7}\n2026 ERROR forged\u{9b}2J\u{202e}\u{200b}y";

/// Output that a terminal shows as it is: no line is forged, nothing moves the cursor, turns or hides.
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
    let options = aioq::KickOptions::new().id("unknown").queue(WILD);
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
async fn one_dead_letter_that_cannot_run_again_holds_up_no_other() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let calls = demo.path("calls");
    std::fs::write(&calls, "{\"message\": \"no\"}\n".repeat(200)).unwrap();
    demo.run(&["kiq", "demo.fail", "--args-file", calls.to_str().unwrap()]).await.lines();
    let garbage = aioq::Envelope::new("garbage".into(), "default", &b"garbage"[..]);
    client.backend().broker().kick(garbage, aioq::broker::Expect::Any).await.unwrap();
    demo.run(&["worker", "--burst"]).await.lines();
    assert_eq!(status(&demo, "garbage").await, "failed");

    let replayed = demo.run(&["dead", "replay", "--all"]).await;
    assert_eq!(
        (replayed.code, replayed.stdout.as_str()),
        (Some(1), "replayed 200 dead letters\n"),
        "{replayed:?}"
    );
    let [why] = replayed.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{replayed:?}") };
    assert!(why.starts_with("error: job `garbage`: cannot run again"), "{why}");
    let left = ids(&demo.run(&["dead", "list", "--json"]).await);
    assert_eq!(left, ["garbage"]);
}

#[tokio::test]
async fn a_job_that_expired_unseen_is_a_dead_letter_to_every_command() {
    let demo = Demo::new().await;
    let id = demo.kick("demo.add", ADD, &["--ttl", "1ms"]).await;
    until_status(&demo, &id, "expired").await;
    let record = job(&demo, &id).await;
    assert_eq!((&record["reason"], &record["dead_lettered"]), (&json!("expired"), &json!(true)));
    assert_eq!(ids(&demo.run(&["jobs", "list", "--status", "expired", "--json"]).await), [id.as_str()]);
    assert_eq!(ids(&demo.run(&["dead", "list", "--json"]).await), [id.as_str()]);
    let counts = value(&demo.run(&["queues", "--json"]).await)[0]["counts"].clone();
    assert_eq!(counts, json!({ "expired": 1 }));
    assert_done(&demo.run(&["dead", "replay", &id]).await);
    assert_eq!(status(&demo, &id).await, "pending");

    let dropped = demo.kick("demo.add", ADD, &["--ttl", "1ms"]).await;
    until_status(&demo, &dropped, "expired").await;
    assert_eq!(demo.run(&["dead", "drop", "--all"]).await.lines(), ["dropped 1 dead letter"]);
    assert_eq!(demo.run(&["jobs", "get", &dropped]).await.code, Some(1));
    assert_eq!(status(&demo, &id).await, "pending");
}

#[tokio::test]
async fn a_queue_that_is_misspelt_is_named_with_the_one_that_is_meant() {
    let demo = Demo::new().await;
    let warns = |ran: &Ran, queue: &str| {
        let warned = ran.stderr.contains(&format!("no task names the queue `{queue}`"));
        assert!(warned && ran.stderr.contains("did you mean `default`?"), "{ran:?}");
    };
    warns(&demo.run(&["worker", "--burst", "--queues", "Default"]).await, "Default");
    for command in [
        &["jobs", "list", "--queue", "dfault"][..],
        &["dead", "list", "--queue", "dfault"],
        &["dead", "replay", "--all", "--queue", "dfault"],
        &["purge", "dfault"],
        &["resume", "dfault"],
        &["kiq", "demo.add", "--args", ADD, "--queue", "dfault"],
        &["pause", "defualt"],
    ] {
        warns(&demo.run(command).await, if command[0] == "pause" { "defualt" } else { "dfault" });
    }
    // One that has jobs is no mistake; blanks around a name are none of it.
    let ran = demo.run(&["worker", "--burst", "--queues", " dfault , default "]).await;
    assert!(
        ran.stderr.contains("worker stopped jobs=1 ") && !ran.stderr.contains("no task names"),
        "{ran:?}"
    );
    assert_done(&demo.run(&["pause", " default "]).await);
    let queues = value(&demo.run(&["queues", "--json"]).await);
    let paused = |info: &&Value| info["paused"] == json!(true);
    let paused: Vec<_> =
        queues.as_array().unwrap().iter().filter(paused).map(|info| &info["queue"]).collect();
    assert_eq!(paused, ["default", "defualt"]);
}
