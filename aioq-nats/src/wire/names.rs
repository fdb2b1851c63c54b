//! Names of streams and subjects: [`Names`].
//!
//! | stream | subjects |
//! |---|---|
//! | `<PREFIX>_JOBS` | `<prefix>.q.<queue>.<lane>.<id>` ready, `.s.` scheduled, `.t.` waiting for a retry |
//! | `<PREFIX>_RECORDS` | `<prefix>.r.<queue>.<status>.<id>`, each stored write republished on `<prefix>.done.>` |
//! | `<PREFIX>_KV` | `<prefix>.kv.<part>.<part>...`, each stored write republished on `<prefix>.kvdone.>` |

use aioq::broker::Waiting;
use aioq::store::Status;
use aioq::{Error, ErrorKind, JobId, Result};

use super::lane::Lane;
use super::token::{push_escaped, unescape};

/// Subject token for the state of a message: ready, scheduled or waiting for a retry.
const fn kind(waiting: Waiting) -> &'static str {
    match waiting {
        Waiting::Ready => "q",
        Waiting::Scheduled => "s",
        Waiting::Retrying => "t",
    }
}

/// Builds the names of streams and subjects under one prefix.
#[derive(Debug)]
pub(crate) struct Names {
    prefix: String,
    pub(crate) jobs: String,
    pub(crate) records: String,
    pub(crate) kv: String,
}

impl Names {
    /// Checks `prefix` and derives the names of the streams.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] unless the prefix is one token of `[a-z0-9_-]`, at most 32 bytes.
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if !(1..=32).contains(&prefix.len()) || !prefix.bytes().all(plain) {
            let message = format!(
                "the prefix `{prefix}` must be 1 to 32 characters of a-z, 0-9, `_` and `-`, like `aioq`"
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        let stream = |kind: &str| format!("{}_{kind}", prefix.to_ascii_uppercase());
        Ok(Self {
            prefix: prefix.to_owned(),
            jobs: stream("JOBS"),
            records: stream("RECORDS"),
            kv: stream("KV"),
        })
    }

    /// `<prefix>.<rest>`.
    pub(crate) fn under_prefix(&self, rest: &str) -> String {
        format!("{}.{rest}", self.prefix)
    }

    /// Subject of a message.
    pub(crate) fn message(&self, waiting: Waiting, queue: &str, lane: Lane, id: &JobId) -> String {
        self.subject(
            kind(waiting),
            &[Token::Escaped(queue), Token::Literal(lane.token()), Token::Escaped(id.as_str())],
        )
    }

    /// Filter: all messages of a job, in any queue.
    pub(crate) fn messages_of(&self, id: &JobId) -> String {
        self.subject("*", &[Token::Literal("*"), Token::Literal("*"), Token::Escaped(id.as_str())])
    }

    /// Filter: all messages of a job in `queue`. Cheaper for the server than [`Self::messages_of`].
    pub(crate) fn messages_in(&self, queue: &str, id: &JobId) -> String {
        self.subject("*", &[Token::Escaped(queue), Token::Literal("*"), Token::Escaped(id.as_str())])
    }

    /// Filter: all messages, or only those in one state or one queue.
    pub(crate) fn messages(&self, waiting: Option<Waiting>, queue: Option<&str>) -> String {
        let queue = queue.map_or(Token::Literal("*"), Token::Escaped);
        self.subject(waiting.map_or("*", kind), &[queue, Token::Literal("*"), Token::Literal("*")])
    }

    /// Filter of a lane's consumer: the ready messages of the lane.
    pub(crate) fn lane(&self, queue: &str, lane: Lane) -> String {
        self.subject("q", &[Token::Escaped(queue), Token::Literal(lane.token()), Token::Literal("*")])
    }

    /// Subject of a record.
    pub(crate) fn record(&self, queue: &str, status: Status, id: &JobId) -> String {
        self.subject(
            "r",
            &[Token::Escaped(queue), Token::Literal(status.as_str()), Token::Escaped(id.as_str())],
        )
    }

    /// Filter for records, of one queue or one status if given.
    pub(crate) fn records(&self, queue: Option<&str>, status: Option<Status>) -> String {
        let queue = queue.map_or(Token::Literal("*"), Token::Escaped);
        let status = status.map_or("*", Status::as_str);
        self.subject("r", &[queue, Token::Literal(status), Token::Literal("*")])
    }

    /// Filter: the records of a job in `queue`, under any status.
    pub(crate) fn records_in(&self, queue: &str, id: &JobId) -> String {
        self.subject("r", &[Token::Escaped(queue), Token::Literal("*"), Token::Escaped(id.as_str())])
    }

    /// Filter: the records of a job, in any queue and under any status.
    pub(crate) fn records_of(&self, id: &JobId) -> String {
        self.subject("r", &[Token::Literal("*"), Token::Literal("*"), Token::Escaped(id.as_str())])
    }

    /// Filter of the server's notifications for stored records of a job in `queue`.
    pub(crate) fn record_notices_in(&self, queue: &str, id: &JobId) -> String {
        self.subject("done", &[Token::Escaped(queue), Token::Literal("*"), Token::Escaped(id.as_str())])
    }

    /// Subject of a key.
    pub(crate) fn key(&self, key: &str) -> String {
        self.key_parts("kv", key)
    }

    /// Filter: the keys that start with `key_prefix`, which is empty or ends with `.`.
    pub(crate) fn keys(&self, key_prefix: &str) -> String {
        self.keys_below("kv", key_prefix)
    }

    /// Filter of the server's notifications for stored changes of these keys.
    pub(crate) fn key_notices(&self, key_prefix: &str) -> String {
        self.keys_below("kvdone", key_prefix)
    }

    /// Key in the subject of a stored value or of a notification; `None` for any other subject.
    pub(crate) fn key_of(&self, subject: &str) -> Option<String> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".kv")?;
        let tokens = rest.strip_prefix("done.").or_else(|| rest.strip_prefix('.'))?;
        // Keys are split at `.`, so a part that contains one was not written by aioq.
        let part = |token| unescape(token).filter(|part| !part.contains('.'));
        let parts: Option<Vec<_>> = tokens.split('.').map(part).collect();
        Some(parts?.join("."))
    }

    fn keys_below(&self, kind: &str, key_prefix: &str) -> String {
        let mut subject = match key_prefix.strip_suffix('.') {
            Some(parts) => self.key_parts(kind, parts),
            None => self.under_prefix(kind),
        };
        subject.push_str(".>");
        subject
    }

    fn key_parts(&self, kind: &str, key: &str) -> String {
        let mut subject = self.under_prefix(kind);
        for part in key.split('.') {
            subject.push('.');
            push_escaped(&mut subject, part);
        }
        subject
    }

    fn subject(&self, kind: &str, tokens: &[Token<'_>]) -> String {
        let mut subject = String::with_capacity(96);
        subject.push_str(&self.prefix);
        subject.push('.');
        subject.push_str(kind);
        for token in tokens {
            subject.push('.');
            match token {
                Token::Escaped(text) => push_escaped(&mut subject, text),
                Token::Literal(text) => subject.push_str(text),
            }
        }
        subject
    }
}

