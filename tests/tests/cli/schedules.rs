//! The commands `schedules` and `scheduler`.

use aioq_tests::{Demo, run_demo, until};
use serde_json::{Value, json};

use crate::shared::{ADD, assert_done, assert_refused, value};

async fn shown(demo: &Demo, id: &str) -> Value {
    value(&demo.run(&["schedules", "show", id, "--json"]).await)
}

#[tokio::test]
async fn schedules_are_added_listed_paused_run_and_removed() {
    let demo = Demo::new().await;
    let add = async |args: &[&str]| demo.run(&[&["schedules", "add"], args].concat()).await;
    let monthly = ["monthly", "demo.add", "--cron", "0 6 1 * *", "--tz", "Europe/Paris", "--args", ADD];
    assert_eq!(add(&monthly).await.lines(), ["created"]);
    assert_eq!(add(&monthly).await.lines(), ["the same is there already"]);
    assert_eq!(add(&[&monthly[..], &["--missed", "once"]].concat()).await.lines(), ["changed"]);
    assert_eq!(
        add(&["often", "demo.add", "--every", "1h", "--args", ADD, "--overlap", "skip"]).await.lines(),
        ["created"]
    );

    let list = value(&demo.run(&["schedules", "--json"]).await);
    let ids: Vec<&Value> = list.as_array().unwrap().iter().map(|schedule| &schedule["id"]).collect();
    assert_eq!(ids, ["monthly", "often"]);
    for (field, expected) in [
        ("task", json!("demo.add")),
        ("queue", json!("default")),
        ("cron", json!("0 6 1 * *")),
        ("tz", json!("Europe/Paris")),
        ("every_seconds", Value::Null),
        ("missed", json!("once")),
        ("overlap", json!("allow")),
        ("source", json!("api")),
        ("state", json!("active")),
        ("fired", json!(0)),
    ] {
        assert_eq!(list[0][field], expected, "{field}");
    }
    assert_eq!(list[1]["every_seconds"], 3600.0);
    let table = demo.run(&["schedules", "list", "--task", "demo.add"]).await;
    assert!(table.lines()[0].starts_with("ID       TASK      WHEN       ZONE"), "{}", table.stdout);

    let next = shown(&demo, "monthly").await["next"].clone();
    assert_eq!(next.as_array().unwrap().len(), 5);
    let people = demo.run(&["schedules", "show", "monthly"]).await;
    assert!(
        people.stdout.contains("next       ") && people.stdout.contains(" 06:00:00 CE"),
        "{}",
        people.stdout
    );

    assert_done(&demo.run(&["schedules", "pause", "monthly", "often"]).await);
    assert_eq!(shown(&demo, "often").await["state"], "paused");
    assert_refused(&demo.run(&["schedules", "pause", "often"]).await, 1, &["`often` is paused already"]);
    let ran = demo.run(&["schedules", "run", "often"]).await;
    assert_eq!(value(&demo.run(&["jobs", "get", ran.lines()[0], "--json"]).await)["task"], "demo.add");
    assert_done(&demo.run(&["schedules", "resume", "often"]).await);
    assert_done(&demo.run(&["schedules", "remove", "often", "monthly"]).await);
    assert_refused(&demo.run(&["schedules", "remove", "often"]).await, 1, &["no schedule `often`"]);
    assert_eq!(demo.run(&["schedules", "--json"]).await.lines(), ["[]"]);
}

#[tokio::test]
async fn what_cannot_be_scheduled_exits_with_2_and_says_why() {
    let refusals: [(&[&str], &str); 9] = [
        (&["next", "0 0 30 2 *"], "never comes"),
        (&["next", "0 3 * *"], "4 of 5 fields"),
        (&["next", "0 3 * * *", "--tz", "Berlin"], "did you mean \"Europe/Berlin\"?"),
        (&["next", "0 3 * * *", "--from", "now"], "invalid timestamp"),
        (&["add", "s", "demo.add", "--every", "5ms", "--args", ADD], "at most once a second"),
        (&["add", "s", "demo.add", "--args", ADD], "--every <TIME>"),
        (&["add", "s", "demo.add", "--every", "5s"], "missing argument `a`"),
        (&["add", "s", "demo.ad", "--every", "5s"], "did you mean `demo.add`?"),
        (&["add", "s", "demo.add", "--at", "2020-01-01T00:00:00Z", "--args", ADD], "has passed"),
    ];
    for (args, why) in refusals {
        let ran = run_demo(&[&["schedules"], args, &["--memory"]].concat()).await;
        assert_refused(&ran, 2, &[why]);
    }
}

#[tokio::test]
async fn an_expression_is_explained_without_a_server() {
    let next = [
        "schedules",
        "next",
        "30 2 * * *",
        "--tz",
        "Europe/Berlin",
        "--from",
        "2027-03-27T00:00:00Z",
        "-n",
        "2",
    ];
    let ran = run_demo(&[&next[..], &["--nats", "nats://127.0.0.1:1"]].concat()).await;
    assert_eq!(
        ran.lines(),
        ["2027-03-27T01:30:00Z  2027-03-27 02:30:00 CET", "2027-03-28T01:00:00Z  2027-03-28 03:00:00 CEST"]
    );
    let json = run_demo(&[&next[..], &["--json"]].concat()).await;
    assert_eq!(value(&json), json!(["2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z"]));
}

#[tokio::test]
async fn a_scheduler_fires_what_workers_without_one_run() {
    let demo = Demo::new().await.of_clockwork();
    let worker = demo.worker(&["--no-scheduler"]).await;
    let scheduler = demo.start(&["scheduler"]);
    let fired = async || {
        let ran = demo.run(&["schedules", "show", "beat", "--json"]).await;
        ran.code == Some(0) && value(&ran)["fired"].as_u64().unwrap() >= 2
    };
    until("the schedule in the code has ticked", fired).await;
    let beat = shown(&demo, "beat").await;
    assert_eq!((&beat["source"], &beat["state"]), (&json!("code"), &json!("active")));
    let job = beat["recent"][0]["job"].as_str().unwrap().to_owned();
    until("its job has run", async || {
        value(&demo.run(&["jobs", "get", &job, "--json"]).await)["status"] == "completed"
    })
    .await;
    assert_refused(
        &demo.run(&["schedules", "remove", "beat"]).await,
        1,
        &["it is in the code of task `beat`"],
    );
    assert_eq!(scheduler.interrupt().await, Some(0));
    worker.stop().await;
    let doctor = demo.run(&["doctor", "--json"]).await;
    assert!(doctor.stdout.contains("\"about\":\"schedules\""), "{}", doctor.stdout);
}
