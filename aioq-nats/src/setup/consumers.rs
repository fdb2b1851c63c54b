//! The durable consumers, one per queue and lane, that all workers share.

use std::time::Duration;

use aioq::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::api::call;
use crate::connection::Session;
use crate::error::{Refusal, nonsense};
use crate::link::{Deadline, Link};
use crate::wire::subject::{Lane, consumer_name};

/// Pull requests of all workers that may wait at a consumer at a time.
const MAX_WAITING: u32 = 16_384;

/// How long a consumer stays that nobody asks for anything. One of an earlier version may stay for ever.
const KEPT_UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// A consumer as it is.
#[derive(Debug)]
pub(crate) struct Info {
    /// Messages that it has not delivered yet.
    pub(crate) pending: u64,
    /// Messages that it has delivered and that are not acked.
    pub(crate) unacked: u64,
    /// The sequence of the last message that it has delivered for the first time.
    pub(crate) delivered: u64,
    /// How many deliveries it has made.
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

    fn read(answer: &Value) -> Result<Self> {
        let count = |key: &str| answer[key].as_u64();
        let config = &answer["config"];
        match (count("num_pending"), count("num_ack_pending"), config["ack_wait"].as_u64()) {
            (Some(pending), Some(unacked), Some(ack_wait)) => {
                let ack_wait = Duration::from_nanos(ack_wait);
                let delivered = answer["delivered"]["stream_seq"].as_u64().unwrap_or(0);
                let deliveries = answer["delivered"]["consumer_seq"].as_u64().unwrap_or(0);
                Ok(Self { pending, unacked, delivered, deliveries, ack_wait, config: config.clone() })
            }
            _ => Err(nonsense("a consumer")),
        }
    }
}

/// The consumer of a lane; `None` if nobody has listened to the queue yet.
pub(crate) async fn info(session: &Session, queue: &str, lane: Lane) -> Result<Option<Info>> {
    let (names, deadline) = (&session.names, session.deadline());
    let what = format!("CONSUMER.INFO.{}.{}", names.jobs, consumer_name(queue, lane));
    match call(&session.link, deadline, &what, None).await? {
        Ok(answer) => Info::read(&answer).map(Some),
        Err(refusal) if refusal.reason == Refusal::CONSUMER_NOT_FOUND => Ok(None),
        Err(refusal) => Err(refusal.into()),
    }
}

/// The consumer of a lane, created with `ack_wait` if there is none; one that is there keeps its own.
pub(crate) async fn declare(session: &Session, queue: &str, lane: Lane, ack_wait: Duration) -> Result<Info> {
    const EXISTS: [u32; 2] = [10013, 10148];
    let found = match info(session, queue, lane).await? {
        Some(found) => found,
        None => match create(session, queue, lane, ack_wait).await? {
            Ok(created) => created,
            // Another worker was faster, with another `ack_wait`.
            Err(refusal) if EXISTS.contains(&refusal.reason) => {
                info(session, queue, lane).await?.ok_or_else(|| nonsense("a consumer that comes and goes"))?
            }
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
        // A message that reached a limit would stay in the stream for ever, delivered to nobody.
        "max_deliver": -1,
        "max_ack_pending": session.options.max_ack_pending,
        "max_waiting": MAX_WAITING,
        // Whoever listens, asks: only the consumers of queues that nobody uses any more go. Messages stay.
        "inactive_threshold": nanos(KEPT_UNUSED),
    });
    let answer = write(&session.link, session.deadline(), session, "create", config).await?;
    Ok(match answer {
        Ok(answer) => Ok(Info::read(&answer)?),
        Err(refusal) => Err(refusal),
    })
}

/// Gives the consumer of a lane another `ack_wait`. What is held already is subject to it at once.
pub(crate) async fn set_ack_wait(
    session: &Session,
    link: &Link,
    queue: &str,
    lane: Lane,
    ack_wait: Duration,
) -> Result<()> {
    let what = format!("CONSUMER.INFO.{}.{}", session.names.jobs, consumer_name(queue, lane));
    let answer = call(link, session.deadline(), &what, None).await??;
    let mut config = Info::read(&answer)?.config;
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
    let what = format!("CONSUMER.CREATE.{stream}.{name}.{filter}");
    let request = json!({ "stream_name": stream, "action": action, "config": config });
    call(link, deadline, &what, Some(&request)).await
}

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
