//! The command `jobs`, on NATS.

use aioq_tests::Demo;
use serde_json::{Value, json};

use crate::shared::{ADD, assert_done, assert_refused, failed, ids, job, ran, status, until_status, value};

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
        &["is running", "use `jobs abort` to stop it"],
    );
    assert_refused(&demo.run(&["jobs", "remove", &sleeping]).await, 1, &[&sleeping, "is running"]);
    assert_done(&demo.run(&["jobs", "abort", &sleeping]).await);
    assert_eq!(status(&demo, &sleeping).await, "cancelled");
    assert_refused(
        &demo.run(&["jobs", "abort", &sleeping, "who"]).await,
        1,
        &["ended before it could be stopped", "`who`"],
    );

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
    assert_refused(&ran, 2, &["only those can be cleaned"]);
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
