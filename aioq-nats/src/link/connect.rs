//! Connecting: [`connect`].

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aioq::Result;
use async_nats::{AuthError, Client, ConnectErrorKind, ConnectOptions, Event};
use tokio::time::{sleep, timeout_at};

use super::credentials::{Credentials, read};
use super::deadline::Deadline;
use super::servers::{Login, Servers, address};
use crate::error::{may_connect_later, unreachable};
use crate::options::Options;
use crate::sync::lock;

/// Capacity of the channel from tasks to the connection. Large enough that a burst of kicks does
/// not wait for the connection's task at each message.
const SEND_BUFFER: usize = 4096;

/// Interval between pings of a silent connection. After three unanswered pings it counts as broken,
/// so a peer that vanishes is noticed within ten seconds.
const PING_INTERVAL: Duration = Duration::from_secs(3);

/// Time for one server to answer a connection attempt before the next server is tried.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Connects. Retries until `deadline` while no server is reachable, unless
/// [`at_once`](Options::at_once) is set.
pub(crate) async fn connect<F>(
    options: &Options,
    deadline: Deadline,
    on_event: impl Fn(Event) -> F + Clone + Send + Sync + 'static,
) -> Result<Client>
where
    F: Future<Output = ()> + Send + Sync + 'static,
{
    let servers = Servers::parse(&options.url)?;
    let credentials = Arc::new(credentials(options, &servers));
    // Unreadable files are reported before a server is asked.
    credentials.prove(b"").await?;
    let mut last = None;
    loop {
        let connect_options = connect_options(options, &servers, &credentials).await?;
        let connecting = connect_options.event_callback(on_event.clone()).connect(&servers.addresses[..]);
        let error = match timeout_at(deadline.at, connecting).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => error,
            // Out of time. The error of an earlier attempt says more.
            Err(_) => last.unwrap_or_else(|| ConnectErrorKind::TimedOut.into()),
        };
        if options.at_once || deadline.has_passed() || !may_connect_later(&error) {
            return Err(unreachable(&address(&options.url), &credentials.describe(), error, deadline.span));
        }
        last = Some(error);
        sleep(RETRY_PAUSE).await;
    }
}

/// Description of the credentials for messages: file names, never contents.
pub(super) fn describe_credentials(options: &Options) -> String {
    credential_files(options).describe()
}

fn credential_files(options: &Options) -> Credentials {
    Credentials { creds: options.creds.clone(), nkey: options.nkey.clone(), ..Credentials::default() }
}

/// Credentials from the code, or else from the URL.
fn credentials(options: &Options, servers: &Servers) -> Credentials {
    let mut credentials = credential_files(options);
    match servers.login.clone() {
        Some(Login::User(user, password)) => credentials.user = Some((user, password)),
        Some(Login::Token(token)) => credentials.token = Some(token),
        None => {}
    }
    credentials.user = options.user.clone().or(credentials.user);
    credentials.token = options.token.clone().or(credentials.token);
    credentials
}

async fn connect_options(
    options: &Options,
    servers: &Servers,
    credentials: &Arc<Credentials>,
) -> Result<ConnectOptions> {
    let (backoff, credentials) = (Arc::new(Backoff::default()), Arc::clone(credentials));
    let connecting = Arc::clone(&backoff);
    let prove = move |nonce: Vec<u8>| {
        let credentials = Arc::clone(&credentials);
        connecting.connecting();
        async move { credentials.prove_again(&nonce).await.map_err(AuthError::new) }
    };
    let mut connect_options = ConnectOptions::with_auth_callback(prove)
        .name("aioq")
        .client_capacity(SEND_BUFFER)
        .connection_timeout(options.deadline.min(HANDSHAKE_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .require_tls(servers.requires_tls)
        .reconnect_delay_callback(move |attempts| backoff.delay(attempts));
    if let Some(prefix) = &options.inbox_prefix {
        connect_options = connect_options.custom_inbox_prefix(prefix);
    }
    if let Some(path) = &options.tls_ca {
        // Read here too, for an error that names the file.
        read(path, "root certificate").await?;
        connect_options = connect_options.add_root_certificates(path.clone()).require_tls(true);
    }
    Ok(connect_options)
}

/// Delays before reconnecting. They grow while connections fail, or end soon after they were made.
#[derive(Default)]
struct Backoff(Mutex<Connections>);

#[derive(Default)]
struct Connections {
    /// Time of the last attempt to connect.
    last: Option<Instant>,
    /// Number of consecutive connections that ended soon.
    brief: usize,
}

impl Backoff {
    /// Life of a connection from which it counts as good. A server may accept one and close it at
    /// once.
    const GOOD: Duration = Duration::from_secs(5);

    /// Notes an attempt to connect.
    fn connecting(&self) {
        lock(&self.0).last = Some(Instant::now());
    }

    /// Delay before an attempt. Attempts are counted from 1 since the last connection.
    fn delay(&self, attempts: usize) -> Duration {
        let mut connections = lock(&self.0);
        if attempts <= 1 {
            let was_good = connections.last.is_none_or(|last| last.elapsed() >= Self::GOOD);
            connections.brief = if was_good { 0 } else { connections.brief + 1 };
        }
        reconnect_delay(attempts.saturating_add(connections.brief))
    }
}

/// Zero at first, then 50 ms, doubling up to 1 s.
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
        let backoff = Backoff::default();
        let delays: Vec<u128> = (0..9)
            .map(|_| {
                let delay = backoff.delay(1);
                backoff.connecting();
                delay.as_millis()
            })
            .collect();
        assert_eq!(delays, [0, 0, 50, 100, 200, 400, 800, 1000, 1000]);
        lock(&backoff.0).last = Instant::now().checked_sub(Backoff::GOOD);
        assert_eq!(backoff.delay(1), Duration::ZERO);
    }
}
