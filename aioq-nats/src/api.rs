//! The requests of the JetStream API that aioq makes, as JSON: no client library decides what is sent.

pub(crate) mod batch;
pub(crate) mod page;
pub(crate) mod publish;

use std::time::Duration;

use aioq::{Error, ErrorKind, Result};
use async_nats::{HeaderMap, HeaderName, HeaderValue, Message, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::error::{Refusal, nonsense};
use crate::link::{Deadline, Link, Outgoing};

/// As [`call`], also where a stream is missed that is not to be declared again.
pub(crate) async fn call_bare(
    link: &Link,
    deadline: Deadline,
    what: &str,
    request: Option<&Value>,
) -> Result<Result<Value, Refusal>> {
    let asked = call_until(link, deadline, what, request, Refusal::is_passing).await;
    asked.map(|(answer, _)| answer)
}

/// Asks JetStream: its answer, or why it refuses. A refusal that may pass is asked again until `deadline`, and so is
/// one for a stream that is missing, which is declared again meanwhile.
pub(crate) async fn call(
    link: &Link,
    deadline: Deadline,
    what: &str,
    request: Option<&Value>,
) -> Result<Result<Value, Refusal>> {
    call_told(link, deadline, what, request).await.map(|(answer, _)| answer)
}

/// As [`call`]; tells also whether it was asked more than once, so that an earlier try may have passed.
async fn call_told(
    link: &Link,
    deadline: Deadline,
    what: &str,
    request: Option<&Value>,
) -> Result<(Result<Value, Refusal>, bool)> {
    let passes = |refusal: &Refusal| {
        let is_missing = refusal.reason == Refusal::STREAM_NOT_FOUND;
        if is_missing {
            link.note_missing();
        }
        is_missing || refusal.is_passing()
    };
    call_until(link, deadline, what, request, passes).await
}

async fn call_until(
    link: &Link,
    deadline: Deadline,
    what: &str,
    request: Option<&Value>,
    passes: impl Fn(&Refusal) -> bool,
) -> Result<(Result<Value, Refusal>, bool)> {
    let body = request.map_or_else(Bytes::new, |request| request.to_string().into());
    loop {
        let outgoing = |_| Outgoing::new(format!("$JS.API.{what}"), body.clone());
        let (message, attempt) = link.ask(deadline, outgoing).await?;
        match read_answer(&message)? {
            Err(refusal) if passes(&refusal) && !deadline.has_passed() => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => return Ok((answer, attempt > 0)),
        }
    }
}

fn read_answer(message: &Message) -> Result<Result<Value, Refusal>> {
    let mut answer: Value = serde_json::from_slice(&message.payload)
        .map_err(|error| nonsense("an API answer").with_source(error))?;
    match answer.get_mut("error").map(Value::take) {
        None => Ok(Ok(answer)),
        Some(error) => {
            let refusal = serde_json::from_value(error);
            refusal.map(Err).map_err(|error| nonsense("an API error").with_source(error))
        }
    }
}

/// A message as it is stored.
#[derive(Debug)]
pub(crate) struct StoredMessage {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

impl StoredMessage {
    /// Reads the answer to a direct get; `None` if nothing was found.
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
            _ => Err(nonsense("a stored message")),
        }
    }
}

