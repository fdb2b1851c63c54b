//! The requests of the JetStream API that aioq makes, as JSON: no client library decides what is sent.

use std::time::Duration;

use aioq::{Error, ErrorKind, Result};
use async_nats::{HeaderMap, Message, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::error::{Refusal, nonsense};
use crate::link::{Deadline, Link, Outgoing};

/// Asks JetStream: its answer, or why it refuses. A refusal that may pass is asked again until `deadline`.
pub(crate) async fn call(
    link: &Link,
    deadline: Deadline,
    what: &str,
    request: Option<&Value>,
) -> Result<Result<Value, Refusal>> {
    let body = request.map_or_else(Bytes::new, |request| request.to_string().into());
    loop {
        let outgoing = |_| Outgoing::new(format!("$JS.API.{what}"), body.clone());
        let (message, _) = link.ask(deadline, outgoing).await?;
        match read_answer(&message)? {
            Err(refusal) if refusal.is_passing() && !deadline.has_passed() => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => return Ok(answer),
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

/// The newest message whose subject matches `filter`.
pub(crate) async fn last(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
) -> Result<Option<StoredMessage>> {
    let request: Bytes = json!({ "last_by_subj": filter }).to_string().into();
    let outgoing = |_| Outgoing::new(format!("$JS.API.DIRECT.GET.{stream}"), request.clone());
    let (message, _) = link.ask(deadline, outgoing).await?;
    StoredMessage::from_direct(message)
}

/// The sequence and the body of the newest message whose subject matches `filter`, as the stream's leader
/// has it: a direct get may be answered by a replica that is a little behind.
pub(crate) async fn last_of_leader(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
) -> Result<Option<(u64, Bytes)>> {
    const NO_MESSAGE: u32 = 10037;
    let request = json!({ "last_by_subj": filter });
    let answer = match call(link, deadline, &format!("STREAM.MSG.GET.{stream}"), Some(&request)).await? {
        Ok(answer) => answer,
        Err(refusal) if refusal.reason == NO_MESSAGE => return Ok(None),
        Err(refusal) => return Err(refusal.into()),
    };
    let message = &answer["message"];
    let body = message["data"].as_str().unwrap_or_default();
    match (message["seq"].as_u64(), BASE64.decode(body)) {
        (Some(sequence), Ok(body)) => Ok(Some((sequence, body.into()))),
        _ => Err(nonsense("a stored message")),
    }
}

/// How many messages match `filter`.
pub(crate) async fn count(link: &Link, deadline: Deadline, stream: &str, filter: &str) -> Result<u64> {
    // The first of a batch tells how many come after it.
    let request: Bytes = json!({ "seq": 1, "batch": 1, "next_by_subj": filter }).to_string().into();
    let outgoing = |_| Outgoing::new(format!("$JS.API.DIRECT.GET.{stream}"), request.clone());
    let (message, _) = link.ask(deadline, outgoing).await?;
    let more = message.headers.as_ref().and_then(|headers| number(headers, "Nats-Num-Pending"));
    match (StoredMessage::from_direct(message)?, more) {
        (None, _) => Ok(0),
        (Some(_), Some(more)) => Ok(more + 1),
        (Some(_), None) => Err(nonsense("a batch without its length")),
    }
}

/// Removes the messages that match `filter`, those below sequence `below` if it is given; how many.
pub(crate) async fn purge(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
    below: Option<u64>,
) -> Result<u64> {
    let mut request = json!({ "filter": filter });
    if let Some(below) = below {
        request["seq"] = below.into();
    }
    let answer = call(link, deadline, &format!("STREAM.PURGE.{stream}"), Some(&request)).await??;
    Ok(answer["purged"].as_u64().unwrap_or(0))
}
