//! `doctor` on NATS: its findings on one server, on three, and after a change to a stream or a
//! consumer.

use std::time::Duration;

use aioq::Backend;
use aioq::broker::{Expect, Finding, Level};
use aioq_nats::Nats;
use aioq_tests::{Demo, NatsServer, Ran, run_demo, unique_prefix, until, until_within};
use serde_json::{Value, json};

use crate::support;
use crate::support::{TestListener, cluster, envelope, with_prefix};

async fn examine(backend: &Backend) -> Vec<Finding> {
    backend.broker().examine().await.unwrap()
}

/// The worst that is said about something, and all that is.
fn about(findings: &[Finding], key: &str) -> (Option<Level>, String) {
    let found: Vec<&Finding> = findings.iter().filter(|finding| finding.about == key).collect();
    let texts: Vec<&str> = found.iter().map(|finding| finding.text.as_str()).collect();
    (found.iter().map(|finding| finding.level).max(), texts.join(" "))
}

#[track_caller]
fn assert_about(findings: &[Finding], key: &str, level: Level, says: &[&str]) {
    let (found, text) = about(findings, key);
    assert_eq!(found, Some(level), "{key} in {findings:#?}");
    assert!(says.iter().all(|says| text.contains(says)), "{says:?} in {text}");
}

/// Asks JetStream past aioq.
async fn ask(url: &str, what: &str, request: &Value) -> Value {
    let client = async_nats::connect(url).await.unwrap();
    let answer = client.request(format!("$JS.API.{what}"), request.to_string().into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer["error"].is_null(), "{what}: {answer}");
    answer
}

/// Changes a setting of a stream, as an operator may.
async fn tamper(url: &str, prefix: &str, kind: &str, key: &str, value: Value) {
    let stream = format!("{}_{kind}", prefix.to_ascii_uppercase());
    let mut config = ask(url, &format!("STREAM.INFO.{stream}"), &Value::Null).await["config"].take();
    config[key] = value;
    ask(url, &format!("STREAM.UPDATE.{stream}"), &config).await;
}

#[tokio::test]
async fn one_server_has_no_warning_and_tells_what_a_loss_would_cost() {
    let (backend, ..) = with_prefix().await;
    let findings = examine(&backend).await;
    assert!(findings.iter().all(|finding| finding.level < Level::Warning), "{findings:#?}");
    assert_about(&findings, "process_crash", Level::Fine, &[]);
    assert_about(&findings, "power_loss", Level::Remark, &["cannot be read", "2 min"]);
    assert_about(&findings, "disk_loss", Level::Remark, &["one copy"]);
    assert_about(&findings, "node_loss", Level::Remark, &["only server"]);
    for key in [
        "server_version",
        "replicas",
        "stream_limits",
        "stream_settings",
        "duplicate_window",
        "consumers",
        "account_limits",
        "max_payload",
        "clock",
    ] {
        assert_about(&findings, key, Level::Fine, &[]);
    }
}

#[tokio::test]
async fn limits_that_somebody_set_are_warnings() {
    let (backend, prefix, url) = with_prefix().await;
    tamper(&url, &prefix, "JOBS", "max_msgs", json!(1000)).await;
    tamper(&url, &prefix, "RECORDS", "max_age", json!(3_600_000_000_000_u64)).await;
    let findings = examine(&backend).await;
    let says = ["_JOBS` holds at most 1000 messages", "drops the oldest", "_RECORDS` drops", "1 h"];
    assert_about(&findings, "stream_limits", Level::Warning, &says);
    assert_about(&findings, "stream_settings", Level::Fine, &[]);

    tamper(&url, &prefix, "JOBS", "max_msgs", json!(-1)).await;
    tamper(&url, &prefix, "RECORDS", "max_age", json!(0)).await;
    assert_about(&examine(&backend).await, "stream_limits", Level::Fine, &[]);
}

