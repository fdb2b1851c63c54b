//! The demo worker by its command line, in memory.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{Ran, run};
use tempfile::TempDir;

fn demo<const N: usize>(args: [&str; N]) -> Ran {
    run(env!("CARGO_BIN_EXE_demo"), args)
}

/// Kicks a task and waits for its result.
fn result_of(task: &str, args: &Value) -> Ran {
    demo(["kiq", task, "--args", &args.to_string(), "--memory", "--wait", "--json"])
}

#[test]
fn a_kick_prints_the_id_and_then_the_result() {
    let args = r#"{"a":1,"b":2}"#;
    let ran = demo(["kiq", "demo.add", "--args", args, "--memory"]);
    assert_eq!((ran.code, ran.lines().len()), (Some(0), 1), "{ran:?}");

    let ran = demo(["kiq", "demo.add", "--args", args, "--memory", "--wait", "--id", "sum"]);
    assert_eq!((ran.code, ran.lines()), (Some(0), vec!["sum", "3"]), "{ran:?}");

    let ran = demo(["kiq", "demo.add", "--args", args, "--memory", "--wait", "--id", "sum", "--json"]);
    assert_eq!(
        ran.json(),
        json!({"id": "sum", "status": "completed", "result": 3, "error": null}),
        "{ran:?}"
    );
}

#[test]
fn values_come_back_as_they_went() {
    let value =
        json!({"text": "é\n\u{1f980}", "numbers": [0, -1, 2.5, u64::MAX], "nothing": null, "": [[], {}]});
    assert_eq!(result_of("demo.echo", &json!({"value": value})).json()["result"], value);
}

#[test]
fn bodies_that_wait_block_or_spin_end() {
    for task in ["demo.sleep", "demo.spin", "demo.hog"] {
        assert_eq!(result_of(task, &json!({"ms": 1})).code, Some(0), "{task}");
    }
}

#[test]
fn a_failure_is_exit_code_1_and_says_why() {
    let ran = result_of("demo.fail", &json!({"message": "out of cheese"}));
    assert_eq!((ran.code, &ran.json()["status"]), (Some(1), &json!("failed")));
    let error = &ran.json()["error"];
    assert_eq!((&error["type"], &error["message"]), (&json!("Failure"), &json!("out of cheese")));

    let ran = result_of("demo.panic", &json!({}));
    assert_eq!((ran.code, &ran.json()["error"]["type"]), (Some(1), &json!("Panic")));

    let ran = result_of("demo.add", &json!({"a": i64::MAX, "b": 1}));
    assert_eq!((ran.code, &ran.json()["status"]), (Some(1), &json!("failed")));
}

