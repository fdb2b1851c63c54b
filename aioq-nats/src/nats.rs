//! The settings of the backend: [`Nats`].

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aioq::__private::inventory;
use aioq::{Backend, BackendKind, OpenBackend, Result, Settings};

use crate::broker::NatsBroker;
use crate::connection::Connection;
use crate::jobs::NatsJobs;
use crate::kv::NatsKv;
use crate::options::Options;
use crate::wire::subject::Names;

inventory::submit! {
    BackendKind::new("nats", || Box::new(Nats::default()))
}

/// A NATS server with JetStream, 2.14 or newer: the description of a backend. Nothing connects before startup.
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
    /// The server at `url`, or a cluster: several URLs with commas between.
    ///
    /// A URL is `nats://host:port`, or `tls://host:port` where TLS is required; if one says `tls`, it is required of all.
    /// Credentials (`nats://user:password@host`, `nats://token@host`) may have any characters; each server with
    /// credentials needs its scheme, and `%40` stands for an at sign in one with a comma.
    pub fn new(url: impl Into<String>) -> Self {
        Self(Options::new(url.into()))
    }

    /// What the names of streams and subjects start with: one token of `a-z`, `0-9`, `_` and `-`. Programs with
    /// different prefixes do not see each other. Unless set: `aioq`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.0.prefix = prefix.into();
        self
    }

    /// Authenticates with a credentials file (`.creds`). It is read at each connect, so it may be renewed meanwhile.
    #[must_use]
    pub fn creds(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.creds = Some(path.into());
        self
    }

    /// Authenticates with a file that holds an nkey seed. It is read at each connect, so it may be renewed meanwhile.
    #[must_use]
    pub fn nkey(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.nkey = Some(path.into());
        self
    }

    /// Requires TLS, and trusts the root certificates in this PEM file too.
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

    /// Receives answers below this subject instead of `_INBOX`, so that a user may be permitted to read its own answers
    /// alone; see [`rights`](crate::rights).
    #[must_use]
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.0.inbox_prefix = Some(prefix.into());
        self
    }

    /// How long a request may take, a kick or the connecting included; at most [`MAX_SPAN`](aioq::MAX_SPAN). Unless
    /// set: 5 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.0.deadline = deadline.min(aioq::MAX_SPAN);
        self
    }

    /// How many servers of a cluster keep each stream: 1, 3 or 5. It counts when the streams are created;
    /// streams that exist keep what they have. Unless set: 1.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.0.replicas = replicas;
        self
    }

    /// How many deliveries of one lane of a queue may be unacked at a time, over all workers. It counts when
    /// the queue is used for the first time. Unless set: 100,000.
    #[must_use]
    pub fn max_ack_pending(mut self, deliveries: u32) -> Self {
        self.0.max_ack_pending = deliveries;
        self
    }

    /// The largest body of a message, in bytes. Unless set: 1 MiB; never more than the server's `max_payload`
    /// less 64 KiB.
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
        let connection = Arc::new(Connection::new(self.0.clone()));
        Backend::new(NatsBroker::new(&connection), NatsJobs::new(&connection), NatsKv::new(&connection))
    }

    fn scheme(&self) -> Option<&'static str> {
        Some("nats")
    }

    #[cfg(feature = "bench")]
    fn bench_site(&self) -> Result<Option<Box<dyn aioq::bench::BenchSite>>> {
        Ok(Some(Box::new(crate::bench::Site::new(&self.0)?)))
    }
}

#[cfg(feature = "bench")]
impl From<Options> for Nats {
    fn from(options: Options) -> Self {
        Self(options)
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
            .field("address", &self.0.address())
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
