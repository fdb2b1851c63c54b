//! Subjects of messages and records, parsed.

use std::borrow::Cow;

use aioq::JobId;
use aioq::store::Status;

use super::token::unescape;

/// Parsed subject of a message: `<prefix>.<kind>.<queue>.<lane>.<id>`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MessageSubject<'a> {
    /// True if the message can be delivered; false if it is scheduled or waits for a retry.
    pub(crate) ready: bool,
    /// Token of the queue.
    pub(crate) queue: &'a str,
    /// Token of the lane.
    pub(crate) lane: &'a str,
    /// Token of the job id.
    pub(crate) id: &'a str,
}

impl<'a> MessageSubject<'a> {
    /// Parses a subject; `None` if it is not the subject of a message.
    pub(crate) fn parse(subject: &'a str) -> Option<Self> {
        let mut tokens = subject.split('.');
        let (_prefix, kind) = (tokens.next()?, tokens.next()?);
        let (queue, lane, id) = (tokens.next()?, tokens.next()?, tokens.next()?);
        let known = matches!(kind, "q" | "s" | "t") && tokens.next().is_none();
        known.then_some(Self { ready: kind == "q", queue, lane, id })
    }

    /// Id of the job. A token that aioq did not write is taken as it is, so that the message can be
    /// named.
    pub(crate) fn job_id(&self) -> JobId {
        JobId::from(&*text_of(self.id))
    }

    /// Name of the queue.
    pub(crate) fn queue_name(&self) -> Cow<'a, str> {
        text_of(self.queue)
    }
}

/// Parsed subject of a record: `<prefix>.r.<queue>.<status>.<id>`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecordSubject<'a> {
    pub(crate) queue: Cow<'a, str>,
    /// [`Status::Unknown`] for a status of a newer version.
    pub(crate) status: Status,
    pub(crate) id: JobId,
}

impl<'a> RecordSubject<'a> {
    /// Parses a subject; `None` if it is not the subject of a record.
    pub(crate) fn parse(subject: &'a str) -> Option<Self> {
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

/// True if `subject` matches `filter`, in which `*` stands for any one token.
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
    use super::super::lane::Lane;
    use super::super::names::Names;
    use super::super::token::escape;
    use super::*;
    use aioq::broker::Waiting;

    fn names() -> Names {
        Names::new("aioq").unwrap()
    }

    #[test]
    fn a_message_is_found_under_its_subject() {
        let subject = names().message(Waiting::Retrying, "mail.out", Lane::High, &"a b".into());
        assert_eq!(subject, "aioq.t.mail=2Eout.high.a=20b");
        let parsed = MessageSubject::parse(&subject).unwrap();
        assert_eq!((parsed.ready, parsed.queue, parsed.lane), (false, "mail=2Eout", "high"));
        assert_eq!((parsed.job_id().as_str(), &*parsed.queue_name()), ("a b", "mail.out"));
        assert_eq!(names().messages_of(&"a b".into()), "aioq.*.*.*.a=20b");
        assert_eq!(names().messages_in("mail.out", &"a b".into()), "aioq.*.mail=2Eout.*.a=20b");
    }

    #[test]
    fn foreign_subjects_are_not_parsed() {
        for subject in ["", "aioq", "aioq.q.a.high", "aioq.q.a.high.b.c", "aioq.r.a.failed.b"] {
            assert_eq!(MessageSubject::parse(subject), None, "{subject}");
        }
    }

    #[test]
    fn a_record_is_known_by_its_subject() {
        let subject = names().record("mail.out", Status::Failed, &"a b".into());
        let parsed = RecordSubject::parse(&subject).unwrap();
        assert_eq!((&*parsed.queue, parsed.status, parsed.id.as_str()), ("mail.out", Status::Failed, "a b"));
        let odd = RecordSubject::parse("aioq.r.=zz.paused.=4").unwrap();
        assert_eq!((&*odd.queue, odd.status, odd.id.as_str()), ("=zz", Status::Unknown, "=4"));
        for subject in ["", "aioq.r.a.failed", "aioq.r.a.failed.b.c", "aioq.q.a.high.b"] {
            assert_eq!(RecordSubject::parse(subject), None, "{subject}");
        }
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
            if let Some(parsed) = MessageSubject::parse(&subject) {
                let (id, written) = (parsed.job_id(), unescape(parsed.id).is_some());
                assert!(!written || escape(id.as_str()) == parsed.id, "{subject:?}");
                assert!(matches("*.*.*.*.*", &subject));
            }
            let _ = RecordSubject::parse(&subject);
            if let Some(key) = names.key_of(&subject) {
                let told = subject.starts_with("aioq.kvdone.");
                let again =
                    if told { names.key(&key).replacen(".kv.", ".kvdone.", 1) } else { names.key(&key) };
                assert_eq!(again, subject);
            }
            let _ = crate::wire::ack_subject::AckSubject::parse(&format!("$JS.ACK.{subject}"));
        }
    }
}
