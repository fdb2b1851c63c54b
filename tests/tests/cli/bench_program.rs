//! The program `bench` of the workspace: each of its parts runs and prints lines of JSON.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().unwrap()
}

/// The lines that a part printed.
#[track_caller]
fn lines(args: &[&str]) -> Vec<Value> {
    let ran = bench(args);
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn assert_positive(line: &Value, fields: &[&str]) {
    let is_positive = |name: &&str| line[*name].as_f64().is_some_and(|number| number > 0.0);
    assert!(fields.iter().all(is_positive), "{fields:?} in {line}");
}

#[test]
fn it_has_the_command_of_every_worker_binary() {
    let lines = lines(&["bench", "drain", "--memory", "--jobs", "100", "--runs", "1", "--json"]);
    assert_eq!((lines.len(), &lines[0]["work"]), (1, &"drain".into()));
}

#[test]
fn growing_numbers_of_jobs_are_a_line_each_in_memory_and_on_a_server_of_its_own() {
    let lines = lines(&["grow", "--sizes", "100,200"]);
    let places: Vec<_> =
        lines.iter().map(|line| (line["backend"].as_str().unwrap(), &line["jobs"])).collect();
    let sizes = [&Value::from(100), &Value::from(200)];
    assert_eq!(places, [("memory", sizes[0]), ("memory", sizes[1]), ("nats", sizes[0]), ("nats", sizes[1])]);
    for line in &lines {
        assert_positive(line, &["bulk_us_per_job", "drain_us_per_job", "waiting_page_us", "ended_counts_us"]);
    }
}

#[test]
fn looking_and_steering_is_measured_among_many_records() {
    let lines = lines(&["look", "--memory", "--records", "50000"]);
    let works: Vec<_> = lines.iter().map(|line| line["work"].as_str().unwrap()).collect();
    let parts = ["page", "rare_page", "page_of_all", "counts", "cancel", "abort", "clean"];
    assert_eq!(works, parts.map(|part| format!("look_{part}")));
    lines.iter().for_each(|line| assert_positive(line, &["p50_us", "p99_us"]));
}

#[test]
fn many_queues_stand_beside_one() {
    let lines = lines(&["many-queues", "--queues", "5", "--jobs", "200"]);
    let queues: Vec<_> = lines.iter().map(|line| line["queues"].as_u64().unwrap()).collect();
    assert_eq!(queues, [1, 5, 1, 5]);
    lines.iter().for_each(|line| assert_positive(line, &["kick_jobs_per_s", "drain_jobs_per_s"]));
}

#[test]
fn async_jobs_are_measured_alone_and_beside_cpu_bound_ones() {
    let lines = lines(&["cpu", "--memory", "--jobs", "20", "--spins", "100", "--ms", "5"]);
    let programs: Vec<_> = lines
        .iter()
        .map(|line| (line["program"].as_str().unwrap(), line["spins"].as_u64().unwrap()))
        .collect();
    assert_eq!(programs, [("aioq", 0), ("aioq", 100), ("raw", 0), ("raw", 100)]);
    lines.iter().for_each(|line| assert_positive(line, &["p50_us", "p99_us"]));
    for beside in [&lines[1], &lines[3]] {
        assert_positive(beside, &["spins_per_s", "busy_percent"]);
    }
}

#[test]
fn a_waiting_job_takes_at_least_its_message() {
    let lines = lines(&["queued", "--jobs", "20000"]);
    assert!(lines[0]["bytes_per_job"].as_f64() > lines[0]["body_bytes"].as_f64(), "{lines:?}");
}

#[test]
fn unique_jobs_are_measured_beside_plain_ones_in_memory_and_on_a_server() {
    let lines = lines(&["unique", "--jobs", "600", "--runs", "100"]);
    let places: Vec<_> = lines.iter().map(|line| line["backend"].as_str().unwrap()).collect();
    assert_eq!(places, ["memory", "nats"]);
    for line in &lines {
        assert_positive(line, &["plain_kick_us", "unique_kick_us", "refused_kick_us"]);
        assert_positive(line, &["unique_kicks_per_s", "plain_drain_per_s", "unique_drain_per_s"]);
    }
}

#[test]
fn the_ladder_has_four_rungs_on_each_step() {
    for step in ["memory", "nats_synced", "nats_replicated"] {
        let lines = lines(&["ladder", "--on", step, "--jobs", "400", "--runs", "1", "--span", "100ms"]);
        let rungs: Vec<_> = lines.iter().map(|line| line["rung"].as_str().unwrap()).collect();
        assert_eq!(rungs, ["bare", "acknowledged", "results", "full"]);
        for line in &lines {
            assert_positive(line, &["drain_jobs_per_s", "most_jobs_per_s", "p50_us_at_10", "p99_us_at_90"]);
        }
    }
}

#[test]
fn nobody_could_work_off_what_is_seeded_in_memory() {
    let ran = bench(&["seed", "--memory"]);
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
}
