//! Requests of the JetStream API, as JSON. No client library decides what is sent.

pub(crate) mod batch;
pub(crate) mod get;
pub(crate) mod page;
pub(crate) mod publish;
pub(crate) mod purge;

use std::time::Duration;

use aioq::Result;
use async_nats::Message;
use bytes::Bytes;
use serde_json::Value;

use crate::error::{Refusal, unexpected_reply};
use crate::link::{Deadline, Link, Outgoing};

/// Pause before a request is sent again after a passing refusal.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Like [`call`], but returns the refusal for a missing stream at once. For requests that declare
/// or delete streams.
pub(crate) async fn call_setup(
    link: &Link,
    deadline: Deadline,
    endpoint: &str,
    request: Option<&Value>,
) -> Result<Result<Value, Refusal>> {
    let called = call_until(link, deadline, endpoint, request, Refusal::is_passing).await;
    called.map(|(answer, _)| answer)
}

/// Sends a request to `$JS.API.<endpoint>` and returns JetStream's answer or refusal.
///
/// A passing refusal is retried until `deadline`. So is the refusal for a missing stream, which is
/// declared again meanwhile.
pub(crate) async fn call(
    link: &Link,
    deadline: Deadline,
    endpoint: &str,
    request: Option<&Value>,
) -> Result<Result<Value, Refusal>> {
    call_counted(link, deadline, endpoint, request).await.map(|(answer, _)| answer)
}

/// Like [`call`]. The flag is true if the request was sent more than once, so that an earlier copy
/// may have succeeded.
async fn call_counted(
    link: &Link,
    deadline: Deadline,
    endpoint: &str,
    request: Option<&Value>,
) -> Result<(Result<Value, Refusal>, bool)> {
    let retries = |refusal: &Refusal| {
        let is_missing = refusal.reason == Refusal::STREAM_NOT_FOUND;
        if is_missing {
            link.report_missing_stream();
        }
        is_missing || refusal.is_passing()
    };
    call_until(link, deadline, endpoint, request, retries).await
}

async fn call_until(
    link: &Link,
    deadline: Deadline,
    endpoint: &str,
    request: Option<&Value>,
    retries: impl Fn(&Refusal) -> bool,
) -> Result<(Result<Value, Refusal>, bool)> {
    let body = request.map_or_else(Bytes::new, |request| request.to_string().into());
    loop {
        let outgoing = |_| Outgoing::new(format!("$JS.API.{endpoint}"), body.clone());
        let (message, attempt) = link.ask(deadline, outgoing).await?;
        match parse_answer(&message)? {
            Err(refusal) if retries(&refusal) && !deadline.has_passed() => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            answer => return Ok((answer, attempt > 0)),
        }
    }
}

fn parse_answer(message: &Message) -> Result<Result<Value, Refusal>> {
    let mut answer: Value = serde_json::from_slice(&message.payload)
        .map_err(|error| unexpected_reply("an API answer").with_source(error))?;
    match answer.get_mut("error").map(Value::take) {
        None => Ok(Ok(answer)),
        Some(error) => {
            let refusal = serde_json::from_value(error);
            refusal.map(Err).map_err(|error| unexpected_reply("an API error").with_source(error))
        }
    }
}
