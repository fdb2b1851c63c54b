//! Messages and records as those outside see them.

use aioq::broker::Queued;
use aioq::store::{JobRecord, Stored};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;

use crate::api::StoredMessage;
use crate::kick::not_before;
use crate::wire::subject::{Place, RecordPlace};

/// A stored message of a job; `None` if it is none.
pub(crate) fn queued(message: StoredMessage) -> Option<Queued> {
    let seen = seen(&message.subject, Some(&message.headers), message.payload)?;
    Some(seen.position(message.sequence).revision(message.sequence))
}

/// A message of a job on its way to the stream; `None` if it is none.
pub(crate) fn kicked(message: Message) -> Option<Queued> {
    seen(&message.subject, message.headers.as_ref(), message.payload)
}

fn seen(subject: &str, headers: Option<&HeaderMap>, body: Bytes) -> Option<Queued> {
    let place = Place::of(subject)?;
    let early = headers.and_then(not_before).is_some_and(|time| !time.until().is_zero());
    Some(Queued::new(place.job_id(), place.queue_name(), body, place.ready && !early))
}

/// A stored record, with what its subject tells if it cannot be read; `None` if it is none.
pub(crate) fn stored(message: &StoredMessage) -> Option<Stored> {
    let record = match JobRecord::from_bytes(&message.payload) {
        Ok(record) => record,
        Err(_) => {
            let place = RecordPlace::of(&message.subject)?;
            JobRecord::unreadable(place.id, place.queue, place.status)
        }
    };
    Some(Stored::new(record, message.sequence))
}
