//! Permission denials of one connection: [`Denials`].
//!
//! A server reports a denial apart from its answers and names only the subject.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::Mutex;
use std::time::Duration;

use aioq::{Error, ErrorKind};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::sync::lock;

/// Time for which a denial is remembered. Rights may change, so the request is tried again
/// afterwards.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Number of denials remembered.
const MAX_REMEMBERED: usize = 64;

/// Shortest interval between log lines about denials that no request waits for.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Use of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Publish,
    Subscribe,
}

/// A use of a subject that the server did not permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) verb: Verb,
    pub(crate) subject: String,
}

impl Denied {
    /// Parses a server's error report; `None` if it is not a denial.
    pub(crate) fn parse(report: &str) -> Option<Self> {
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

/// Recent denials of one connection.
pub(crate) struct Denials {
    recent: Mutex<VecDeque<(Denied, Instant)>>,
    logged: Mutex<Option<Instant>>,
    /// Number of denials so far.
    count: watch::Sender<u64>,
}

impl Default for Denials {
    fn default() -> Self {
        Self { recent: Mutex::default(), logged: Mutex::default(), count: watch::Sender::new(0) }
    }
}

impl Denials {
    /// Remembers a denial. Logs it, at a limited rate, unless a request ended with it.
    pub(crate) fn add(&self, denied: Denied, has_request: bool) {
        if !has_request && lock(&self.logged).is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            *lock(&self.logged) = Some(Instant::now());
            tracing::warn!("{}", denied.clone().into_error());
        }
        let mut recent = lock(&self.recent);
        if recent.len() == MAX_REMEMBERED {
            recent.pop_front();
        }
        recent.push_back((denied, Instant::now()));
        drop(recent);
        self.count.send_modify(|count| *count += 1);
    }

    /// Fails if this use of `subject` was denied recently.
    pub(crate) fn check(&self, verb: Verb, subject: &str) -> Result<(), Error> {
        let recent = lock(&self.recent);
        let mut denials = recent.iter().filter(|(_, at)| at.elapsed() < REMEMBERED);
        match denials.find(|(denied, _)| denied.verb == verb && denied.subject == subject) {
            Some((denied, _)) => Err(denied.clone().into_error()),
            None => Ok(()),
        }
    }

    /// Changes with each denial from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

/// Hash of a subject, for comparison without keeping the subject.
pub(crate) fn hash_of(subject: &str) -> u64 {
    foldhash::fast::FixedState::default().hash_one(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_denials_are_read() {
        let parse = |report: &str| Denied::parse(report).map(|denied| (denied.verb, denied.subject));
        assert_eq!(
            parse("nats: Permissions Violation for Publish to \"aioq.q.x.normal.1\""),
            Some((Verb::Publish, "aioq.q.x.normal.1".to_owned()))
        );
        assert_eq!(
            parse("nats: Permissions Violation for Subscription to \"aioq.done.>\" using queue \"q\""),
            Some((Verb::Subscribe, "aioq.done.>".to_owned()))
        );
        for other in ["nats: Authorization Violation", "", "Permissions Violation for Publish"] {
            assert_eq!(parse(other), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_counts_for_its_subject_and_for_a_while() {
        let denials = Denials::default();
        denials.add(Denied { verb: Verb::Publish, subject: "a".to_owned() }, true);
        let kind = denials.check(Verb::Publish, "a").unwrap_err().kind();
        assert_eq!(kind, ErrorKind::Permission);
        assert!(denials.check(Verb::Subscribe, "a").is_ok() && denials.check(Verb::Publish, "b").is_ok());
        tokio::time::advance(REMEMBERED).await;
        assert!(denials.check(Verb::Publish, "a").is_ok());
    }
}
