//! How a message is put into the stream: under which subject, and on which condition.

use std::time::Duration;

use aioq::broker::{Expect, Waiting};
use aioq::{Envelope, Result, Timestamp};
use async_nats::{HeaderMap, HeaderName};

use crate::api::last_of_leader;
use crate::api::publish::{expecting, expecting_in, schedule};
use crate::connection::Session;
use crate::link::{Deadline, Outgoing};
use crate::wire::subject::{Lane, Names};

/// Delays below this are kept by the listener that gets the message too early: the server's schedules are less
/// precise than that, and cost a second write.
pub(crate) const SHORTEST_SCHEDULE: Duration = Duration::from_secs(1);

/// Tells the listener when a message on a ready subject may be handed out: microseconds since 1970.
const RESENT: HeaderName = HeaderName::from_static("Aioq-Resent");

/// Whether a message may be the echo of one that was delivered before.
pub(crate) fn is_resent(headers: &HeaderMap) -> bool {
    headers.get(RESENT).is_some()
}

/// Copies what a message says of itself beyond its body.
pub(crate) fn copy_marks(from: &HeaderMap, to: &mut HeaderMap) {
    if is_resent(from) {
        to.insert(RESENT, "1");
    }
}

const NOT_BEFORE: HeaderName = HeaderName::from_static("Aioq-Not-Before");

/// One kick, ready to be sent as often as it takes.
pub(crate) struct Kick<'a> {
    names: &'a Names,
    envelope: &'a Envelope,
    expect: Expect,
    /// Decided once, so that all tries agree.
    waiting: Waiting,
}

impl<'a> Kick<'a> {
    pub(crate) fn new(names: &'a Names, envelope: &'a Envelope, expect: Expect) -> Self {
        Self { names, envelope, expect, waiting: waiting(envelope) }
    }

    /// The message of one try.
    ///
    /// One that was sent again says so: the first may have been run and acked meanwhile, so the worker reads the
    /// record before it runs this one.
    pub(crate) fn outgoing(&self, attempt: u32) -> Outgoing {
        let mut condition = self.condition(attempt);
        if attempt > 0 {
            condition.insert(RESENT, "1");
        }
        seal(self.names, self.envelope, self.waiting, condition)
    }

    fn condition(&self, attempt: u32) -> HeaderMap {
        let Envelope { id, queue, .. } = self.envelope;
        match self.expect {
            // The id is new, so only this kick itself can be there already. Asking the subject alone is the
            // cheapest for the server, and right as long as the message cannot have moved on.
            Expect::Any if attempt == 0 && self.envelope.not_before.is_none() => expecting(0),
            Expect::Any => expecting_in(self.names.messages_in(queue, id), 0),
            Expect::Absent => expecting_in(self.names.messages_of(id), 0),
            Expect::Revision(sequence) => expecting_in(self.names.messages_of(id), sequence),
        }
    }

    /// Whether the newest message of the job is this one.
    pub(crate) async fn is_there(&self, session: &Session, deadline: Deadline) -> Result<bool> {
        if self.expect == Expect::Any {
            return Ok(true);
        }
        let filter = self.names.messages_of(&self.envelope.id);
        let newest = last_of_leader(&session.link, deadline, &self.names.jobs, &filter).await?;
        Ok(newest.is_some_and(|(_, body)| body == self.envelope.body))
    }
}

/// What an envelope waits for if it is kicked now.
pub(crate) fn waiting(envelope: &Envelope) -> Waiting {
    match envelope.not_before {
        Some(time) if time.until() >= SHORTEST_SCHEDULE => match envelope.attempt {
            0 | 1 => Waiting::Scheduled,
            _ => Waiting::Retrying,
        },
        _ => Waiting::Ready,
    }
}

/// The message for an envelope, on a condition.
pub(crate) fn seal(names: &Names, envelope: &Envelope, waiting: Waiting, condition: HeaderMap) -> Outgoing {
    let mut headers = condition;
    let Envelope { id, queue, body, .. } = envelope;
    let lane = Lane::of(envelope.priority);
    match envelope.not_before {
        Some(time) if waiting != Waiting::Ready => {
            schedule(&mut headers, time, names.message(Waiting::Ready, queue, lane, id));
        }
        Some(time) if !time.until().is_zero() => headers.insert(NOT_BEFORE, time.as_micros().to_string()),
        _ => {}
    }
    let subject = names.message(waiting, queue, lane, id);
    Outgoing { subject, headers: Some(headers), payload: body.clone() }
}

/// The time before which a stored message must not be handed out, if it has one.
pub(crate) fn not_before(headers: &HeaderMap) -> Option<Timestamp> {
    let micros = headers.get(NOT_BEFORE)?.as_str().parse().ok()?;
    Some(Timestamp::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_repeated_try_asks_for_every_place_the_message_may_have_moved_to() {
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
