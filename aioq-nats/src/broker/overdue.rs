//! Schedules in the past whose message never came: [`recover`].
//!
//! A server that has no room when a schedule is due drops the message, and does not try again until it restarts. The
//! schedule itself stays. Written once more, it is due at once.

use std::time::Duration;

use aioq::broker::Waiting;
use aioq::{Result, Timestamp};
use async_nats::header::{NATS_SCHEDULE, NATS_SCHEDULE_TARGET};

use crate::api::StoredMessage;
use crate::api::batch;
use crate::api::publish::{expecting_in, publish};
use crate::connection::Session;
use crate::error::Refusal;
use crate::kick::copy_marks;
use crate::link::Outgoing;
use crate::wire::subject::Place;

/// A schedule that is due for longer was missed: the server delivers 20,000 that are due at once within half a second.
/// To write one again that is still to come changes nothing.
const LATE: Duration = Duration::from_secs(5);

/// How many to read at a time: for each batch the server counts what is left.
const AT_ONCE: usize = 16_384;

/// Writes the schedules again that were missed; how many.
pub(crate) async fn recover(session: &Session) -> Result<u64> {
    let mut recovered = 0;
    for waiting in [Waiting::Scheduled, Waiting::Retrying] {
        let filter = session.names.messages(Some(waiting), None);
        let (mut from, mut more) = (1, true);
        while more {
            let (stream, deadline) = (&session.names.jobs, session.deadline());
            let read = batch::read(&session.link, deadline, stream, &filter, from, AT_ONCE).await?;
            more = read.more;
            from = read.messages.last().map_or(from, |last| last.sequence + 1);
            for message in read.messages.iter().filter(|message| is_missed(message)) {
                recovered += u64::from(write_again(session, message).await?);
            }
        }
    }
    Ok(recovered)
}

fn is_missed(message: &StoredMessage) -> bool {
    let due = message.headers.get(NATS_SCHEDULE).and_then(|schedule| schedule.as_str().strip_prefix("@at "));
    let due = due.and_then(|due| due.parse::<Timestamp>().ok());
    due.is_some_and(|due| Timestamp::now().since(due) > LATE)
}

/// Writes a schedule again in its own place; false if the job has got further meanwhile.
async fn write_again(session: &Session, message: &StoredMessage) -> Result<bool> {
    let (Some(place), Some(schedule), Some(target)) = (
        Place::of(&message.subject),
        message.headers.get(NATS_SCHEDULE),
        message.headers.get(NATS_SCHEDULE_TARGET),
    ) else {
        return Ok(false);
    };
    let filter = session.names.messages_in(&place.queue_name(), &place.job_id());
    let outgoing = |_| {
        let mut headers = expecting_in(filter.clone(), message.sequence);
        headers.insert(NATS_SCHEDULE, schedule.clone());
        headers.insert(NATS_SCHEDULE_TARGET, target.clone());
        copy_marks(&message.headers, &mut headers);
        Outgoing {
            subject: message.subject.clone(),
            headers: Some(headers),
            payload: message.payload.clone(),
        }
    };
    let written = publish(&session.link, session.deadline(), 0, outgoing).await?;
    match written.answer {
        Ok(_) => Ok(true),
        Err(refusal) if Refusal::is_conflict(&refusal) => Ok(false),
        Err(refusal) => Err(refusal.into()),
    }
}
