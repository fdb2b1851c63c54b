//! The settings of the backend: [`Nats`].

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use aioq::__private::inventory;
use aioq::backend::{BackendKind, OpenBackend, Settings};
use aioq::{Backend, Result};

use crate::backend;
use crate::link::address;
use crate::options::Options;
use crate::wire::names::Names;

inventory::submit! {
    BackendKind::new("nats", || Box::new(Nats::default()))
}

/// Settings of a backend on a NATS server with JetStream, 2.14 or newer. Nothing connects before
/// startup.
///
/// ```
/// use aioq_nats::Nats;
///
/// let nats = Nats::new("nats://localhost:4222").prefix("shop");
/// let backend = aioq::Backend::from(nats);
/// assert_eq!(backend.broker().info().name, "nats");
/// assert_eq!(backend.broker().info().address, "nats://localhost:4222");
/// ```
#[derive(Clone)]
pub struct Nats(Options);

impl Nats {
    /// A server at `url`, or a cluster: several URLs separated by commas.
    ///
    /// A URL is `nats://host:port`, or `tls://host:port` to require TLS. One `tls` URL requires TLS
    /// of all servers. Credentials (`nats://user:password@host`, `nats://token@host`) may contain
    /// any characters. Each server with credentials needs its own scheme. In credentials with a
    /// comma, write `%40` for an at sign.
    pub fn new(url: impl Into<String>) -> Self {
        Self(Options::new(url.into()))
    }

    /// Prefix of all streams and subjects: one token of `a-z`, `0-9`, `_` and `-`. Default: `aioq`.
    ///
    /// Programs with different prefixes do not see each other.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.0.prefix = prefix.into();
        self
    }

    /// Authenticates with a credentials file (`.creds`).
    ///
    /// The file is read at each connect, so it may be renewed while the program runs.
    #[must_use]
    pub fn creds(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.creds = Some(path.into());
        self
    }

    /// Authenticates with a file that holds an nkey seed.
    ///
    /// The file is read at each connect, so it may be renewed while the program runs.
    #[must_use]
    pub fn nkey(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.nkey = Some(path.into());
        self
    }

    /// Requires TLS, and also trusts the root certificates in this PEM file.
    #[must_use]
    pub fn tls_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.tls_ca = Some(path.into());
        self
    }

    /// Authenticates with a user and a password.
    #[must_use]
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.0.user = Some((user.into(), password.into()));
        self
    }

    /// Authenticates with a token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.0.token = Some(token.into());
        self
    }

    /// Receives answers below this subject instead of `_INBOX`.
    ///
    /// A user with an inbox prefix of its own can be limited to its own answers; see
    /// [`rights`](crate::rights).
    #[must_use]
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.0.inbox_prefix = Some(prefix.into());
        self
    }

    /// Time limit of each request, including kicks and connecting; at most
    /// [`MAX_SPAN`](aioq::time::MAX_SPAN). Default: 5 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.0.deadline = deadline.min(aioq::time::MAX_SPAN);
        self
    }

    /// Number of servers in a cluster that keep each stream: 1, 3 or 5. Default: 1.
    ///
    /// Applies when the streams are created. Existing streams keep their number.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.0.replicas = replicas;
        self
    }

    /// Number of deliveries of one lane of a queue that may be unacked at a time, over all workers.
    /// Default: 100,000.
    ///
    /// Applies when the first worker listens to the queue.
    #[must_use]
    pub fn max_ack_pending(mut self, deliveries: u32) -> Self {
        self.0.max_ack_pending = deliveries;
        self
    }

    /// Largest body of a message, in bytes. Default: 1 MiB.
    ///
    /// The server's `max_payload` less 64 KiB is an upper limit.
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.0.max_body_bytes = bytes;
        self
    }
}

impl Default for Nats {
    /// The server at `nats://localhost:4222`.
    fn default() -> Self {
        Self::new("nats://localhost:4222")
    }
}

impl OpenBackend for Nats {
    fn configure(&mut self, settings: &Settings) -> Result<()> {
        let options = &mut self.0;
        if let Some(prefix) = &settings.prefix {
            Names::new(prefix)?;
            options.prefix.clone_from(prefix);
        }
        if let Some(url) = &settings.url {
            options.url.clone_from(url);
        }
        options.at_once = settings.at_once;
        for (path, set) in [
            (&mut options.creds, &settings.creds),
            (&mut options.nkey, &settings.nkey),
            (&mut options.tls_ca, &settings.tls_ca),
        ] {
            if let Some(set) = set {
                *path = Some(set.into());
            }
        }
        Ok(())
    }

    fn open(&self) -> Backend {
        backend::open(self.0.clone())
    }

    fn scheme(&self) -> Option<&'static str> {
        Some("nats")
    }

    #[cfg(feature = "bench")]
    fn bench_site(&self) -> Result<Option<Box<dyn aioq::bench::BenchSite>>> {
        Ok(Some(Box::new(crate::bench::Site::new(&self.0)?)))
    }
}

impl From<Nats> for Backend {
    fn from(nats: Nats) -> Self {
        nats.open()
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without passwords and tokens.
        let Options { prefix, deadline, replicas, .. } = &self.0;
        f.debug_struct("Nats")
            .field("address", &address(&self.0.url))
            .field("prefix", prefix)
            .field("deadline", deadline)
            .field("replicas", replicas)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aioq::ErrorKind;

    #[test]
    fn the_scheme_nats_leads_here() {
        let backend = BackendKind::find("nats").unwrap().open();
        assert_eq!(backend.broker().info().name, "nats");
    }

    #[test]
    fn settings_from_outside_take_precedence() {
        let mut nats = Nats::new("nats://a").prefix("x").creds("a.creds");
        let mut settings = Settings::default();
        settings.url = Some("nats://b".to_owned());
        settings.creds = Some("b.creds".to_owned());
        nats.configure(&settings).unwrap();
        assert_eq!((nats.0.url.as_str(), nats.0.prefix.as_str()), ("nats://b", "x"));
        assert_eq!(nats.0.creds, Some(PathBuf::from("b.creds")));
        settings.prefix = Some("A.B".to_owned());
        assert_eq!(nats.configure(&settings).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn debug_output_tells_no_secret() {
        let nats = Nats::new("nats://ann:secret@a").token("secret").user_and_password("ann", "secret");
        assert!(!format!("{nats:?}").contains("secret"));
    }
}
