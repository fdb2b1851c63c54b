//! The commands `check` and `tasks`, settings, and help.

use std::time::{Duration, Instant};

use aioq::broker::QueueDepth;
use aioq_tests::{Demo, NatsServer, demo_binary, run_demo};
use serde_json::{Value, json};

use crate::kiq::{ADD, assert_refused, dead_port, depth, job};

#[tokio::test]
async fn tasks_are_listed_without_a_server() {
    let ran = run_demo(&["tasks", "--json", "--nats", &format!("nats://127.0.0.1:{}", dead_port())]).await;
    let tasks: Vec<Value> = serde_json::from_str(ran.lines()[0]).unwrap();
    let names: Vec<_> = tasks.iter().map(|task| task["name"].as_str().unwrap()).collect();
    let wanted = "add append append_after_run append_flaky append_newest append_on_receive append_slow append_total \
                  echo exit fail flaky hog panic sleep spin";
    assert_eq!(names, wanted.split(' ').map(|name| format!("demo.{name}")).collect::<Vec<_>>());
    let [a, b] = ["a", "b"].map(|name| json!({ "name": name, "type": "i64", "required": true }));
    let add = tasks[0].as_object().unwrap();
    assert_eq!(
        (&add["params"], &add["queue"], &add["blocking"]),
        (&json!([a, b]), &json!("default"), &json!(false))
    );
    let flaky = &tasks[11];
    assert_eq!((&flaky["max_retries"], &flaky["blocking"]), (&json!(10), &json!(true)));
    assert_eq!(run_demo(&["tasks"]).await.lines().len(), 16);
}

#[tokio::test]
async fn no_log_level_tells_a_password() {
    let server = NatsServer::start_with(&["-js", "--user", "ann", "--pass", "xq7,zv9"]).await.unwrap();
    let url = server.url().replace("nats://", "nats://ann:xq7,zv9@");
    let mut command = tokio::process::Command::new(demo_binary().unwrap());
    command.args(["check", "--nats", &url]).env("RUST_LOG", "trace,async_nats=trace");
    let output = command.output().await.unwrap();
    let (out, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{log}");
    // Lines at info and above are still written.
    assert!(log.contains("connected successfully"), "{log}");
    assert!(!log.contains("xq7") && !log.contains("zv9"), "{log}");
}

#[tokio::test]
async fn check_says_what_is_well() {
    let demo = Demo::new().await;
    let ran = demo.run(&["check"]).await;
    assert!(ran.lines().iter().all(|line| line.starts_with("ok ")), "{ran:?}");
    assert!(ran.stdout.contains(demo.url()), "{ran:?}");
}

#[tokio::test]
async fn check_says_what_is_wrong() {
    let bare = NatsServer::start_with(&[]).await.unwrap();
    let ran = run_demo(&["check", "--nats", &bare.url()]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("`nats-server -js`") && ran.stdout.contains("BAD  backend"), "{ran:?}");

    let url = format!("nats://127.0.0.1:{}", dead_port());
    let started = Instant::now();
    let ran = run_demo(&["check", "--nats", &url]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains(&url) && ran.stdout.contains("BAD  backend"), "{ran:?}");
    // Why, and without waiting for it to change.
    assert!(ran.stderr.contains("onnection refused"), "{ran:?}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());

    let demo = Demo::new().await;
    let stream = format!("{}_JOBS", demo.prefix().to_ascii_uppercase());
    let subjects = vec![format!("{}.things", demo.prefix())];
    let raw = async_nats::jetstream::new(async_nats::connect(demo.url()).await.unwrap());
    let config =
        async_nats::jetstream::stream::Config { name: stream.clone(), subjects, ..Default::default() };
    raw.create_stream(config).await.unwrap();
    let ran = demo.run(&["check"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains(&stream) && ran.stderr.contains("owned by something else"), "{ran:?}");
}

#[tokio::test]
async fn check_and_the_worker_name_tasks_that_wait_and_are_not_known_here() {
    let demo = Demo::new().await;
    let client = demo.client().await;
    for _ in 0..2 {
        client.kiq_by_name("other.task", &json!({}), aioq::tasks::KickOptions::new()).await.unwrap();
    }
    let ran = demo.run(&["check"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("BAD  queue: ") && ran.stderr.contains("`other.task` (2 jobs)"), "{ran:?}");
    assert!(ran.stderr.contains("use my_tasks as _;"), "{ran:?}");
    let mut worker = demo.worker(&[]).await;
    worker.says("`other.task` (2 jobs)").await;
}

#[tokio::test]
async fn settings_come_from_the_flag_before_the_environment() {
    let demo = Demo::new().await;
    let dead = format!("nats://127.0.0.1:{}", dead_port());
    let kick = async |with: &[&str], environment: &[(&str, &str)]| {
        let mut command = std::process::Command::new(aioq_tests::demo_binary().unwrap());
        command.args(["kiq", "demo.add", "--args", ADD]).args(with).env("AIOQ_PREFIX", demo.prefix());
        command.envs(environment.iter().copied());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    kick(&[], &[("AIOQ_NATS", demo.url())]).await;
    kick(&["--nats", demo.url()], &[("AIOQ_NATS", &dead)]).await;
    assert_eq!(depth(&demo, "default").await.ready, 2);
}

#[tokio::test]
async fn every_command_has_help_and_the_program_a_version() {
    let version = run_demo(&["--version"]).await;
    assert_eq!(version.lines(), [format!("demo {}", env!("CARGO_PKG_VERSION"))]);
    assert!(run_demo(&["--help"]).await.lines().iter().any(|line| line.starts_with("Exit codes: ")));
    for command in ["worker", "kiq", "tasks", "jobs", "check", "doctor"] {
        let help = run_demo(&[command, "--help"]).await;
        assert!(help.lines().iter().any(|line| line.contains(&format!("Usage: demo {command}"))), "{help:?}");
    }
    assert_eq!(run_demo(&["--frobnicate"]).await.code, Some(2));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let url = format!("nats://ann:secret@127.0.0.1:{}", dead_port());
    let started = Instant::now();
    for args in [&["kiq", "demo.add", "--args", ADD][..], &["worker"], &["jobs", "get", "x"]] {
        let mut args = args.to_vec();
        args.extend(["--nats", &url]);
        let ran = run_demo(&args).await;
        assert_refused(&ran, &url.replace("ann:secret@", ""));
        assert!(!ran.stderr.contains("secret") && ran.stderr.contains("onnection refused"), "{ran:?}");
    }
    println!("three refusals took {:?}", started.elapsed());
}

#[tokio::test]
async fn prefixes_keep_programs_apart() {
    let (one, other) = (Demo::new().await, Demo::new().await);
    let id = one.kick("demo.add", ADD, &[]).await;
    let ran = other.run(&["jobs", "get", &id]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    let ran = other.run(&["worker", "--burst"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(job(&one, &id).await["status"], "pending");
    assert_eq!(depth(&other, "default").await, QueueDepth::new("default"));
}