#[test]
fn a_kick_that_does_not_fit_is_refused_and_named() {
    let refused = |task: &str, args: &str, words: &[&str]| {
        let ran = demo(["kiq", task, "--args", args, "--memory", "--wait"]);
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{ran:?}");
        assert!(words.iter().all(|word| ran.err.contains(word)), "{words:?}: {ran:?}");
    };
    refused("demo.ad", r#"{"a":1,"b":2}"#, &["`demo.ad`", "`demo.add`"]);
    refused("demo.add", r#"{"a":1}"#, &["missing argument `b`"]);
    refused("demo.add", r#"{"a":1,"b":2,"c":3}"#, &["unexpected argument `c`"]);
    refused("demo.add", r#"{"a":1,"b":"two"}"#, &["argument `b`", "i64"]);
    // Casts are for messages of other producers. The person who types the call can mend it.
    refused("demo.add", r#"{"a":1,"b":"2"}"#, &["argument `b`", r#"string "2""#]);
    refused("demo.add", "{", &["not JSON"]);
    refused("demo.add", "[1, 2]", &[]);
}

#[test]
fn what_has_not_ended_in_time_is_exit_code_3() {
    let ran = demo(["kiq", "demo.panic", "--memory", "--delay", "1h", "--wait", "10ms", "--json"]);
    assert_eq!((ran.code, &ran.json()["status"]), (Some(3), &json!("scheduled")), "{ran:?}");
}

#[test]
fn a_flaky_task_succeeds_after_its_failures() {
    let dir = TempDir::new().unwrap();
    let args = |key: &str, failures: u32| json!({"key": key, "failures": failures, "dir": dir.path()});
    let ran = result_of("demo.flaky", &args("steady", 0));
    assert_eq!((ran.code, &ran.json()["result"]), (Some(0), &json!(1)), "{ran:?}");

    // The count is kept in a file, so it goes on from process to process.
    let once = || {
        let args = args("flaky", 2).to_string();
        demo(["kiq", "demo.flaky", "--args", &args, "--retries", "0", "--memory", "--wait", "--json"])
    };
    assert_eq!((once().code, once().code), (Some(1), Some(1)));
    assert_eq!(once().json()["result"], json!(3));

    let ran = result_of("demo.flaky", &args("../outside", 0));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(!dir.path().with_file_name("outside").exists());
}

#[test]
fn a_kick_in_memory_waits_for_retries() {
    let dir = TempDir::new().unwrap();
    let ran = result_of("demo.flaky", &json!({"key": "flaky", "failures": 2, "dir": dir.path()}));
    assert_eq!((ran.code, &ran.json()["result"]), (Some(0), &json!(3)), "{ran:?}");
}

#[test]
fn lines_are_appended_to_the_ledger() {
    let dir = TempDir::new().unwrap();
    let ledger = dir.path().join("ledger");
    let args = |line: &str| json!({"path": ledger, "line": line}).to_string();
    let ran = demo(["kiq", "demo.append", "--args", &args("one"), "--count", "50", "--memory", "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let slow = json!({"path": ledger, "line": "two", "ms": 1});
    assert_eq!(result_of("demo.append_slow", &slow).code, Some(0));
    let written = std::fs::read_to_string(&ledger).unwrap();
    assert_eq!(written, format!("{}start two\nend two\n", "one\n".repeat(50)));
}

#[test]
fn a_poison_job_kills_its_process() {
    // Ended by a signal, so there is no exit code.
    assert_eq!(result_of("demo.exit", &json!({})).code, None);
}

#[test]
fn the_program_tells_of_its_tasks() {
    let listed = demo(["tasks", "--json"]).json();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|task| task["name"].as_str().unwrap()).collect();
    let all = "add append append_after_run append_flaky append_newest append_on_receive append_slow append_total \
               echo exit fail flaky hog panic sleep spin";
    assert_eq!(names, all.split(' ').map(|name| format!("demo.{name}")).collect::<Vec<_>>());
    assert_eq!(demo(["check", "--memory"]).code, Some(0));
}

#[test]
fn a_job_that_is_not_there_is_exit_code_1_and_a_server_exit_code_2() {
    let ran = demo(["jobs", "get", "nope", "--json", "--memory"]);
    assert_eq!((ran.code, ran.err.contains("`nope`")), (Some(1), true), "{ran:?}");
    // Nobody listens on port 1 of this machine.
    let ran = demo(["jobs", "get", "nope", "--nats", "nats://127.0.0.1:1"]);
    assert_eq!((ran.code, ran.err.contains("127.0.0.1:1")), (Some(2), true), "{ran:?}");
}

#[test]
fn a_worker_in_burst_mode_ends() {
    let ran = demo(["worker", "--memory", "--burst"]);
    assert_eq!((ran.code, &*ran.out), (Some(0), ""), "{ran:?}");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let help = demo(["worker", "--help"]).out.split_whitespace().collect::<Vec<_>>().join(" ");
    let variables: Vec<&str> =
        help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next()).collect();
    assert!(variables.len() >= 12 && variables.contains(&"AIOQ_GRACE"), "{help}");
    let mut worker = std::process::Command::new(env!("CARGO_BIN_EXE_demo"));
    worker.args(["worker", "--burst"]).env("RUST_LOG", "").env("AIOQ_FAULT", "");
    worker.envs(variables.iter().map(|name| (name, "")));
    let output = worker.output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && log.contains("worker stopped jobs=0"), "{log}");
}

#[test]
fn help_shows_what_holds_unless_it_is_said() {
    let help = demo(["worker", "--help"]).out;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for default in [
        "[default: `default`, and all that tasks name]",
        "[default: 100]",
        "[default: what the queue has, or 30s]",
        "[default: 30s]",
        "[default: 5]",
    ] {
        assert!(help.contains(default), "{default} in {help}");
    }
    assert!(demo(["kiq", "--help"]).out.contains("[default: 1]"));
}
