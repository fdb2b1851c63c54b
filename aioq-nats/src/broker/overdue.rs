//! Recovery of scheduled messages that the server dropped: [`recover`].
//!
//! A server whose storage is full when a schedule is due drops the message, and does not try again
//! until it restarts. The schedule itself stays in the stream. Written again, it fires at once.

use std::time::Duration;

use aioq::broker::Waiting;
use aioq::{Result, Timestamp};
use async_nats::header::{NATS_SCHEDULE, NATS_SCHEDULE_TARGET};

use crate::api::batch;
use crate::api::get::StoredMessage;
use crate::api::publish::publish;
use crate::link::Outgoing;
use crate::session::Session;
use crate::wire::headers::{expecting_in, is_resent, mark_resent};
use crate::wire::subject::MessageSubject;

/// Delay after which a schedule counts as missed. The server delivers 20,000 schedules that are due
/// at once within half a second. Writing a schedule again too early changes nothing.
const LATE: Duration = Duration::from_secs(5);

/// Number of schedules read at a time. Large, because the server counts the rest for each batch.
const BATCH: usize = 16_384;

/// Writes all missed schedules again and returns their number.
pub(crate) async fn recover(session: &Session) -> Result<u64> {
    let mut recovered = 0;
    for waiting in [Waiting::Scheduled, Waiting::Retrying] {
        let filter = session.names.messages(Some(waiting), None);
        let (mut from, mut more) = (1, true);
        while more {
            let (stream, deadline) = (&session.names.jobs, session.deadline());
            let read = batch::read(&session.link, deadline, stream, &filter, from, BATCH).await?;
            more = read.more;
            from = read.messages.last().map_or(from, |last| last.sequence + 1);
            for message in read.messages.iter().filter(|message| is_missed(message)) {
                recovered += u64::from(rewrite(session, message).await?);
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

/// Writes a schedule again under its subject; false if the job has moved on meanwhile.
async fn rewrite(session: &Session, message: &StoredMessage) -> Result<bool> {
    let (Some(subject), Some(schedule), Some(target)) = (
        MessageSubject::parse(&message.subject),
        message.headers.get(NATS_SCHEDULE),
        message.headers.get(NATS_SCHEDULE_TARGET),
    ) else {
        return Ok(false);
    };
    let filter = session.names.messages_in(&subject.queue_name(), &subject.job_id());
    let outgoing = |_| {
        let mut headers = expecting_in(filter.clone(), message.sequence);
        headers.insert(NATS_SCHEDULE, schedule.clone());
        headers.insert(NATS_SCHEDULE_TARGET, target.clone());
        if is_resent(&message.headers) {
            mark_resent(&mut headers);
        }
        Outgoing {
            subject: message.subject.clone(),
            headers: Some(headers),
            payload: message.payload.clone(),
        }
    };
    let written = publish(&session.link, session.deadline(), 0, outgoing).await?;
    match written.answer {
        Ok(_) => Ok(true),
        Err(refusal) if refusal.is_conflict() => Ok(false),
        Err(refusal) => Err(refusal.into()),
    }
}
