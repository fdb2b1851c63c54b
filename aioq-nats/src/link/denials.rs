//! What a server does not permit. It says so beside its answers, with the subject: [`Denials`].

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::Mutex;
use std::time::Duration;

use aioq::{Error, ErrorKind};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::link::lock;

/// For so long a denial is remembered. Rights may change meanwhile, so what was denied is tried again later.
const REMEMBERED: Duration = Duration::from_secs(10);

/// So many denials are remembered.
const MOST: usize = 64;

/// How often denials that no request waits for are logged.
const LOGGED: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Publish,
    Subscribe,
}

/// Something that the server did not permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) verb: Verb,
    pub(crate) subject: String,
}

impl Denied {
    /// Reads what a server reports, if that is a denial.
    pub(crate) fn read(report: &str) -> Option<Self> {
        let (_, rest) = report.split_once("Permissions Violation for ")?;
        let (verb, rest) = rest.split_once(" to \"")?;
        let verb = match verb {
            "Publish" => Verb::Publish,
            "Subscription" => Verb::Subscribe,
            _ => return None,
        };
        let subject = rest.split_once('"')?.0.to_owned();
        Some(Self { verb, subject })
    }

    pub(crate) fn into_error(self) -> Error {
        let verb = match self.verb {
            Verb::Publish => "publish",
            Verb::Subscribe => "subscribe",
        };
        let message = format!("the NATS server does not permit this user to {verb} to `{}`", self.subject);
        Error::new(ErrorKind::Permission, message)
    }
}

/// What was denied lately on one connection.
pub(crate) struct Denials {
    recent: Mutex<VecDeque<(Denied, Instant)>>,
    logged: Mutex<Option<Instant>>,
    /// Counts them.
    news: watch::Sender<u64>,
}

impl Default for Denials {
    fn default() -> Self {
        Self { recent: Mutex::default(), logged: Mutex::default(), news: watch::Sender::new(0) }
    }
}

impl Denials {
    /// Takes note of a denial; logs it, now and then, unless a request is told of it.
    pub(crate) fn note(&self, denied: Denied, is_told: bool) {
        if !is_told && lock(&self.logged).is_none_or(|at| at.elapsed() >= LOGGED) {
            *lock(&self.logged) = Some(Instant::now());
            tracing::warn!("{}", denied.clone().into_error());
        }
        let mut recent = lock(&self.recent);
        if recent.len() == MOST {
            recent.pop_front();
        }
        recent.push_back((denied, Instant::now()));
        drop(recent);
        self.news.send_modify(|count| *count += 1);
    }

    /// Refuses what was denied lately.
    pub(crate) fn check(&self, verb: Verb, subject: &str) -> Result<(), Error> {
        let recent = lock(&self.recent);
        let mut denials = recent.iter().filter(|(_, at)| at.elapsed() < REMEMBERED);
        match denials.find(|(denied, _)| denied.verb == verb && denied.subject == subject) {
            Some((denied, _)) => Err(denied.clone().into_error()),
            None => Ok(()),
        }
    }

    /// Tells of each denial from now on.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

/// Tells subjects apart, where one is not kept.
pub(crate) fn hash_of(subject: &str) -> u64 {
    foldhash::fast::FixedState::default().hash_one(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_denials_are_read() {
        let read = |report: &str| Denied::read(report).map(|denied| (denied.verb, denied.subject));
        assert_eq!(
            read("nats: Permissions Violation for Publish to \"aioq.q.x.normal.1\""),
            Some((Verb::Publish, "aioq.q.x.normal.1".to_owned()))
        );
        assert_eq!(
            read("nats: Permissions Violation for Subscription to \"aioq.done.>\" using queue \"q\""),
            Some((Verb::Subscribe, "aioq.done.>".to_owned()))
        );
        for other in ["nats: Authorization Violation", "", "Permissions Violation for Publish"] {
            assert_eq!(read(other), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_counts_for_its_subject_and_for_a_while() {
        let denials = Denials::default();
        denials.note(Denied { verb: Verb::Publish, subject: "a".to_owned() }, true);
        let kind = denials.check(Verb::Publish, "a").unwrap_err().kind();
        assert_eq!(kind, ErrorKind::Permission);
        assert!(denials.check(Verb::Subscribe, "a").is_ok() && denials.check(Verb::Publish, "b").is_ok());
        tokio::time::advance(REMEMBERED).await;
        assert!(denials.check(Verb::Publish, "a").is_ok());
    }
}
