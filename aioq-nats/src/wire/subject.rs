//! Where things are: the names of streams and consumers, and the subjects of messages.
//!
//! | stream | subjects |
//! |---|---|
//! | `<PREFIX>_JOBS` | `<prefix>.q.<queue>.<lane>.<id>` ready, `.s.` scheduled, `.t.` waiting for a retry |
//! | `<PREFIX>_RECORDS` | `<prefix>.r.<queue>.<status>.<id>`, each stored write again on `<prefix>.done.>` |
//! | `<PREFIX>_KV` | `<prefix>.kv.<part>.<part>...`, each stored write again on `<prefix>.kvdone.>` |

use std::borrow::Cow;

use aioq::broker::Waiting;
use aioq::store::Status;
use aioq::{Error, ErrorKind, JobId, Priority, Result};

use crate::wire::token::{escape, push_escaped, unescape};

/// The three classes that priorities fall into, the first in line first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    High,
    Normal,
    Low,
}

impl Lane {
    pub(crate) const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    pub(crate) const fn of(priority: Priority) -> Self {
        match priority.value() {
            0..=3 => Self::High,
            4..=6 => Self::Normal,
            _ => Self::Low,
        }
    }

    pub(crate) const fn token(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// The token that says what a message in the jobs' stream waits for.
const fn kind(waiting: Waiting) -> &'static str {
    match waiting {
        Waiting::Ready => "q",
        Waiting::Scheduled => "s",
        Waiting::Retrying => "t",
    }
}

/// The names that follow from a prefix.
#[derive(Debug)]
pub(crate) struct Names {
    prefix: String,
    pub(crate) jobs: String,
    pub(crate) records: String,
    pub(crate) kv: String,
}

impl Names {
    /// The names under `prefix`.
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

    /// Where a message goes.
    pub(crate) fn message(&self, waiting: Waiting, queue: &str, lane: Lane, id: &JobId) -> String {
        self.subject(kind(waiting), &[Part::Text(queue), Part::Plain(lane.token()), Part::Text(id.as_str())])
    }

    /// All messages of a job.
    pub(crate) fn messages_of(&self, id: &JobId) -> String {
        self.subject("*", &[Part::Plain("*"), Part::Plain("*"), Part::Text(id.as_str())])
    }

    /// All messages of a job that was kicked to `queue`: cheaper for the server than [`Self::messages_of`].
    pub(crate) fn messages_in(&self, queue: &str, id: &JobId) -> String {
        self.subject("*", &[Part::Text(queue), Part::Plain("*"), Part::Text(id.as_str())])
    }

    /// All messages, or those that wait for one thing, or those of one queue.
    pub(crate) fn messages(&self, waiting: Option<Waiting>, queue: Option<&str>) -> String {
        let queue = queue.map_or(Part::Plain("*"), Part::Text);
        self.subject(waiting.map_or("*", kind), &[queue, Part::Plain("*"), Part::Plain("*")])
    }

    /// What the consumer of a lane delivers.
    pub(crate) fn lane(&self, queue: &str, lane: Lane) -> String {
        self.subject("q", &[Part::Text(queue), Part::Plain(lane.token()), Part::Plain("*")])
    }

    /// Where a record goes.
    pub(crate) fn record(&self, queue: &str, status: Status, id: &JobId) -> String {
        self.subject("r", &[Part::Text(queue), Part::Plain(status.as_str()), Part::Text(id.as_str())])
    }

    /// All records, or those of one queue, or those with one status.
    pub(crate) fn records(&self, queue: Option<&str>, status: Option<Status>) -> String {
        let queue = queue.map_or(Part::Plain("*"), Part::Text);
        let status = status.map_or("*", Status::as_str);
        self.subject("r", &[queue, Part::Plain(status), Part::Plain("*")])
    }

    /// The records of a job that was kicked to `queue`, whatever its status.
    pub(crate) fn records_in(&self, queue: &str, id: &JobId) -> String {
        self.subject("r", &[Part::Text(queue), Part::Plain("*"), Part::Text(id.as_str())])
    }

    /// The records of a job.
    pub(crate) fn records_of(&self, id: &JobId) -> String {
        self.subject("r", &[Part::Plain("*"), Part::Plain("*"), Part::Text(id.as_str())])
    }

    /// Where the stored records of a job that was kicked to `queue` are told.
    pub(crate) fn told_records_in(&self, queue: &str, id: &JobId) -> String {
        self.subject("done", &[Part::Text(queue), Part::Plain("*"), Part::Text(id.as_str())])
    }

    /// Where the value of a key goes.
    pub(crate) fn key(&self, key: &str) -> String {
        self.key_parts("kv", key)
    }