#[tokio::test]
async fn settings_that_somebody_changed_are_warnings() {
    let (backend, prefix, url) = with_prefix().await;
    tamper(&url, &prefix, "KV", "max_msgs_per_subject", json!(5)).await;
    tamper(&url, &prefix, "JOBS", "no_ack", json!(true)).await;
    let says = ["_KV`: `max_msgs_per_subject`", "_JOBS` has `no_ack`"];
    assert_about(&examine(&backend).await, "stream_settings", Level::Warning, &says);
}

#[tokio::test]
async fn consumers_are_counted_and_changed_ones_are_warnings() {
    let (backend, prefix, url) = with_prefix().await;
    let listener = TestListener::new(&backend, &["a b"]).await;
    assert_about(&examine(&backend).await, "consumers", Level::Fine, &["3 consumers for 1 queue", "30 s"]);

    let stream = format!("{}_JOBS", prefix.to_ascii_uppercase());
    let listed = ask(&url, &format!("CONSUMER.LIST.{stream}"), &json!({})).await;
    let mut config = listed["consumers"][0]["config"].clone();
    config["max_deliver"] = 3.into();
    let (name, filter) = (config["name"].as_str().unwrap(), config["filter_subject"].as_str().unwrap());
    let create = format!("CONSUMER.CREATE.{stream}.{name}.{filter}");
    ask(&url, &create, &json!({ "stream_name": stream, "action": "update", "config": config })).await;
    let stranger = json!({ "durable_name": "stranger", "ack_policy": "explicit",
        "filter_subject": format!("{prefix}.q.other.*.*") });
    let create = format!("CONSUMER.DURABLE.CREATE.{stream}.stranger");
    ask(&url, &create, &json!({ "stream_name": stream, "config": stranger })).await;
    let says = ["at most 3 times", "`stranger` is not one of aioq's"];
    assert_about(&examine(&backend).await, "consumers", Level::Warning, &says);
    drop(listener);
}

#[tokio::test]
async fn more_consumers_than_the_server_allows_are_seen_coming() {
    let server = NatsServer::start().await.unwrap();
    let backend: Backend = Nats::new(server.url()).into();
    support::start(&backend).await;
    let consumer = async |n: u32| {
        let name = format!("q{n}-high");
        let filter = format!("aioq.q.q{n}.high.*");
        let config = json!({ "durable_name": name, "ack_policy": "explicit", "filter_subject": filter,
            "max_deliver": -1, "ack_wait": 30_000_000_000_u64 });
        let request = json!({ "stream_name": "AIOQ_JOBS", "config": config });
        (format!("$JS.API.CONSUMER.CREATE.AIOQ_JOBS.{name}.{filter}"), request.to_string())
    };
    let client = async_nats::connect(server.url()).await.unwrap();
    let ask = async |what: &str, request: String| {
        let answer = client.request(what.to_owned(), request.into()).await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&answer.payload).unwrap()
    };
    // The same stream, with room for ten.
    let mut config = ask("$JS.API.STREAM.INFO.AIOQ_JOBS", String::new()).await["config"].take();
    ask("$JS.API.STREAM.DELETE.AIOQ_JOBS", String::new()).await;
    config["max_consumers"] = 10.into();
    let created = ask("$JS.API.STREAM.CREATE.AIOQ_JOBS", config.to_string()).await;
    assert!(created["error"].is_null(), "{created}");
    for n in 0..10 {
        let (what, request) = consumer(n).await;
        let answer = ask(&what, request).await;
        assert!(answer["error"].is_null(), "{n}: {answer}");
        match n + 1 {
            7 => assert_about(&examine(&backend).await, "consumers", Level::Fine, &["7 consumers"]),
            8 => assert_about(&examine(&backend).await, "consumers", Level::Warning, &["of 10"]),
            _ => {}
        }
    }
    // The limit that doctor reckons with is the server's.
    let (what, request) = consumer(10).await;
    let answer = ask(&what, request).await.to_string();
    assert!(answer.contains("maximum consumers limit reached"), "{answer}");
}

