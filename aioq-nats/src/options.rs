//! How to connect, and within which limits to work.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aioq::Result;
use async_nats::{AuthError, Client, ConnectErrorKind, ConnectOptions, Event};
use tokio::time::{sleep, timeout_at};

use crate::error::{may_connect_later, unreachable};
use crate::link::credentials::{Credentials, read};
use crate::link::servers::{Login, Servers, address};
use crate::link::{Deadline, lock};

/// Room for commands between the tasks and the connection. Large enough that a burst of kicks does not have to
/// wait for the connection's turn each time.
const SEND_BUFFER: usize = 4096;

/// How often a silent connection is tried. Of three tries without an answer it counts as broken: a peer that vanishes
/// without a word is noticed within ten seconds.
const PING: Duration = Duration::from_secs(3);

/// How long one server may take to say hello before the next one is tried.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// All that [`Nats`](crate::Nats) holds.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) prefix: String,
    pub(crate) creds: Option<PathBuf>,
    pub(crate) nkey: Option<PathBuf>,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) user: Option<(String, String)>,
    pub(crate) token: Option<String>,
    pub(crate) inbox_prefix: Option<String>,
    pub(crate) deadline: Duration,
    pub(crate) replicas: usize,
    pub(crate) max_ack_pending: u32,
    pub(crate) max_body_bytes: usize,
    /// The first failure to connect counts.
    pub(crate) at_once: bool,
}

impl Options {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            prefix: "aioq".to_owned(),
            creds: None,
            nkey: None,
            tls_ca: None,
            user: None,
            token: None,
            inbox_prefix: None,
            deadline: Duration::from_secs(5),
            replicas: 1,
            max_ack_pending: 100_000,
            max_body_bytes: 1024 * 1024,
            at_once: false,
        }
    }

    /// Where the servers are, without passwords.
    pub(crate) fn address(&self) -> String {
        address(&self.url)
    }

    /// Connects; tries again until `deadline` while nobody is there, unless [`at_once`](Self::at_once) is set.
    pub(crate) async fn connect<F>(
        &self,
        deadline: Deadline,
        on_event: impl Fn(Event) -> F + Clone + Send + Sync + 'static,
    ) -> Result<Client>
    where
        F: Future<Output = ()> + Send + Sync + 'static,
    {
        let servers = Servers::read(&self.url)?;
        let credentials = Arc::new(self.credentials(&servers));
        // What the files lack is known before a server is asked.
        credentials.prove(b"").await?;
        let mut last = None;
        loop {
            let options =
                self.connect_options(&servers, &credentials).await?.event_callback(on_event.clone());
            let connected = timeout_at(deadline.at, options.connect(&servers.addresses[..])).await;
            let error = match connected {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) => error,
                // The time is over. What went wrong before says more.
                Err(_) => last.unwrap_or_else(|| ConnectErrorKind::TimedOut.into()),
            };
            if self.at_once || deadline.has_passed() || !may_connect_later(&error) {
                return Err(unreachable(&self.address(), &credentials.describe(), error, deadline.span));
            }
            last = Some(error);
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What is shown to a server, in words: files by their names.
    pub(crate) fn describe_credentials(&self) -> String {
        let mut credentials = Credentials::default();
        (credentials.creds, credentials.nkey) = (self.creds.clone(), self.nkey.clone());
        credentials.describe()
    }

    /// What the code says, and what the URL says where the code says nothing.
    fn credentials(&self, servers: &Servers) -> Credentials {
        let mut credentials = Credentials::default();
        match servers.login.clone() {
            Some(Login::User(user, password)) => credentials.user = Some((user, password)),
            Some(Login::Token(token)) => credentials.token = Some(token),
            None => {}
        }
        credentials.user = self.user.clone().or(credentials.user);
        credentials.token = self.token.clone().or(credentials.token);
        (credentials.creds, credentials.nkey) = (self.creds.clone(), self.nkey.clone());
        credentials
    }

    async fn connect_options(
        &self,
        servers: &Servers,
        credentials: &Arc<Credentials>,
    ) -> Result<ConnectOptions> {
        let (pace, own) = (Arc::new(Pace::default()), Arc::clone(credentials));
        let tried = Arc::clone(&pace);
        let prove = move |nonce: Vec<u8>| {
            let own = Arc::clone(&own);
            tried.tries();
            async move { own.prove_again(&nonce).await.map_err(AuthError::new) }
        };
        let mut options = ConnectOptions::with_auth_callback(prove)
            .name("aioq")
            .client_capacity(SEND_BUFFER)
            .connection_timeout(self.deadline.min(HANDSHAKE))
            .ping_interval(PING)
            .require_tls(servers.requires_tls)
            .reconnect_delay_callback(move |attempts| pace.delay(attempts));
        if let Some(prefix) = &self.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        if let Some(path) = &self.tls_ca {
            // Read here too, for an error that says which file it is.
            read(path, "root certificate").await?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        Ok(options)
    }
}

/// How soon a connection is made again.
#[derive(Default)]
struct Pace(Mutex<Tries>);

#[derive(Default)]
struct Tries {
    last: Option<Instant>,
    /// How many connections in a row did not last.
    brief: usize,
}

impl Pace {
    /// How long a connection must have lasted to be a good one. A server may take one, and close it at once.
    const LASTED: Duration = Duration::from_secs(5);

    /// A connection is about to be made.
    fn tries(&self) {
        lock(&self.0).last = Some(Instant::now());
    }

    /// How long to wait before a try; they are counted from 1 since the last connection.
    fn delay(&self, attempts: usize) -> Duration {
        let mut tries = lock(&self.0);
        if attempts <= 1 {
            let lasted = tries.last.is_none_or(|last| last.elapsed() >= Self::LASTED);
            tries.brief = if lasted { 0 } else { tries.brief + 1 };
        }
        reconnect_delay(attempts.saturating_add(tries.brief))
    }
}

/// At once, then after 50 ms, doubling up to 1 s.
fn reconnect_delay(attempts: usize) -> Duration {
    match attempts {
        0..=2 => Duration::ZERO,
        attempts => Duration::from_millis(50 << (attempts - 3).min(5)).min(Duration::from_secs(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnecting_starts_at_once_and_never_waits_longer_than_a_second() {
        let delays: Vec<u128> = (0..9).map(|attempts| reconnect_delay(attempts).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 50, 100, 200, 400, 800, 1000]);
        assert_eq!(reconnect_delay(usize::MAX), Duration::from_secs(1));
    }

    #[test]
    fn connections_that_do_not_last_are_made_again_more_and_more_slowly() {
        let pace = Pace::default();
        let delays: Vec<u128> = (0..9)
            .map(|_| {
                let delay = pace.delay(1);
                pace.tries();
                delay.as_millis()
            })
            .collect();
        assert_eq!(delays, [0, 0, 50, 100, 200, 400, 800, 1000, 1000]);
        lock(&pace.0).last = Instant::now().checked_sub(Pace::LASTED);
        assert_eq!(pace.delay(1), Duration::ZERO);
    }
}
