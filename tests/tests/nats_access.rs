//! Who may connect to a NATS server, and what they may do there.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aioq::broker::Expect;
use aioq::{Backend, ErrorKind};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, unique_prefix};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use support::{PATIENCE, envelope, until};
use tokio::time::timeout;

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

/// What `signer` says of `subject`, as NATS writes it.
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
    until(async || now() > expires).await;
    timeout(PATIENCE, until(async || kicks(&backend, "a").await)).await.unwrap();

    // Who connects with what has expired is told which file it is.
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
