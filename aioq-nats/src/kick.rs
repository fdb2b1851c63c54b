//! Kicks: puts a message into the stream of jobs.

pub(crate) mod bulk;

use std::time::Duration;

use aioq::broker::{Expect, Kicked, Waiting};
use aioq::message::{Envelope, check_queue_name};
use aioq::{Error, ErrorKind, Result};
use async_nats::HeaderMap;

use crate::api::get::last_from_leader;
use crate::api::publish::{Written, publish};
use crate::link::{Deadline, Outgoing};
use crate::session::Session;
use crate::wire::headers::{expecting, expecting_in, mark_resent, schedule, set_not_before};
use crate::wire::lane::Lane;
use crate::wire::names::Names;

/// Shortest delay that the server schedules. Listeners keep messages with shorter delays until they
/// are due: a schedule costs a second write and is less precise than a second.
pub(crate) const SHORTEST_SCHEDULE: Duration = Duration::from_secs(1);

/// Refuses an envelope with an invalid id or queue name, or with too large a body.
pub(crate) fn check_envelope(session: &Session, envelope: &Envelope) -> Result<()> {
    envelope.id.check()?;
    check_queue_name(&envelope.queue).map_err(|error| error.with_id(envelope.id.clone()))?;
    let (bytes, max) = (envelope.body.len(), session.max_body_bytes());
    if bytes <= max {
        return Ok(());
    }
    let message = format!("the message has {bytes} bytes, the limit is {max}");
    Err(Error::new(ErrorKind::TooLarge, message).with_id(envelope.id.clone()))
}

/// Kicks until the stream confirms or `deadline` passes. Attempts are counted from `attempt`.
pub(crate) async fn kick(
    session: &Session,
    envelope: &Envelope,
    expect: Expect,
    attempt: u32,
    deadline: Deadline,
) -> Result<Kicked> {
    let kick = Kick::new(&session.names, envelope, expect);
    let kicked = async {
        let written = publish(&session.link, deadline, attempt, |attempt| kick.outgoing(attempt)).await?;
        kick.result(session, written, deadline).await
    };
    kicked.await.map_err(|error: Error| error.with_id(envelope.id.clone()))
}

/// One kick, which may be sent more than once.
struct Kick<'a> {
    names: &'a Names,
    envelope: &'a Envelope,
    expect: Expect,
    /// Decided once, so that all attempts use one subject.
    waiting: Waiting,
}

impl<'a> Kick<'a> {
    fn new(names: &'a Names, envelope: &'a Envelope, expect: Expect) -> Self {
        Self { names, envelope, expect, waiting: waiting(envelope) }
    }

    /// Message of one attempt.
    ///
    /// A repeated message is marked: the first copy may have been run and acked meanwhile, so the
    /// worker reads the record before it runs this one.
    fn outgoing(&self, attempt: u32) -> Outgoing {
        let mut condition = self.condition(attempt);
        if attempt > 0 {
            mark_resent(&mut condition);
        }
        message(self.names, self.envelope, self.waiting, condition)
    }

    fn condition(&self, attempt: u32) -> HeaderMap {
        let Envelope { id, queue, .. } = self.envelope;
        match self.expect {
            // The id is new, so only an earlier attempt can be there. A condition on the subject
            // alone is the cheapest for the server, and correct as long as the message cannot have
            // moved to another subject.
            Expect::Any if attempt == 0 && self.envelope.not_before.is_none() => expecting(0),
            Expect::Any => expecting_in(self.names.messages_in(queue, id), 0),
            Expect::Absent => expecting_in(self.names.messages_of(id), 0),
            Expect::Revision(sequence) => expecting_in(self.names.messages_of(id), sequence),
        }
    }

    /// Result of a publish.
    async fn result(&self, session: &Session, written: Written, deadline: Deadline) -> Result<Kicked> {
        match written.answer {
            Ok(_) => Ok(Kicked::New),
            Err(refusal) if !refusal.is_conflict() => Err(refusal.into()),
            // The conflict may be our own earlier publish whose confirmation was lost.
            Err(_) if written.resent && self.is_newest(session, deadline).await? => Ok(Kicked::New),
            Err(_) => Ok(Kicked::Existing),
        }
    }

    /// True if the newest message of the job is this one.
    async fn is_newest(&self, session: &Session, deadline: Deadline) -> Result<bool> {
        if self.expect == Expect::Any {
            return Ok(true);
        }
        let filter = self.names.messages_of(&self.envelope.id);
        let newest = last_from_leader(&session.link, deadline, &self.names.jobs, &filter).await?;
        Ok(newest.is_some_and(|(_, body)| body == self.envelope.body))
    }
}

/// State of a message that is kicked now: ready, scheduled or waiting for a retry.
pub(crate) fn waiting(envelope: &Envelope) -> Waiting {
    match envelope.not_before {
        Some(time) if time.until() >= SHORTEST_SCHEDULE => match envelope.attempt {
            0 | 1 => Waiting::Scheduled,
            _ => Waiting::Retrying,
        },
        _ => Waiting::Ready,
    }
}

/// Message of an envelope. `headers` holds the condition of the publish.
pub(crate) fn message(names: &Names, envelope: &Envelope, waiting: Waiting, headers: HeaderMap) -> Outgoing {
    let mut headers = headers;
    let Envelope { id, queue, body, .. } = envelope;
    let lane = Lane::of(envelope.priority);
    match envelope.not_before {
        Some(time) if waiting != Waiting::Ready => {
            schedule(&mut headers, time, names.message(Waiting::Ready, queue, lane, id));
        }
        Some(time) if !time.until().is_zero() => set_not_before(&mut headers, time),
        _ => {}
    }
    let subject = names.message(waiting, queue, lane, id);
    Outgoing { subject, headers: Some(headers), payload: body.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aioq::Timestamp;

    fn envelope(delay: Option<Duration>, attempt: u32) -> Envelope {
        let mut envelope = Envelope::new("j".into(), "mail", "body");
        envelope.not_before = delay.map(|delay| Timestamp::now() + delay);
        envelope.attempt = attempt;
        envelope
    }

    #[test]
    fn delays_from_a_second_on_are_schedules_and_shorter_ones_are_not() {
        let subject = |delay, attempt| {
            let envelope = envelope(delay, attempt);
            let names = Names::new("aioq").unwrap();
            Kick::new(&names, &envelope, Expect::Any).outgoing(0).subject
        };
        assert_eq!(subject(None, 1), "aioq.q.mail.normal.j");
        assert_eq!(subject(Some(Duration::from_millis(900)), 1), "aioq.q.mail.normal.j");
        assert_eq!(subject(Some(Duration::from_secs(2)), 1), "aioq.s.mail.normal.j");
        assert_eq!(subject(Some(Duration::from_secs(2)), 2), "aioq.t.mail.normal.j");
    }

    #[test]
    fn a_repeated_attempt_covers_every_subject_the_message_may_have_moved_to() {
        let names = Names::new("aioq").unwrap();
        let envelope = envelope(None, 1);
        let asked = |expect, attempt| {
            let headers = Kick::new(&names, &envelope, expect).outgoing(attempt).headers.unwrap();
            let filter = headers.get("Nats-Expected-Last-Subject-Sequence-Subject");
            filter.map(|filter| filter.as_str().to_owned())
        };
        assert_eq!(asked(Expect::Any, 0), None);
        assert_eq!(asked(Expect::Any, 1).as_deref(), Some("aioq.*.mail.*.j"));
        assert_eq!(asked(Expect::Absent, 0).as_deref(), Some("aioq.*.*.*.j"));
    }
}
