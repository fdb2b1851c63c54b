//! Reads single messages of a stream.

use aioq::{Error, ErrorKind, Result, Timestamp};
use async_nats::{HeaderMap, HeaderName, HeaderValue, Message, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};

use super::call;
use crate::error::{Refusal, unexpected_reply};
use crate::link::{Deadline, Link, Outgoing};
use crate::wire::headers::number;

/// A stored message.
#[derive(Debug)]
pub(crate) struct StoredMessage {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

impl StoredMessage {
    /// Parses the answer to a direct get; `None` if there is no such message.
    pub(crate) fn from_direct(message: Message) -> Result<Option<Self>> {
        if message.status == Some(StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        let (Some(headers), None) = (message.headers, message.status) else {
            let why = message.description.unwrap_or_default();
            return Err(Error::new(ErrorKind::Backend, format!("the server refused a read: {why}")));
        };
        let subject =
            headers.get(async_nats::header::NATS_SUBJECT).map(|subject| subject.as_str().to_owned());
        let sequence = number(&headers, "Nats-Sequence");
        match (subject, sequence) {
            (Some(subject), Some(sequence)) => {
                Ok(Some(Self { subject, sequence, headers, payload: message.payload }))
            }
            _ => Err(unexpected_reply("a stored message")),
        }
    }
}

/// Newest message whose subject matches `filter`. In a cluster the leader answers, so it is up to
/// date.
pub(crate) async fn last(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
) -> Result<Option<StoredMessage>> {
    up_to_date(link, deadline, stream, &json!({ "last_by_subj": filter })).await
}

/// Oldest message from sequence `from` on whose subject matches `filter`. In a cluster the leader
/// answers.
pub(crate) async fn next_up_to_date(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
    from: u64,
) -> Result<Option<StoredMessage>> {
    up_to_date(link, deadline, stream, &json!({ "seq": from, "next_by_subj": filter })).await
}

/// Asks the leader in a cluster, where a replica that answers a direct get may be behind.
async fn up_to_date(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    request: &Value,
) -> Result<Option<StoredMessage>> {
    if link.is_clustered() {
        from_leader(link, deadline, stream, request).await
    } else {
        StoredMessage::from_direct(direct(link, deadline, stream, request).await?)
    }
}

/// Message with this sequence.
pub(crate) async fn by_sequence(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    sequence: u64,
) -> Result<Option<StoredMessage>> {
    StoredMessage::from_direct(direct(link, deadline, stream, &json!({ "seq": sequence })).await?)
}

/// Oldest message from sequence `from` on whose subject matches `filter`.
pub(crate) async fn next(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
    from: u64,
) -> Result<Option<StoredMessage>> {
    let request = json!({ "seq": from, "next_by_subj": filter });
    StoredMessage::from_direct(direct(link, deadline, stream, &request).await?)
}

async fn direct(link: &Link, deadline: Deadline, stream: &str, request: &Value) -> Result<Message> {
    let body: Bytes = request.to_string().into();
    let outgoing = |_| Outgoing::new(format!("$JS.API.DIRECT.GET.{stream}"), body.clone());
    link.ask(deadline, outgoing).await.map(|(message, _)| message)
}

/// Sequence and body of the newest message whose subject matches `filter`, from the stream's
/// leader.
pub(crate) async fn last_from_leader(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
) -> Result<Option<(u64, Bytes)>> {
    let found = from_leader(link, deadline, stream, &json!({ "last_by_subj": filter })).await?;
    Ok(found.map(|message| (message.sequence, message.payload)))
}

async fn from_leader(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    request: &Value,
) -> Result<Option<StoredMessage>> {
    let answer = match call(link, deadline, &format!("STREAM.MSG.GET.{stream}"), Some(request)).await? {
        Ok(answer) => answer,
        Err(refusal) if refusal.reason == Refusal::NO_MESSAGE => return Ok(None),
        Err(refusal) => return Err(refusal.into()),
    };
    let message = &answer["message"];
    let bytes = |key: &str| BASE64.decode(message[key].as_str().unwrap_or_default());
    match (message["subject"].as_str(), message["seq"].as_u64(), bytes("hdrs"), bytes("data")) {
        (Some(subject), Some(sequence), Ok(headers), Ok(payload)) => Ok(Some(StoredMessage {
            subject: subject.to_owned(),
            sequence,
            headers: parse_headers(&headers),
            payload: payload.into(),
        })),
        _ => Err(unexpected_reply("a stored message")),
    }
}

/// Parses headers as they travel: a line that names the protocol, then `Name: value` lines.
fn parse_headers(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in String::from_utf8_lossy(bytes).lines().skip(1) {
        if let Some((name, value)) = line.split_once(':')
            && let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.trim().parse::<HeaderValue>())
        {
            headers.append(name, value);
        }
    }
    headers
}

/// Number of messages from sequence `from` on whose subjects match `filter`.
pub(crate) async fn count(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
    from: u64,
) -> Result<u64> {
    let request = json!({ "seq": from, "batch": 1, "next_by_subj": filter });
    let rest = rest(link, deadline, stream, &request).await?;
    Ok(rest.map_or(0, |rest| rest.count))
}

/// The messages from a place in a stream on whose subjects match a filter.
pub(crate) struct Rest {
    /// Sequence of the first.
    pub(crate) first: u64,
    pub(crate) count: u64,
}

/// The messages that were stored at `time` or later, by the server's clock, and whose subjects
/// match `filter`; `None` if there are none.
pub(crate) async fn count_since(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
    time: Timestamp,
) -> Result<Option<Rest>> {
    let request = json!({ "start_time": time.to_string(), "batch": 1, "next_by_subj": filter });
    rest(link, deadline, stream, &request).await
}

/// Asks for the first message of a batch, which carries the number of messages behind it.
async fn rest(link: &Link, deadline: Deadline, stream: &str, request: &Value) -> Result<Option<Rest>> {
    let message = direct(link, deadline, stream, request).await?;
    let more = message.headers.as_ref().and_then(|headers| number(headers, "Nats-Num-Pending"));
    match (StoredMessage::from_direct(message)?, more) {
        (None, _) => Ok(None),
        (Some(message), Some(more)) => Ok(Some(Rest { first: message.sequence, count: more + 1 })),
        (Some(_), None) => Err(unexpected_reply("a batch without its length")),
    }
}

/// Sequence of the newest message that a stream has or had.
pub(crate) async fn last_sequence(link: &Link, deadline: Deadline, stream: &str) -> Result<u64> {
    let info = call(link, deadline, &format!("STREAM.INFO.{stream}"), None).await??;
    info["state"]["last_seq"].as_u64().ok_or_else(|| unexpected_reply("the state of a stream"))
}