/// A server with this configuration, and a backend that knows the user `a`.
async fn configured(text: &str) -> (NatsServer, Backend) {
    let config = std::env::temp_dir().join(format!("{}.conf", unique_prefix()));
    std::fs::write(&config, text).unwrap();
    let server = NatsServer::start_with(&["-js", "-c", config.to_str().unwrap()]).await.unwrap();
    std::fs::remove_file(config).unwrap();
    let nats = Nats::new(server.url()).user_and_password("a", "a").deadline(Duration::from_secs(2));
    let backend = Backend::from(nats);
    support::start(&backend).await;
    (server, backend)
}

#[tokio::test]
async fn the_sync_interval_is_read_where_the_system_account_exports_it() {
    let service = "$SYS.REQ.SERVER.PING.JSZ";
    let text = format!(
        r#"jetstream {{ sync_interval: always }}
        accounts {{
          A: {{ jetstream: enabled, users: [{{ user: a, password: a }}],
               imports: [{{ service: {{ account: "$SYS", subject: "{service}" }} }}] }}
          $SYS: {{ users: [{{ user: s, password: s }}],
                  exports: [{{ service: "{service}", response_type: stream }}] }}
        }}"#
    );
    let (_server, backend) = configured(&text).await;
    let findings = examine(&backend).await;
    assert_about(&findings, "power_loss", Level::Fine, &["`sync_interval: always`"]);
}

#[tokio::test]
async fn what_the_credentials_do_not_allow_is_told_and_the_rest_is_found() {
    let (_server, backend) = configured(
        r#"authorization { users: [{ user: a, password: a, permissions: {
            publish: { deny: ["$SYS.>", "$JS.API.CONSUMER.LIST.>"] } } }] }"#,
    )
    .await;
    let findings = examine(&backend).await;
    assert_about(&findings, "power_loss", Level::Remark, &["cannot be read"]);
    assert_about(&findings, "consumers", Level::Remark, &["cannot be listed"]);
    assert_about(&findings, "clock", Level::Fine, &[]);
}

