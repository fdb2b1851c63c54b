//! How to connect, and within which limits to work.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aioq::{Error, ErrorKind, Result};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use tokio::time::{sleep, timeout_at};

use crate::error::{may_connect_later, unreachable};
use crate::link::Deadline;

/// Room for commands between the tasks and the connection. Large enough that a burst of kicks does not have to
/// wait for the connection's turn each time.
const SEND_BUFFER: usize = 4096;

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
    pub(crate) deadline: Duration,
    pub(crate) replicas: usize,
    pub(crate) max_ack_pending: u32,
    pub(crate) max_body_bytes: usize,
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
            deadline: Duration::from_secs(5),
            replicas: 1,
            max_ack_pending: 100_000,
            max_body_bytes: 1024 * 1024,
        }
    }

    /// Where the servers are, without passwords.
    pub(crate) fn address(&self) -> String {
        self.url.split(',').map(|url| without_password(url.trim())).collect::<Vec<_>>().join(",")
    }

    /// Connects; tries again until `deadline` while nobody is there.
    pub(crate) async fn connect<F>(
        &self,
        deadline: Deadline,
        on_event: impl Fn(Event) -> F + Clone + Send + Sync + 'static,
    ) -> Result<Client>
    where
        F: Future<Output = ()> + Send + Sync + 'static,
    {
        let servers = self.servers()?;
        loop {
            let options = self.connect_options(&servers).await?.event_callback(on_event.clone());
            let connected = timeout_at(deadline.at, options.connect(&servers[..])).await;
            let error = match connected {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) => error,
                Err(_) => ConnectErrorKind::TimedOut.into(),
            };
            if deadline.has_passed() || !may_connect_later(&error) {
                return Err(unreachable(&self.address(), error, deadline.span));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn servers(&self) -> Result<Vec<ServerAddr>> {
        let urls = self.url.split(',').map(str::trim).filter(|url| !url.is_empty());
        let servers: Result<Vec<ServerAddr>, _> = urls.map(str::parse).collect();
        match servers {
            Ok(servers) if !servers.is_empty() => Ok(servers),
            Ok(_) => Err(Error::new(ErrorKind::Config, "the URL of the NATS server is empty")),
            Err(error) => {
                let message = format!("`{}` is no URL of a NATS server", self.address());
                Err(Error::new(ErrorKind::Config, message).with_source(error))
            }
        }
    }

    async fn connect_options(&self, servers: &[ServerAddr]) -> Result<ConnectOptions> {
        let mut options = ConnectOptions::new()
            .name("aioq")
            .client_capacity(SEND_BUFFER)
            .connection_timeout(self.deadline)
            .reconnect_delay_callback(reconnect_delay);
        // The client library passes over what a URL says.
        options = match servers.iter().find_map(in_url) {
            Some((user, Some(password))) => options.user_and_password(user, password),
            Some((token, None)) => options.token(token),
            None => options,
        };
        if let Some((user, password)) = &self.user {
            options = options.user_and_password(user.clone(), password.clone());
        }
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let Some(path) = &self.creds {
            options = options.credentials(&read(path, "credentials").await?).map_err(|error| {
                let message = format!("`{}` is no NATS credentials file", path.display());
                Error::new(ErrorKind::Config, message).with_source(error)
            })?;
        }
        if let Some(path) = &self.nkey {
            options = options.nkey(seed_in(&read(path, "nkey").await?, path)?);
        }
        if let Some(path) = &self.tls_ca {
            // Read here too, for an error that says which file it is.
            read(path, "root certificate").await?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        Ok(options)
    }
}

/// At once, then after 50 ms, doubling up to 1 s.
fn reconnect_delay(attempts: usize) -> Duration {
    match attempts {
        0 | 1 => Duration::ZERO,
        attempts => Duration::from_millis(50 << (attempts - 2).min(5)).min(Duration::from_secs(1)),
    }
}

async fn read(path: &Path, what: &str) -> Result<String> {
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await;
    let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    read.map_err(|error| {
        let message = format!("cannot read the {what} file `{}`", path.display());
        Error::new(ErrorKind::Config, message).with_source(error)
    })
}

/// The seed among the lines of an nkey file: `SU...`.
fn seed_in(text: &str, path: &Path) -> Result<String> {
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    seed.map(str::to_owned).ok_or_else(|| {
        let message = format!("`{}` holds no user nkey seed (a line that starts with SU)", path.display());
        Error::new(ErrorKind::Config, message)
    })
}

/// User and password of a URL; a user alone is a token.
fn in_url(server: &ServerAddr) -> Option<(String, Option<String>)> {
    Some((percent_decoded(server.username()?), server.password().map(percent_decoded)))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits =
            after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The URL without user, password or token.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_no_password() {
        let options = Options::new("nats://ann:secret@a:4222, t0ken@b,c:1".to_owned());
        assert_eq!(options.address(), "nats://a:4222,nats://b,nats://c:1");
    }

    #[test]
    fn credentials_in_a_url_are_read_as_they_were_meant() {
        let read = |url: &str| in_url(&url.parse().unwrap());
        assert_eq!(read("nats://a%40b:p%2Fw%25@h:1"), Some(("a@b".to_owned(), Some("p/w%".to_owned()))));
        assert_eq!(read("nats://t0ken@h"), Some(("t0ken".to_owned(), None)));
        assert_eq!(read("nats://h"), None);
        assert_eq!(percent_decoded("100%"), "100%");
    }

    #[test]
    fn reconnecting_starts_at_once_and_never_waits_longer_than_a_second() {
        let delays: Vec<u128> = (0..9).map(|attempts| reconnect_delay(attempts).as_millis()).collect();
        assert_eq!(delays, [0, 0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(reconnect_delay(usize::MAX), Duration::from_secs(1));
    }

    #[test]
    fn a_seed_is_found_between_comments() {
        let path = Path::new("x.nk");
        assert_eq!(seed_in("# mine\n  SUABC \n", path).unwrap(), "SUABC");
        assert_eq!(seed_in("UABC", path).unwrap_err().kind(), ErrorKind::Config);
    }
}