/// One token of a subject to build.
enum Token<'a> {
    /// Text that is escaped into one token.
    Escaped(&'a str),
    /// A token that needs no escaping, or a wildcard.
    Literal(&'a str),
}

#[cfg(test)]
mod tests {
    use super::super::subject::matches;
    use super::*;

    fn names() -> Names {
        Names::new("aioq").unwrap()
    }

    #[test]
    fn filters_match_the_subjects_they_are_made_for() {
        let names = names();
        let record = names.record("*", Status::Failed, &"a".into());
        for (queue, status, expected) in [
            (None, None, true),
            (Some("*"), Some(Status::Failed), true),
            (Some(">"), None, false),
            (None, Some(Status::Completed), false),
        ] {
            assert_eq!(matches(&names.records(queue, status), &record), expected, "{queue:?} {status:?}");
        }
        let message = names.message(Waiting::Scheduled, "x", Lane::Low, &"a".into());
        assert!(matches(&names.messages(Some(Waiting::Scheduled), None), &message));
        assert!(!matches(&names.messages(Some(Waiting::Ready), Some("x")), &message));
        assert!(!matches("a.*", "a") && !matches("a", "a.b"));
    }

    #[test]
    fn keys_come_back_from_their_subjects() {
        let names = names();
        for key in ["a", "a.b", "a..b", ".", "", "worker.host:1/x", "done.a", "=.=", "\u{e9}.*.>"] {
            assert_eq!(names.key_of(&names.key(key)).as_deref(), Some(key), "{key:?}");
            let notice = names.key(key).replacen(".kv.", ".kvdone.", 1);
            assert_eq!(names.key_of(&notice).as_deref(), Some(key), "{key:?}");
        }
        assert_eq!(names.keys("worker."), "aioq.kv.worker.>");
        assert_eq!(names.key_notices(""), "aioq.kvdone.>");
    }

    #[test]
    fn a_prefix_is_one_plain_token() {
        assert_eq!(Names::new("team-1_x").unwrap().jobs, "TEAM-1_X_JOBS");
        for prefix in ["", "Aioq", "a.b", "a b", "*", ">", &"a".repeat(33)] {
            assert_eq!(Names::new(prefix).unwrap_err().kind(), ErrorKind::Config, "{prefix:?}");
        }
    }
}
