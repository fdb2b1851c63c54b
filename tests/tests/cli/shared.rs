//! Commands on jobs, and their output, as several modules check them.

use aioq_tests::{Demo, Ran, until};
use serde_json::{Value, json};

pub(crate) const ADD: &str = r#"{"a": 1, "b": 2}"#;

/// Names that a server, a shell or a file system would trip over.
pub(crate) const ODD: [&str; 6] = ["a.b.c", "two words", "*", ">", "größe ✓", "50%/x"];

/// The one JSON value that a command printed.
#[track_caller]
pub(crate) fn value(ran: &Ran) -> Value {
    let [line] = ran.lines()[..] else { panic!("{ran:?}") };
    serde_json::from_str(line).unwrap()
}

#[track_caller]
pub(crate) fn ids(ran: &Ran) -> Vec<String> {
    let rows = value(ran);
    rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// A command that went well and had nothing to say.
#[track_caller]
pub(crate) fn assert_done(ran: &Ran) {
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
}

/// A command that was refused with that exit code, one line for each of these.
#[track_caller]
pub(crate) fn assert_refused(ran: &Ran, code: i32, why: &[&str]) {
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
    for why in why {
        assert!(ran.stderr.contains(why), "`{why}` in {}", ran.stderr);
    }
}

pub(crate) async fn job(demo: &Demo, id: &str) -> Value {
    value(&demo.run(&["jobs", "get", id, "--json"]).await)
}

pub(crate) async fn status(demo: &Demo, id: &str) -> String {
    job(demo, id).await["status"].as_str().unwrap().to_owned()
}

pub(crate) async fn until_status(demo: &Demo, id: &str, wanted: &str) {
    until(wanted, async || status(demo, id).await == wanted).await;
}

/// Kicks a job and lets it run to its end.
pub(crate) async fn ran(demo: &Demo, task: &str, args: &str) -> String {
    let id = demo.kick(task, args, &[]).await;
    demo.run(&["worker", "--burst"]).await.lines();
    id
}

pub(crate) async fn failed(demo: &Demo, message: &str) -> String {
    let id = ran(demo, "demo.fail", &json!({ "message": message }).to_string()).await;
    assert_eq!(status(demo, &id).await, "failed");
    id
}
