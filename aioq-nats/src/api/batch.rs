//! Reads many messages of a stream with one request.

use std::pin::pin;
use std::time::Duration;

use aioq::{Error, ErrorKind, Result};
use async_nats::{Message, StatusCode};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{sleep, timeout_at};

use super::get::StoredMessage;
use crate::error::{broken, too_late, unsent};
use crate::link::{Deadline, Link, Verb};
use crate::wire::headers::number;

/// Largest number of messages in one batch.
pub(crate) const MAX_MESSAGES: usize = 1000;

/// Size in bytes at which a batch ends early.
const MAX_BYTES: usize = 8 << 20;

/// Status of a request for the newest message of more than 1,024 subjects.
const TOO_MANY: u16 = 413;

/// Messages, sorted by sequence.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<StoredMessage>,
    /// True if more messages follow; then this batch is not empty.
    pub(crate) more: bool,
}

/// Up to `limit` messages from sequence `from` on whose subjects match `filter`.
///
/// The server counts the matches behind the first message, which takes 4 ms for 40,000 subjects.
pub(crate) async fn read(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
    from: u64,
    limit: usize,
) -> Result<Batch> {
    let request = json!({ "seq": from, "batch": limit, "max_bytes": MAX_BYTES, "next_by_subj": filter });
    request_batch(link, deadline, stream, &request).await
}

/// The newest message of each subject that matches one of the filters, sorted by sequence; `None`
/// if there are too many for one request.
///
/// The server finds the subjects by its index, however many others the stream has. [`read`] walks
/// over the messages of the others.
pub(crate) async fn last_of_each(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filters: &[String],
) -> Result<Option<Vec<StoredMessage>>> {
    let request = json!({ "multi_last": filters, "batch": MAX_MESSAGES, "max_bytes": MAX_BYTES });
    let batch = request_batch(link, deadline, stream, &request).await?;
    Ok((!batch.more).then_some(batch.messages))
}

async fn request_batch(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    request: &serde_json::Value,
) -> Result<Batch> {
    let request = request.to_string();
    loop {
        link.until_up(deadline).await?;
        let read = timeout_at(deadline.resend_at(), read_once(link, stream, &request)).await;
        match read.unwrap_or_else(|_| Err(too_late(link.address(), deadline.span))) {
            Err(error) if is_passing(&error) && !deadline.has_passed() => {
                sleep(Duration::from_millis(50)).await
            }
            done => return done,
        }
    }
}

fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Connection | ErrorKind::Deadline)
}

async fn read_once(link: &Link, stream: &str, request: &str) -> Result<Batch> {
    let inbox = link.new_inbox();
    // Ends when the connection breaks: the rest of the batch is lost.
    let mut replies = link.subscribe(inbox.clone()).await?.take_until(Box::pin(link.broken()));
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    let mut denied = pin!(link.denied(Verb::Publish, subject.clone()));
    let sent = link.client().publish_with_reply(subject, inbox, request.to_owned().into());
    sent.await.map_err(unsent)?;
    let mut messages = Vec::new();
    loop {
        let message = tokio::select! {
            message = replies.next() => message.ok_or_else(|| broken("the connection broke"))?,
            error = &mut denied => return Err(error),
        };
        if let Some(more) = end(&message) {
            return Ok(Batch { more: more && !messages.is_empty(), messages });
        }
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            link.report_missing_stream();
            return Err(broken(format!("no server answers for the stream {stream}")));
        }
        if message.status.is_some_and(|status| status.as_u16() == TOO_MANY) {
            return Ok(Batch { messages, more: true });
        }
        match StoredMessage::from_direct(message)? {
            Some(message) => messages.push(message),
            None => return Ok(Batch { messages, more: false }),
        }
    }
}

/// For the end of a batch (status 204): true if more messages follow. `None` for any other message.
fn end(message: &Message) -> Option<bool> {
    message.status.filter(|status| status.as_u16() == 204)?;
    let left = message.headers.as_ref().and_then(|headers| number(headers, "Nats-Num-Pending"));
    Some(left.is_some_and(|left| left > 0))
}