#[tokio::test]
async fn a_full_account_is_a_warning() {
    let text = "accounts { A: { jetstream: { max_store: 100KB }, users: [{ user: a, password: a }] } }";
    let (_server, backend) = configured(text).await;
    assert_about(&examine(&backend).await, "account_limits", Level::Fine, &["at most"]);
    let large = aioq::message::Envelope::new("1".into(), "q", vec![7; 85_000]);
    backend.broker().kick(large, Expect::Absent).await.unwrap();
    assert_about(&examine(&backend).await, "account_limits", Level::Warning, &["file storage"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_are_fine_until_one_dies() {
    let mut servers = cluster().await;
    let url = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let backend: Backend = Nats::new(&url).replicas(3).deadline(Duration::from_secs(30)).into();
    support::start(&backend).await;
    backend.broker().kick(envelope("1", "q"), Expect::Absent).await.unwrap();
    until("the copies are whole", async || {
        about(&examine(&backend).await, "replicas").0 == Some(Level::Fine)
    })
    .await;
    let findings = examine(&backend).await;
    assert!(findings.iter().all(|finding| finding.level < Level::Warning), "{findings:#?}");
    assert_about(&findings, "disk_loss", Level::Fine, &["3 copies"]);
    assert_about(&findings, "node_loss", Level::Fine, &["1 server"]);

    servers[2].kill();
    // An idle machine takes 10 s: elections, and until a server that says nothing counts as away.
    let says = ["1 of 3 copies", "_JOBS`", "_RECORDS`", "_KV`", "`n2`", "one more"];
    until_within(Duration::from_secs(100), "the loss is found", async || {
        let (level, text) = about(&examine(&backend).await, "replicas");
        level == Some(Level::Warning) && says.iter().all(|says| text.contains(says))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_copy_in_a_cluster_is_a_warning() {
    let servers = cluster().await;
    let url = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let connect =
        |replicas| Backend::from(Nats::new(&url).replicas(replicas).deadline(Duration::from_secs(30)));
    let backend = connect(1);
    support::start(&backend).await;
    let findings = examine(&backend).await;
    assert_about(&findings, "disk_loss", Level::Warning, &["one copy only", "`AIOQ_RECORDS`"]);
    assert_about(&findings, "node_loss", Level::Warning, &[]);
    assert_about(&findings, "replicas", Level::Fine, &[]);

    let backend = connect(3);
    support::start(&backend).await;
    let says = ["asks for 3 copies", "keeps 1 only"];
    assert_about(&examine(&backend).await, "replicas", Level::Warning, &says);
}

/// Output of `doctor --json`, and its exit code.
#[track_caller]
fn findings(ran: &Ran) -> (Option<i32>, Vec<Value>) {
    let [line] = ran.stdout.lines().collect::<Vec<_>>()[..] else { panic!("{ran:?}") };
    (ran.code, serde_json::from_str(line).unwrap())
}

#[track_caller]
fn listeners(ran: &Ran) -> (Option<i32>, String) {
    let (code, findings) = findings(ran);
    let found = findings.iter().find(|finding| finding["about"] == "listeners").unwrap();
    (code, found["level"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_command_prints_a_sign_per_finding_and_ends_well_without_a_warning() {
    let demo = Demo::new().await;
    let ran = demo.run(&["doctor"]).await;
    let lines = ran.lines();
    let signs = ["ok   ", "note ", "     -> "];
    assert!(lines.iter().all(|line| signs.iter().any(|sign| line.starts_with(sign))), "{ran:?}");
    assert!(lines.iter().any(|line| line.starts_with("note disk_loss: ")), "{ran:?}");
    assert!(!ran.stdout.contains('\u{1b}'), "{ran:?}");

    let (code, findings) = findings(&demo.run(&["doctor", "--json"]).await);
    assert_eq!(code, Some(0), "{findings:?}");
    for finding in findings {
        let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["about", "advice", "level", "text"], "{finding}");
        assert!(matches!(finding["level"].as_str(), Some("fine" | "remark")), "{finding}");
        assert!(finding["advice"].is_string() || finding["advice"].is_null(), "{finding}");
    }
}

#[tokio::test]
async fn a_warning_is_exit_code_1_and_no_server_exit_code_2() {
    let demo = Demo::new().await;
    demo.client().await.shutdown().await.unwrap();
    tamper(demo.url(), demo.prefix(), "JOBS", "max_age", json!(600_000_000_000_u64)).await;
    let ran = demo.run(&["doctor"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("WARN stream_limits: ") && ran.stdout.contains("--max-age=0"), "{ran:?}");

    let (code, findings) = findings(&run_demo(&["doctor", "--memory", "--json"]).await);
    assert_eq!((code, &findings[0]["level"]), (Some(1), &json!("warning")), "{findings:?}");
    assert_eq!(run_demo(&["doctor", "--nats", "nats://127.0.0.1:1"]).await.code, Some(2));
    assert_eq!(run_demo(&["doctor", "--frobnicate"]).await.code, Some(2));
}

#[tokio::test]
async fn jobs_that_nobody_takes_are_told_until_somebody_does() {
    let demo = Demo::new().await;
    let doctor = async || listeners(&demo.run(&["doctor", "--json"]).await);
    assert_eq!(doctor().await, (Some(0), "fine".to_owned()));
    demo.kick("demo.add", r#"{"a": 1, "b": 2}"#, &["--delay", "1h"]).await;
    assert_eq!(doctor().await, (Some(0), "remark".to_owned()));
    demo.kick("demo.add", r#"{"a": 1, "b": 2}"#, &[]).await;
    assert_eq!(doctor().await, (Some(1), "warning".to_owned()));
    demo.run(&["pause", "default"]).await.lines();
    assert_eq!(doctor().await, (Some(0), "remark".to_owned()));
    demo.run(&["resume", "default"]).await.lines();
    let worker = demo.worker(&[]).await;
    assert_eq!(doctor().await, (Some(0), "fine".to_owned()));
    worker.stop().await;
}