    /// The keys that start with `key_prefix`, which is empty or ends with `.`.
    pub(crate) fn keys(&self, key_prefix: &str) -> String {
        self.keys_below("kv", key_prefix)
    }

    /// Where the stored changes of such keys are told.
    pub(crate) fn told_keys(&self, key_prefix: &str) -> String {
        self.keys_below("kvdone", key_prefix)
    }

    /// The key that is stored or told under `subject`; `None` if none is.
    pub(crate) fn key_of(&self, subject: &str) -> Option<String> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".kv")?;
        let tokens = rest.strip_prefix("done.").or_else(|| rest.strip_prefix('.'))?;
        // Keys are split at full stops, so none is in a part.
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

    fn subject(&self, kind: &str, parts: &[Part<'_>]) -> String {
        let mut subject = String::with_capacity(96);
        subject.push_str(&self.prefix);
        subject.push('.');
        subject.push_str(kind);
        for part in parts {
            subject.push('.');
            match part {
                Part::Text(text) => push_escaped(&mut subject, text),
                Part::Plain(token) => subject.push_str(token),
            }
        }
        subject
    }
}

enum Part<'a> {
    /// To be escaped.
    Text(&'a str),
    /// A token or a wildcard.
    Plain(&'a str),
}

/// The longest queue token that a consumer's name holds as it is: the server allows names of 255 bytes.
const MAX_QUEUE_IN_NAME: usize = 200;

/// The name of the consumer of a lane.
///
/// A queue with a very long token is cut and told apart by a hash behind `==`, which no token contains.
pub(crate) fn consumer_name(queue: &str, lane: Lane) -> String {
    let token = escape(queue);
    match token.get(..MAX_QUEUE_IN_NAME) {
        Some(start) if token.len() > MAX_QUEUE_IN_NAME => {
            format!("{start}=={:016x}-{}", fnv1a(token.as_bytes()), lane.token())
        }
        _ => format!("{token}-{}", lane.token()),
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// What a message's subject says: `<prefix>.<kind>.<queue>.<lane>.<id>`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    /// Whether it is ready to be delivered.
    pub(crate) ready: bool,
    /// The token of its queue.
    pub(crate) queue: &'a str,
    /// The token of its lane.
    pub(crate) lane: &'a str,
    /// The token of its id.
    pub(crate) id: &'a str,
}

impl<'a> Place<'a> {
    /// Reads a subject; `None` if it is none of a message.
    pub(crate) fn of(subject: &'a str) -> Option<Self> {
        let mut tokens = subject.split('.');
        let (_prefix, kind) = (tokens.next()?, tokens.next()?);
        let (queue, lane, id) = (tokens.next()?, tokens.next()?, tokens.next()?);
        let known = matches!(kind, "q" | "s" | "t") && tokens.next().is_none();
        known.then_some(Self { ready: kind == "q", queue, lane, id })
    }

    /// The job. A token that aioq did not write stands for itself: somebody must be able to name the message.
    pub(crate) fn job_id(&self) -> JobId {
        JobId::from(&*text_of(self.id))
    }

    /// The name of its queue.
    pub(crate) fn queue_name(&self) -> Cow<'a, str> {
        text_of(self.queue)
    }
}

/// What a record's subject says: `<prefix>.r.<queue>.<status>.<id>`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecordPlace<'a> {
    pub(crate) queue: Cow<'a, str>,
    /// [`Status::Unknown`] for one that only a newer version knows.
    pub(crate) status: Status,
    pub(crate) id: JobId,
}

impl<'a> RecordPlace<'a> {
    /// Reads a subject; `None` if it is none of a record.
    pub(crate) fn of(subject: &'a str) -> Option<Self> {
        let mut tokens = subject.split('.').skip(1);
        let (kind, queue, status, id) = (tokens.next()?, tokens.next()?, tokens.next()?, tokens.next()?);
        let status = Status::ALL.into_iter().find(|known| known.as_str() == status);
        (kind == "r" && tokens.next().is_none()).then(|| Self {
            queue: text_of(queue),
            status: status.unwrap_or(Status::Unknown),
            id: JobId::from(&*text_of(id)),
        })
    }
}

fn text_of(token: &str) -> Cow<'_, str> {
    unescape(token).unwrap_or(Cow::Borrowed(token))
}

