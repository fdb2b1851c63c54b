//! Startup of a NATS backend, and its errors.

use std::time::Duration;

use aioq::broker::{Demand, Expect, Subscription};
use aioq::{Backend, ErrorKind};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, unique_prefix, until};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support;
use crate::support::envelope;

async fn startup_error(nats: Nats) -> aioq::Error {
    Backend::from(nats).broker().startup().await.unwrap_err()
}

#[tokio::test]
async fn nothing_works_before_startup_nor_after_shutdown() {
    let server = NatsServer::shared().await.unwrap();
    let backend: Backend = Nats::new(server.url()).prefix(unique_prefix()).into();
    let refused = async || {
        let kick = backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap_err();
        assert_eq!(kick.kind(), ErrorKind::NotStarted);
        let all = backend.broker().kick_all(vec![(envelope("a", "x"), Expect::Any)]).await;
        assert_eq!(all[0].as_ref().unwrap_err().kind(), ErrorKind::NotStarted);
        assert_eq!(backend.kv().get("a").await.unwrap_err().kind(), ErrorKind::NotStarted);
        assert_eq!(backend.jobs().unwrap().get(&"a".into()).await.unwrap_err().kind(), ErrorKind::NotStarted);
        assert!(backend.broker().listen(Subscription::new(["x"])).await.is_err());
    };
    let shutdown = async || {
        backend.broker().shutdown().await.unwrap();
        backend.jobs().unwrap().shutdown().await.unwrap();
        backend.kv().shutdown().await.unwrap();
    };
    refused().await;
    shutdown().await;
    for _ in 0..2 {
        support::start(&backend).await;
        support::start(&backend).await;
        backend.kv().put("a", "1".into(), Expect::Any, None).await.unwrap();
        let mut listener = backend.broker().listen(Subscription::new(["x"])).await.unwrap();
        listener.stop().await.unwrap();
        shutdown().await;
        shutdown().await;
        refused().await;
    }
}

#[tokio::test]
async fn what_was_acked_before_shutdown_stays_acked() {
    let (backend, prefix, url) = support::with_prefix().await;
    backend.broker().kick(envelope("a", "x"), Expect::Any).await.unwrap();
    support::next_one(&backend, "x").await.receipt.ack().await.unwrap();
    backend.broker().shutdown().await.unwrap();
    let other: Backend = Nats::new(url).prefix(prefix).into();
    support::start(&other).await;
    until("it is gone", async || other.broker().find(&"a".into()).await.unwrap().is_none()).await;
}

#[tokio::test]
async fn many_processes_may_start_up_at_once() {
    let (prefix, url) = (unique_prefix(), NatsServer::shared().await.unwrap().url());
    let starts = (0..12).map(|_| {
        let backend: Backend = Nats::new(&url).prefix(&prefix).into();
        tokio::spawn(async move {
            support::start(&backend).await;
            backend.broker().listen(Subscription::new(["x"])).await.map(|_| ())
        })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn prefixes_keep_programs_apart() {
    let (one, other) = (support::backend().await, support::backend().await);
    one.broker().kick(envelope("a", "x"), Expect::Absent).await.unwrap();
    one.kv().put("k", "1".into(), Expect::Any, None).await.unwrap();
    assert!(other.broker().find(&"a".into()).await.unwrap().is_none());
    assert!(other.kv().scan("").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("nats://ann:secret@127.0.0.1:{port}");
    let error = startup_error(Nats::new(url).deadline(Duration::from_millis(400))).await;
    assert_eq!(error.kind(), ErrorKind::Connection);
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("cannot reach NATS at nats://127.0.0.1:{port} within 400ms: ")),
        "{text}"
    );
    assert!(text.ends_with("is the server running?") && !text.contains("secret"), "{text}");
    assert!(text.contains("onnection refused"), "{text}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_if_any_url_asks_for_it() {
    let url = NatsServer::shared().await.unwrap().url();
    let secure = url.replace("nats://", "tls://");
    for list in [secure.clone(), format!("{url},{secure}")] {
        let error = startup_error(Nats::new(list).deadline(Duration::from_millis(500))).await;
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    }
}

#[tokio::test]
async fn a_server_that_comes_up_late_is_waited_for() {
    let mut server = NatsServer::start().await.unwrap();
    server.kill();
    let backend: Backend = Nats::new(server.url()).deadline(Duration::from_secs(15)).into();
    let (started, restarted) = tokio::join!(backend.broker().startup(), server.restart());
    restarted.unwrap();
    started.unwrap();
}

#[tokio::test]
async fn an_old_server_is_refused_by_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let serve = async {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let info = "INFO {\"server_id\":\"x\",\"version\":\"2.9.1\",\"headers\":true,\"jetstream\":true,\"max_payload\":1048576}\r\nPONG\r\n";
            client.write_all(info.as_bytes()).await.unwrap();
            tokio::spawn(async move {
                let mut client = client;
                tokio::io::copy(&mut client, &mut tokio::io::sink()).await
            });
        }
    };
    let error = tokio::select! {
        error = startup_error(Nats::new(&url)) => error,
        () = serve => unreachable!(),
    };
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.to_string(), format!("nats-server 2.9.1 at {url} is too old: aioq needs 2.14 or newer"));
}

