//! The commands `queues`, `pause`, `resume`, `purge` and `dead`, on NATS.

use aioq_tests::{Demo, Ran};
use serde_json::{Value, json};

use crate::shared::{
    ADD, ODD, assert_done, assert_refused, failed, ids, job, ran, status, until_status, value,
};

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
    let why = format!("job `{alive}`: is not a dead letter, its status is pending");
    assert_refused(&ran, 1, &[&format!("job `{one}`: is not a dead letter"), &why, "job `who`: no such job"]);
    let ran = demo.run(&["dead", "drop", &two, &alive, "who"]).await;
    assert_refused(&ran, 1, &[&format!("job `{alive}` is pending: it is not a dead letter"), "`who`"]);
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
async fn one_dead_letter_that_cannot_run_again_holds_up_no_other() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    let calls = demo.path("calls");
    std::fs::write(&calls, "{\"message\": \"no\"}\n".repeat(200)).unwrap();
    demo.run(&["kiq", "demo.fail", "--args-file", calls.to_str().unwrap()]).await.lines();
    let garbage = aioq::message::Envelope::new("garbage".into(), "default", &b"garbage"[..]);
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