/// Whether a subject is one of those that `filter` names, which may have `*` for tokens.
pub(crate) fn matches(filter: &str, subject: &str) -> bool {
    let (mut wanted, mut tokens) = (filter.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), tokens.next()) {
            (None, None) => return true,
            (Some(wanted), Some(token)) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new("aioq").unwrap()
    }

    #[test]
    fn priorities_fall_into_three_lanes() {
        let lane = |value| Lane::of(Priority::new(value).unwrap()).token();
        let lanes: Vec<_> = (0..=9).map(lane).collect();
        assert_eq!(lanes[..4], ["high"; 4]);
        assert_eq!(lanes[4..7], ["normal"; 3]);
        assert_eq!(lanes[7..], ["low"; 3]);
    }

    #[test]
    fn a_message_is_found_under_its_subject() {
        let subject = names().message(Waiting::Retrying, "mail.out", Lane::High, &"a b".into());
        assert_eq!(subject, "aioq.t.mail=2Eout.high.a=20b");
        let place = Place::of(&subject).unwrap();
        assert_eq!((place.ready, place.queue, place.lane), (false, "mail=2Eout", "high"));
        assert_eq!((place.job_id().as_str(), &*place.queue_name()), ("a b", "mail.out"));
        assert_eq!(names().messages_of(&"a b".into()), "aioq.*.*.*.a=20b");
        assert_eq!(names().messages_in("mail.out", &"a b".into()), "aioq.*.mail=2Eout.*.a=20b");
    }

    #[test]
    fn foreign_subjects_are_no_place() {
        for subject in ["", "aioq", "aioq.q.a.high", "aioq.q.a.high.b.c", "aioq.r.a.failed.b"] {
            assert_eq!(Place::of(subject), None, "{subject}");
        }
    }

    #[test]
    fn a_record_is_known_by_its_subject() {
        let subject = names().record("mail.out", Status::Failed, &"a b".into());
        let place = RecordPlace::of(&subject).unwrap();
        assert_eq!((&*place.queue, place.status, place.id.as_str()), ("mail.out", Status::Failed, "a b"));
        let odd = RecordPlace::of("aioq.r.=zz.paused.=4").unwrap();
        assert_eq!((&*odd.queue, odd.status, odd.id.as_str()), ("=zz", Status::Unknown, "=4"));
        for subject in ["", "aioq.r.a.failed", "aioq.r.a.failed.b.c", "aioq.q.a.high.b"] {
            assert_eq!(RecordPlace::of(subject), None, "{subject}");
        }
    }

    #[test]
    fn filters_name_what_they_are_made_for() {
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
            let told = names.key(key).replacen(".kv.", ".kvdone.", 1);
            assert_eq!(names.key_of(&told).as_deref(), Some(key), "{key:?}");
        }
        assert_eq!(names.keys("worker."), "aioq.kv.worker.>");
        assert_eq!(names.told_keys(""), "aioq.kvdone.>");
    }

    #[test]
    fn no_subject_is_too_odd_to_be_read_or_refused() {
        let seed = std::env::var("AIOQ_BAD_BYTES_SEED").map_or(1, |seed| seed.parse().unwrap());
        let mut random = fastrand::Rng::with_seed(seed);
        let pieces = [
            "aioq", "q", "s", "t", "r", "kv", "kvdone", "done", ".", "..", "=", "=2E", "=F", "=ZZ", "*", ">",
        ];
        let names = names();
        for _ in 0..300_000 {
            let mut subject = String::new();
            for _ in 0..random.usize(..12) {
                match random.u8(..4) {
                    0 => subject.push(random.char(..)),
                    1 => subject.push('.'),
                    _ => subject.push_str(random.choice(pieces).unwrap_or(".")),
                }
            }
            if let Some(place) = Place::of(&subject) {
                let (id, written) = (place.job_id(), unescape(place.id).is_some());
                assert!(!written || escape(id.as_str()) == place.id, "{subject:?}");
                assert!(matches("*.*.*.*.*", &subject));
            }
            let _ = RecordPlace::of(&subject);
            if let Some(key) = names.key_of(&subject) {
                let told = subject.starts_with("aioq.kvdone.");
                let again =
                    if told { names.key(&key).replacen(".kv.", ".kvdone.", 1) } else { names.key(&key) };
                assert_eq!(again, subject);
            }
            let _ = crate::wire::ack_subject::Delivered::read(&format!("$JS.ACK.{subject}"));
        }
    }

    #[test]
    fn a_prefix_is_one_plain_token() {
        assert_eq!(Names::new("team-1_x").unwrap().jobs, "TEAM-1_X_JOBS");
        for prefix in ["", "Aioq", "a.b", "a b", "*", ">", &"a".repeat(33)] {
            assert_eq!(Names::new(prefix).unwrap_err().kind(), ErrorKind::Config, "{prefix:?}");
        }
    }

    #[test]
    fn consumer_names_differ_and_fit() {
        let long = |last: char| format!("{}{last}", "\u{e9}".repeat(63));
        let names: Vec<_> = [long('a'), long('b'), "a".to_owned(), "a-high".to_owned()]
            .iter()
            .flat_map(|queue| Lane::ALL.map(|lane| consumer_name(queue, lane)))
            .collect();
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.iter().all(|name| name.len() <= 255));
    }
}
