//! Messages of jobs as callers see them: [`Queued`].

use aioq::broker::Queued;
use async_nats::{HeaderMap, Message};
use bytes::Bytes;

use crate::api::get::StoredMessage;
use crate::wire::headers::not_before;
use crate::wire::subject::MessageSubject;

/// Stored message of a job; `None` for any other message.
pub(crate) fn queued(message: StoredMessage) -> Option<Queued> {
    let queued = view(&message.subject, Some(&message.headers), message.payload)?;
    Some(queued.position(message.sequence).revision(message.sequence))
}

/// Message of a job on its way to the stream; `None` for any other message.
pub(crate) fn on_its_way(message: Message) -> Option<Queued> {
    view(&message.subject, message.headers.as_ref(), message.payload)
}

fn view(subject: &str, headers: Option<&HeaderMap>, body: Bytes) -> Option<Queued> {
    let parsed = MessageSubject::parse(subject)?;
    let is_early = headers.and_then(not_before).is_some_and(|time| !time.until().is_zero());
    Some(Queued::new(parsed.job_id(), parsed.queue_name(), body, parsed.ready && !is_early))
}