#[tokio::test]
async fn a_server_without_jetstream_is_told_how_to_get_it() {
    let server = NatsServer::start_with(&[]).await.unwrap();
    let error = startup_error(Nats::new(server.url())).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`nats-server -js`"), "{error}");
}

#[tokio::test]
async fn wrong_credentials_are_refused_at_once() {
    let server = NatsServer::start_with(&["-js", "--user", "ann", "--pass", "secret"]).await.unwrap();
    let started = tokio::time::Instant::now();
    let error = startup_error(Nats::new(server.url()).user_and_password("ann", "wrong")).await;
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(started.elapsed() < Duration::from_secs(4));
    let backend: Backend = Nats::new(server.url()).user_and_password("ann", "secret").into();
    support::start(&backend).await;
    let with_url = server.url().replace("nats://", "nats://ann:secret@");
    support::start(&Nats::new(with_url).into()).await;
}

#[tokio::test]
async fn a_token_opens_a_server_that_asks_for_one() {
    let server = NatsServer::start_with(&["-js", "--auth", "t0ken"]).await.unwrap();
    support::start(&Nats::new(server.url()).token("t0ken").into()).await;
    let error = startup_error(Nats::new(server.url()).token("other")).await;
    assert!(!error.to_string().contains("other"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_missing_is_named() {
    for nats in
        [Nats::default().creds("/no/a"), Nats::default().nkey("/no/a"), Nats::default().tls_ca("/no/a")]
    {
        let error = startup_error(nats).await;
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("/no/a"), "{error}");
    }
}

#[tokio::test]
async fn a_prefix_that_is_no_token_is_refused() {
    for prefix in ["", "A", "a.b", "a*"] {
        assert_eq!(startup_error(Nats::default().prefix(prefix)).await.kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn streams_of_something_else_are_left_alone() {
    let server = NatsServer::shared().await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let create = async |name: String, subject: String, retention: &str| {
        let config =
            format!("{{\"name\":\"{name}\",\"subjects\":[\"{subject}\"],\"retention\":\"{retention}\"}}");
        let made =
            client.request(format!("$JS.API.STREAM.CREATE.{name}"), Bytes::from(config)).await.unwrap();
        assert!(!String::from_utf8_lossy(&made.payload).contains("error"), "{:?}", made.payload);
    };
    let same_name = unique_prefix();
    create(format!("{}_JOBS", same_name.to_uppercase()), format!("other.{same_name}"), "limits").await;
    let same_subjects = unique_prefix();
    create(unique_prefix(), format!("{same_subjects}.q.>"), "limits").await;
    for prefix in [same_name, same_subjects] {
        let error = startup_error(Nats::new(server.url()).prefix(&prefix)).await;
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("choose another prefix"), "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_lacks_a_flag_gets_it_and_keeps_what_was_tuned() {
    let server = NatsServer::shared().await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let prefix = unique_prefix();
    let name = format!("{}_JOBS", prefix.to_uppercase());
    let config = format!(
        "{{\"name\":\"{name}\",\"subjects\":[\"{prefix}.q.*.*.*\",\"{prefix}.s.*.*.*\",\"{prefix}.t.*.*.*\"],\
         \"retention\":\"workqueue\",\"description\":\"mine\"}}"
    );
    client.request(format!("$JS.API.STREAM.CREATE.{name}"), Bytes::from(config)).await.unwrap();
    let backend: Backend = Nats::new(server.url()).prefix(&prefix).into();
    support::start(&backend).await;
    let info = client.request(format!("$JS.API.STREAM.INFO.{name}"), Bytes::new()).await.unwrap();
    let info = String::from_utf8_lossy(&info.payload).into_owned();
    for part in ["\"description\":\"mine\"", "\"allow_msg_schedules\":true", "\"allow_msg_ttl\":true"] {
        assert!(info.contains(part), "{info}");
    }
    backend.broker().kick(envelope("a", "x"), Expect::Absent).await.unwrap();
    let mut listener = backend.broker().listen(Subscription::new(["x"])).await.unwrap();
    assert_eq!(listener.next(Demand { now: 1, prefetch: 0 }).await.unwrap().len(), 1);
}
