//! Credentials and rights on a NATS server.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aioq::broker::Expect;
use aioq::store::{JobRecord, Status};
use aioq::tasks::KickOptions;
use aioq::{Backend, ErrorKind};
use aioq_nats::Nats;
use aioq_tests::{Demo, NatsServer, PATIENCE, unique_prefix, until};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support;
use crate::support::envelope;

/// A directory for the files of a test, removed at its end.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let home = std::env::temp_dir().join(unique_prefix());
        std::fs::create_dir_all(&home).unwrap();
        Self(home)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        // In one step, as those who renew credentials do it.
        let draft = self.0.join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        path
    }

    /// A server with this configuration.
    async fn server(&self, configuration: &str) -> NatsServer {
        let path = self.write("server.conf", configuration);
        NatsServer::start_with(&["-js", "-c", path.to_str().unwrap()]).await.unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// The claims of `signer` about `subject`, as NATS writes them.
fn jwt(signer: &KeyPair, subject: &KeyPair, expires: Option<u64>, nats: &Value) -> String {
    let mut claims = json!({
        "jti": "x", "iat": now(), "iss": signer.public_key(), "name": "x", "sub": subject.public_key(), "nats": nats,
    });
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

/// An operator's account, whose users have JWTs.
struct Account {
    keys: KeyPair,
    user: KeyPair,
}

impl Account {
    /// The account, and the configuration of a server that knows it.
    fn new() -> (Self, String) {
        let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
        let account = Self { keys: KeyPair::new_account(), user: KeyPair::new_user() };
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
        });
        let plain = json!({ "type": "account", "version": 2 });
        let own = json!({ "limits": limits, "type": "account", "version": 2 });
        let [operator_jwt, system_jwt, own_jwt] = [
            jwt(&operator, &operator, None, &json!({ "type": "operator", "version": 2 })),
            jwt(&operator, &system, None, &plain),
            jwt(&operator, &account.keys, None, &own),
        ];
        let (system, own) = (system.public_key(), account.keys.public_key());
        let configuration = format!(
            "operator: {operator_jwt}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {system}: {system_jwt}, {own}: {own_jwt} }}\n"
        );
        (account, configuration)
    }

    /// The credentials file of its user.
    fn creds(&self, expires: Option<u64>) -> String {
        let claims = json!({
            "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2,
        });
        let (jwt, seed) = (jwt(&self.keys, &self.user, expires, &claims), self.user.seed().unwrap());
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

async fn kicks(backend: &Backend, id: &str) -> bool {
    backend.broker().kick(envelope(id, "x"), Expect::Any).await.is_ok()
}

#[tokio::test]
async fn credentials_that_were_renewed_before_they_expired_are_read_again() {
    let files = Files::new();
    let (account, configuration) = Account::new();
    let server = files.server(&configuration).await;
    let expires = now() + 2;
    let path = files.write("user.creds", &account.creds(Some(expires)));
    let backend: Backend = Nats::new(server.url()).creds(&path).into();
    support::start(&backend).await;
    files.write("user.creds", &account.creds(None));
    until("the first credentials have expired", async || now() > expires).await;
    until("a kick is confirmed", async || kicks(&backend, "a").await).await;

    // A client that connects with expired credentials gets an error that names their file.
    let old = files.write("old.creds", &account.creds(Some(now() - 10)));
    let error = refusal(Nats::new(server.url()).creds(&old)).await;
    assert!(error.kind() == ErrorKind::Connection && names(&error, &old), "{error}");
}

async fn refusal(nats: Nats) -> aioq::Error {
    Backend::from(nats).broker().startup().await.unwrap_err()
}

fn names(error: &aioq::Error, path: &Path) -> bool {
    error.to_string().contains(path.to_str().unwrap())
}

#[tokio::test]
async fn an_nkey_opens_a_server_that_knows_it() {
    let files = Files::new();
    let [user, stranger] = [KeyPair::new_user(), KeyPair::new_user()];
    let server =
        files.server(&format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key())).await;
    let known = files.write("user.nk", &user.seed().unwrap());
    support::start(&Nats::new(server.url()).nkey(known).into()).await;
    let unknown = files.write("stranger.nk", &stranger.seed().unwrap());
    let error = refusal(Nats::new(server.url()).nkey(&unknown)).await;
    assert!(error.kind() == ErrorKind::Connection && names(&error, &unknown), "{error}");
}

/// The configuration of the page on rights, as it stands there.
fn rights() -> String {
    let page = include_str!("../../../aioq-nats/src/rights.md");
    let (_, block) = page.split_once("```text\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// The demo program as a user of that configuration.
fn as_user(server: &NatsServer, user: &str, password: &str) -> Demo {
    Demo::at_prefix(server.url().replace("nats://", &format!("nats://{user}:{password}@")), "aioq")
}

#[tokio::test]
async fn the_rights_that_the_page_gives_are_enough_for_each_role() {
    let files = Files::new();
    let server = files.server(&rights()).await;
    let operator = as_user(&server, "operator", "change-me-3");
    let producer = as_user(&server, "producer", "change-me-1");
    operator.run(&["check"]).await.lines();
    let doctor = operator.run(&["doctor"]).await;
    assert!(doctor.code == Some(0) && !doctor.stdout.contains("permit"), "{doctor:?}");
    let worker = as_user(&server, "worker", "change-me-2").worker(&[]).await;
    let kicked = producer.run(&["kiq", "demo.add", "--args", r#"{"a":1,"b":2}"#, "--wait", "20s"]).await;
    assert_eq!(kicked.lines().last(), Some(&"3"), "{kicked:?}");
    let add = r#"{"a":1,"b":2}"#;
    let unique =
        producer.run(&["kiq", "demo.add", "--args", add, "--unique-key", "k", "--wait", "20s"]).await;
    assert_eq!(unique.lines().last(), Some(&"3"), "{unique:?}");
    let parent = operator.kick("demo.add", add, &["--delay", "1s"]).await;
    let child = operator.run(&["kiq", "demo.add", "--args", add, "--after", &parent, "--wait", "20s"]).await;
    assert_eq!(child.lines().last(), Some(&"3"), "{child:?}");
    operator.run(&["schedules", "add", "often", "demo.add", "--every", "1s", "--args", add]).await.lines();
    until("the worker has fired it", async || {
        let ran = operator.run(&["schedules", "show", "often"]).await;
        !ran.stdout.contains("ticks      0 fired")
    })
    .await;
    operator.run(&["schedules", "remove", "often"]).await.lines();
    let later = producer.kick("demo.add", r#"{"a":1,"b":2}"#, &["--delay", "1h", "--id", "later"]).await;
    operator.run(&["jobs", "cancel", &later]).await.lines();
    operator.run(&["pause", "default"]).await.lines();
    operator.run(&["resume", "default"]).await.lines();
    let log = worker.log();
    worker.stop().await;
    assert!(!log.contains("not permit") && !kicked.stderr.contains("not permit"), "{log}{kicked:?}");

    // And no more than that.
    let refused = producer.run(&["pause", "default"]).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("aioq.kv.pause.default"), "{refused:?}");
    let refused = producer.run(&["worker", "--burst"]).await;
    assert!(refused.code != Some(0) && refused.stderr.contains("does not permit"), "{refused:?}");
}

/// All that this user may do, but for one subject.
fn denying(verb: &str, subject: &str) -> String {
    format!(
        "authorization {{ users: [ {{ user: u, password: p, permissions: {{ {verb}: {{ deny: \"{subject}\" }} }} }} ] }}"
    )
}

#[tokio::test]
async fn who_lacks_a_right_is_told_which_one_within_the_deadline() {
    let add = ["kiq", "demo.add", "--args", r#"{"a":1,"b":2}"#];
    let wait = [&add[..], &["--wait", "8s"]].concat();
    let bulk = [&add[..], &["--count", "50"]].concat();
    let worker = vec!["worker"];
    for (verb, denied, named, commands) in [
        (
            "publish",
            "$JS.API.CONSUMER.MSG.NEXT.>",
            "$JS.API.CONSUMER.MSG.NEXT.AIOQ_JOBS.",
            vec![worker.clone()],
        ),
        ("publish", "$JS.ACK.>", "$JS.ACK.AIOQ_JOBS.", vec![worker.clone()]),
        ("publish", "aioq.r.>", "aioq.r.", vec![worker.clone()]),
        ("publish", "aioq.kv.worker.>", "aioq.kv.worker.", vec![worker.clone()]),
        ("subscribe", "aioq.kvdone.>", "aioq.kvdone.", vec![worker.clone()]),
        ("publish", "aioq.q.>", "aioq.q.default.normal.", vec![wait.clone(), bulk]),
        ("subscribe", "aioq.done.>", "aioq.done.", vec![wait.clone(), vec!["events"]]),
        ("subscribe", "_INBOX.>", "_INBOX.", vec![wait, worker]),
    ] {
        let files = Files::new();
        let server = files.server(&denying(verb, denied)).await;
        let demo = as_user(&server, "u", "p");
        for command in commands {
            let ran = timeout(std::time::Duration::from_secs(12), demo.run(&command)).await;
            let ran = ran.unwrap_or_else(|_| panic!("{command:?} without {denied} goes on"));
            assert!(ran.code != Some(0), "{command:?} without {denied}: {ran:?}");
            assert!(
                ran.stderr.contains("does not permit") && ran.stderr.contains(named),
                "{denied}: {ran:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_forged_beside_the_stored_state_is_not_believed() {
    let server = NatsServer::shared().await.unwrap();
    let prefix = unique_prefix();
    let demo = Demo::at_prefix(server.url(), &prefix);
    let client = demo.client().await;
    let raw = async_nats::connect(server.url()).await.unwrap();
    let worker = demo.worker(&[]).await;
    let slow = json!({ "path": demo.ledger().path(), "line": "job", "ms": 1500 });
    let handle = client.kiq_by_name("demo.append_slow", &slow, KickOptions::new().id("x")).await.unwrap();
    let forged = JobRecord::unreadable("x".into(), "default", Status::Failed);
    let subject = |kind: &str| format!("{prefix}.{kind}");
    let waiting = tokio::spawn(async move { handle.wait().await });
    // Told again and again, lest the waiter was not listening yet; and pauses, and a round that is
    // no round.
    let forging = async {
        loop {
            for (kind, body) in [
                ("done.default.failed.x", forged.to_bytes()),
                ("kvdone.pause.default", Bytes::new()),
                ("kvdone.cancel.1", Bytes::from_static(b"forged")),
            ] {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Sequence", "7");
                raw.publish_with_headers(subject(kind), headers, body).await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let record = tokio::select! {
        record = waiting => record.unwrap().unwrap(),
        () = forging => unreachable!(),
    };
    assert_eq!(record.status, Status::Completed);
    let next = client.kiq_by_name("demo.add", &json!({ "a": 1, "b": 2 }), KickOptions::new()).await.unwrap();
    assert_eq!(timeout(PATIENCE, next.wait()).await.unwrap().unwrap().status, Status::Completed);
    worker.stop().await;
}