/// A number in a header.
pub(crate) fn number(headers: &HeaderMap, name: &'static str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

/// The newest message whose subject matches `filter`, as it is now: in a cluster as the stream's leader has it.
pub(crate) async fn last(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
) -> Result<Option<StoredMessage>> {
    up_to_date(link, deadline, stream, &json!({ "last_by_subj": filter })).await
}

/// The oldest message from sequence `from` on whose subject matches `filter`, as it is now.
pub(crate) async fn next_up_to_date(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
    from: u64,
) -> Result<Option<StoredMessage>> {
    up_to_date(link, deadline, stream, &json!({ "seq": from, "next_by_subj": filter })).await
}

/// A direct get may be answered by a replica that is a little behind.
async fn up_to_date(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    request: &Value,
) -> Result<Option<StoredMessage>> {
    match link.is_clustered() {
        true => of_leader(link, deadline, stream, request).await,
        false => StoredMessage::from_direct(direct(link, deadline, stream, request).await?),
    }
}

/// The message of that sequence.
pub(crate) async fn at(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    sequence: u64,
) -> Result<Option<StoredMessage>> {
    StoredMessage::from_direct(direct(link, deadline, stream, &json!({ "seq": sequence })).await?)
}

/// The oldest message from sequence `from` on whose subject matches `filter`.
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

/// The sequence and the body of the newest message whose subject matches `filter`, as the stream's leader has it.
pub(crate) async fn last_of_leader(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
) -> Result<Option<(u64, Bytes)>> {
    let found = of_leader(link, deadline, stream, &json!({ "last_by_subj": filter })).await?;
    Ok(found.map(|message| (message.sequence, message.payload)))
}

async fn of_leader(
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
            headers: read_headers(&headers),
            payload: payload.into(),
        })),
        _ => Err(nonsense("a stored message")),
    }
}

/// Headers as they travel: a line that names the protocol, then `Name: value` lines.
fn read_headers(bytes: &[u8]) -> HeaderMap {
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

/// How many messages match `filter`, from sequence `from` on.
pub(crate) async fn count(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
    from: u64,
) -> Result<u64> {
    // The first of a batch tells how many come after it.
    let request = json!({ "seq": from, "batch": 1, "next_by_subj": filter });
    let message = direct(link, deadline, stream, &request).await?;
    let more = message.headers.as_ref().and_then(|headers| number(headers, "Nats-Num-Pending"));
    match (StoredMessage::from_direct(message)?, more) {
        (None, _) => Ok(0),
        (Some(_), Some(more)) => Ok(more + 1),
        (Some(_), None) => Err(nonsense("a batch without its length")),
    }
}

/// What a purge leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spared {
    /// The messages from that sequence on.
    From(u64),
    /// That many of the newest.
    Newest(u64),
}

/// Removes the messages that match `filter` but for those spared: how many, and whether an earlier try, whose
/// answer was lost, may have removed more.
pub(crate) async fn purge(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
    spared: Spared,
) -> Result<(u64, bool)> {
    let request = match spared {
        Spared::From(sequence) => json!({ "filter": filter, "seq": sequence }),
        Spared::Newest(count) => json!({ "filter": filter, "keep": count }),
    };
    let what = format!("STREAM.PURGE.{stream}");
    let (answer, resent) = call_told(link, deadline, &what, Some(&request)).await?;
    Ok((answer?["purged"].as_u64().unwrap_or(0), resent))
}

/// Removes the message of that sequence; whether it was there.
pub(crate) async fn delete(link: &Link, deadline: Deadline, stream: &str, sequence: u64) -> Result<bool> {
    let request = json!({ "seq": sequence, "no_erase": true });
    let what = format!("STREAM.MSG.DELETE.{stream}");
    let (answer, resent) = call_told(link, deadline, &what, Some(&request)).await?;
    let refusal = match answer {
        Ok(_) => return Ok(true),
        Err(refusal) => refusal,
    };
    let gone = match refusal.reason {
        Refusal::SEQUENCE_NOT_FOUND => true,
        // So it says of what lies before the first message, too.
        Refusal::DELETE_FAILED => is_gone(link, deadline, stream, sequence).await?,
        _ => false,
    };
    // What is gone when it is asked for again was removed by the first try, whose answer was lost.
    if gone { Ok(resent) } else { Err(refusal.into()) }
}

async fn is_gone(link: &Link, deadline: Deadline, stream: &str, sequence: u64) -> Result<bool> {
    let what = format!("STREAM.MSG.GET.{stream}");
    let answer = call(link, deadline, &what, Some(&json!({ "seq": sequence }))).await?;
    Ok(answer.is_err_and(|refusal| refusal.reason == Refusal::NO_MESSAGE))
}
