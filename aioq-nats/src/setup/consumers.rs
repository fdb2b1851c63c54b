//! Durable consumers: one per queue and lane, shared by all workers.

use std::time::Duration;

use aioq::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::api::call;
use crate::error::{Refusal, unexpected_reply};
use crate::link::{Deadline, Link};
use crate::session::Session;
use crate::wire::lane::{Lane, consumer_name};

/// Number of pull requests, of all workers, that may wait at one consumer.
const MAX_WAITING: u32 = 16_384;

/// Time after which the server deletes an unused consumer. Consumers of earlier versions may have
/// no limit.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// State of a consumer.
#[derive(Debug)]
pub(crate) struct Info {
    /// Number of messages still to deliver.
    pub(crate) pending: u64,
    /// Number of messages delivered and not acked.
    pub(crate) unacked: u64,
    /// Sequence of the newest message delivered so far.
    pub(crate) delivered: u64,
    /// Number of deliveries made so far.
    pub(crate) deliveries: u64,
    pub(crate) ack_wait: Duration,
    config: Value,
}

impl Info {
    #[cfg(test)]
    pub(crate) fn of(delivered: u64, deliveries: u64) -> Self {
        let ack_wait = Duration::from_secs(30);
        Self { pending: 0, unacked: 0, delivered, deliveries, ack_wait, config: Value::Null }
    }

    fn parse(answer: &Value) -> Result<Self> {
        let count = |key: &str| answer[key].as_u64();
        let config = &answer["config"];
        match (count("num_pending"), count("num_ack_pending"), config["ack_wait"].as_u64()) {
            (Some(pending), Some(unacked), Some(ack_wait)) => {
                let ack_wait = Duration::from_nanos(ack_wait);
                let delivered = answer["delivered"]["stream_seq"].as_u64().unwrap_or(0);
                let deliveries = answer["delivered"]["consumer_seq"].as_u64().unwrap_or(0);
                Ok(Self { pending, unacked, delivered, deliveries, ack_wait, config: config.clone() })
            }
            _ => Err(unexpected_reply("a consumer")),
        }
    }
}

/// Reads a lane's consumer; `None` if no worker has listened to the queue yet.
pub(crate) async fn info(session: &Session, queue: &str, lane: Lane) -> Result<Option<Info>> {
    let (names, deadline) = (&session.names, session.deadline());
    let endpoint = format!("CONSUMER.INFO.{}.{}", names.jobs, consumer_name(queue, lane));
    match call(&session.link, deadline, &endpoint, None).await? {
        Ok(answer) => Info::parse(&answer).map(Some),
        Err(refusal) if refusal.reason == Refusal::CONSUMER_NOT_FOUND => Ok(None),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Creates a lane's consumer with `ack_wait`, unless it exists. An existing one keeps its
/// `ack_wait`.
pub(crate) async fn declare(session: &Session, queue: &str, lane: Lane, ack_wait: Duration) -> Result<Info> {
    const EXISTS: [u32; 2] = [10013, 10148];
    let found = match info(session, queue, lane).await? {
        Some(found) => found,
        None => match create(session, queue, lane, ack_wait).await? {
            Ok(created) => created,
            // Another worker created it in the meantime, with another `ack_wait`.
            Err(refusal) if EXISTS.contains(&refusal.reason) => info(session, queue, lane)
                .await?
                .ok_or_else(|| unexpected_reply("a consumer that exists and does not"))?,
            Err(refusal) => {
                let context = format!("cannot listen to queue `{queue}`");
                return Err(Error::from(refusal).context(context));
            }
        },
    };
    check_filter(session, queue, lane, &found)?;
    Ok(found)
}

async fn create(
    session: &Session,
    queue: &str,
    lane: Lane,
    ack_wait: Duration,
) -> Result<Result<Info, Refusal>> {
    let config = json!({
        "name": consumer_name(queue, lane),
        "durable_name": consumer_name(queue, lane),
        "filter_subject": session.names.lane(queue, lane),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_policy": "explicit",
        "ack_wait": nanos(ack_wait),
        // A message that reaches a limit would stay in the stream for ever, undelivered.
        "max_deliver": -1,
        "max_ack_pending": session.options.max_ack_pending,
        "max_waiting": MAX_WAITING,
        // Listeners ask all the time, so only unused consumers are deleted. Their messages stay.
        "inactive_threshold": nanos(INACTIVE_THRESHOLD),
    });
    let answer = write(&session.link, session.deadline(), session, "create", config).await?;
    Ok(match answer {
        Ok(answer) => Ok(Info::parse(&answer)?),
        Err(refusal) => Err(refusal),
    })
}

/// Changes the `ack_wait` of a lane's consumer. It applies at once, also to deliveries that workers
/// hold.
pub(crate) async fn set_ack_wait(
    session: &Session,
    link: &Link,
    queue: &str,
    lane: Lane,
    ack_wait: Duration,
) -> Result<()> {
    let endpoint = format!("CONSUMER.INFO.{}.{}", session.names.jobs, consumer_name(queue, lane));
    let answer = call(link, session.deadline(), &endpoint, None).await??;
    let mut config = Info::parse(&answer)?.config;
    if config["ack_wait"] == nanos(ack_wait) {
        return Ok(());
    }
    config["ack_wait"] = nanos(ack_wait).into();
    write(link, session.deadline(), session, "update", config).await??;
    Ok(())
}

async fn write(
    link: &Link,
    deadline: Deadline,
    session: &Session,
    action: &str,
    config: Value,
) -> Result<Result<Value, Refusal>> {
    let stream = &session.names.jobs;
    let name = config["name"].as_str().unwrap_or_default();
    let filter = config["filter_subject"].as_str().unwrap_or_default();
    let endpoint = format!("CONSUMER.CREATE.{stream}.{name}.{filter}");
    let request = json!({ "stream_name": stream, "action": action, "config": config });
    call(link, deadline, &endpoint, Some(&request)).await
}

/// Refuses a consumer with the name of the lane's consumer but another filter.
fn check_filter(session: &Session, queue: &str, lane: Lane, found: &Info) -> Result<()> {
    if found.config["filter_subject"] == session.names.lane(queue, lane) {
        return Ok(());
    }
    let name = consumer_name(queue, lane);
    let message =
        format!("the consumer {name} of {} is owned by something else: delete it", session.names.jobs);
    Err(Error::new(ErrorKind::Config, message))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX as u64)
}
