//! One `ack_wait` per queue, for all workers, and how it changes without anybody losing a lease.
//!
//! The server applies a change of the shared consumers at once to all that is held, so a lower value would take
//! deliveries away from workers that extend by the higher one. A key says first what is coming:
//! - *longer*: the consumers change, then the key; workers that still extend too often do no harm;
//! - *shorter*: the key changes, workers adopt it and extend more often, and when each must have done so,
//!   the consumers change.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::broker::{DEFAULT_ACK_WAIT, MAX_ACK_WAIT};
use aioq::store::Expect;
use aioq::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::connection::Session;
use crate::kv;
use crate::link::{Link, lock};
use crate::setup::consumers;
use crate::wire::subject::Lane;

/// The keys that tell the values to come start with this.
pub(crate) const KEYS: &str = "ack_wait.";

/// Below this a lease cannot be kept reliably over a network.
const SHORTEST: Duration = Duration::from_millis(100);

/// The value in force for one queue, shared by all that listen to it in this process.
#[derive(Clone, Debug)]
pub(crate) struct AckWait(Arc<AtomicU64>);

impl AckWait {
    fn new(value: Duration) -> Self {
        Self(Arc::new(AtomicU64::new(millis(value.min(MAX_ACK_WAIT)))))
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, value: Duration) {
        // A consumer of other hands may say anything.
        self.0.store(millis(value.min(MAX_ACK_WAIT)), Ordering::Relaxed);
    }
}

/// The values in force, by queue.
#[derive(Default)]
pub(crate) struct AckWaits(Mutex<HashMap<String, AckWait>>);

impl AckWaits {
    fn set(&self, queue: &str, value: Duration) -> AckWait {
        let mut values = lock(&self.0);
        let shared = values.entry(queue.to_owned()).or_insert_with(|| AckWait::new(value));
        shared.set(value);
        shared.clone()
    }
}

/// A change of the consumers that must wait until everybody has adopted the new value.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) queue: String,
    pub(crate) value: Duration,
    pub(crate) at: Instant,
}

/// Declares the consumers of a queue and settles which `ack_wait` is in force.
pub(crate) async fn settle(
    session: &Session,
    queue: &str,
    wanted: Option<Duration>,
) -> Result<(AckWait, Option<Change>)> {
    if wanted.is_some_and(|wanted| wanted < SHORTEST) {
        let message = format!("an ack_wait of {wanted:?} is too short, {SHORTEST:?} is the least");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    if wanted.is_some_and(|wanted| wanted > MAX_ACK_WAIT) {
        let message = format!("an ack_wait of {wanted:?} is too long, {MAX_ACK_WAIT:?} is the most");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let told = told(session, &session.link, queue).await?;
    let first = wanted.or(told).unwrap_or(DEFAULT_ACK_WAIT);
    let mut held = Duration::ZERO;
    for lane in Lane::ALL {
        held = held.max(consumers::declare(session, queue, lane, first).await?.ack_wait);
    }
    // A lower value that is told and not yet applied is on its way; who announced it may have died.
    let wanted = wanted.unwrap_or(told.map_or(held, |told| told.min(held)));
    if wanted > held {
        apply(session, &session.link, queue, wanted).await?;
    }
    if wanted != told.unwrap_or(held) || wanted > held {
        tell(session, queue, wanted).await?;
    }
    if wanted >= held {
        return Ok((session.ack_waits.set(queue, wanted), None));
    }
    // Everybody extends at a third of the old value at the latest, and by the new one from then on.
    let at = Instant::now() + held / 3 + Duration::from_secs(1);
    let change = Change { queue: queue.to_owned(), value: wanted, at };
    Ok((session.ack_waits.set(queue, wanted), Some(change)))
}

/// Changes the consumers of a queue.
pub(crate) async fn apply(session: &Session, link: &Link, queue: &str, value: Duration) -> Result<()> {
    for lane in Lane::ALL {
        consumers::set_ack_wait(session, link, queue, lane, value).await?;
    }
    Ok(())
}

/// The value that is told for a queue.
pub(crate) async fn told(session: &Session, link: &Link, queue: &str) -> Result<Option<Duration>> {
    let entry = kv::get(session, link, &format!("{KEYS}{queue}")).await?;
    Ok(entry.and_then(|entry| read(&entry.value)))
}

async fn tell(session: &Session, queue: &str, value: Duration) -> Result<()> {
    let text = format!("{}", millis(value));
    kv::put(session, &format!("{KEYS}{queue}"), text.into(), Expect::Any, None).await.map(|_| ())
}

/// Reads a value as it is told: whole milliseconds.
pub(crate) fn read(value: &[u8]) -> Option<Duration> {
    let millis: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some(Duration::from_millis(millis).clamp(SHORTEST, MAX_ACK_WAIT))
}

fn millis(value: Duration) -> u64 {
    u64::try_from(value.as_millis()).unwrap_or(u64::MAX)
}
