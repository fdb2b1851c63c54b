//! The tasks of another crate are in this binary.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn worker(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_two-crates-worker"));
    command.args(args).env_remove("AIOQ_NATS").output().unwrap()
}

#[test]
fn the_worker_runs_tasks_of_another_crate() {
    let args = r#"{"lines": [{"cents": 250, "count": 4}, {"cents": 1000, "count": 1}]}"#;
    let output = worker(&["kiq", "orders.total", "--args", args, "--wait", "--memory"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), printed.lines().nth(1)), (Some(0), Some("2000")));
}

#[test]
fn the_worker_consumes_the_queue_that_they_name() {
    let output = worker(&["check", "--memory"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && printed.contains("queues: default, orders"), "{printed}");
}
