//! Choice and change of the `ack_wait` of a queue: one value for all workers.
//!
//! The server applies a change of a consumer at once to all deliveries. A lower value would end the
//! leases of workers that extend by the higher one. So the new value is announced in a key:
//! - *Longer*: first the consumers change, then the key. Workers that still extend more often do no
//!   harm.
//! - *Shorter*: first the key changes. Workers read it and extend more often. The consumers change
//!   when every worker has had time to do so.

use std::time::Duration;

use aioq::broker::{DEFAULT_ACK_WAIT, MAX_ACK_WAIT};
use aioq::store::Expect;
use aioq::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::consumers;
use crate::keys;
use crate::link::Link;
use crate::session::Session;
use crate::session::ack_waits::{AckWait, millis};
use crate::wire::lane::Lane;

/// Prefix of the keys that announce values; the rest is the name of the queue.
pub(crate) const KEY_PREFIX: &str = "ack_wait.";

/// Least `ack_wait`. A shorter lease cannot be kept reliably over a network.
const MIN_ACK_WAIT: Duration = Duration::from_millis(100);

/// Change of the consumers to make once every worker has had time to read the new value.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) queue: String,
    pub(crate) value: Duration,
    pub(crate) at: Instant,
}

/// Declares the consumers of a queue and chooses the `ack_wait` in force.
pub(crate) async fn choose(
    session: &Session,
    queue: &str,
    wanted: Option<Duration>,
) -> Result<(AckWait, Option<Change>)> {
    check(wanted)?;
    let announced = announced(session, &session.link, queue).await?;
    let initial = wanted.or(announced).unwrap_or(DEFAULT_ACK_WAIT);
    let mut current = Duration::ZERO;
    for lane in Lane::ALL {
        current = current.max(consumers::declare(session, queue, lane, initial).await?.ack_wait);
    }
    // A lower value that is announced and not yet applied is adopted: its announcer may have died.
    let wanted = wanted.unwrap_or(announced.map_or(current, |announced| announced.min(current)));
    if wanted > current {
        apply(session, &session.link, queue, wanted).await?;
    }
    if wanted != announced.unwrap_or(current) || wanted > current {
        announce(session, queue, wanted).await?;
    }
    if wanted >= current {
        return Ok((session.ack_waits.set(queue, wanted), None));
    }
    // Every worker extends within a third of the old value, and by the new value from then on.
    let at = Instant::now() + current / 3 + Duration::from_secs(1);
    let change = Change { queue: queue.to_owned(), value: wanted, at };
    Ok((session.ack_waits.set(queue, wanted), Some(change)))
}

fn check(wanted: Option<Duration>) -> Result<()> {
    let message = match wanted {
        Some(wanted) if wanted < MIN_ACK_WAIT => {
            format!("an ack_wait of {wanted:?} is too short, {MIN_ACK_WAIT:?} is the least")
        }
        Some(wanted) if wanted > MAX_ACK_WAIT => {
            format!("an ack_wait of {wanted:?} is too long, {MAX_ACK_WAIT:?} is the most")
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

/// Changes the consumers of a queue.
pub(crate) async fn apply(session: &Session, link: &Link, queue: &str, value: Duration) -> Result<()> {
    for lane in Lane::ALL {
        consumers::set_ack_wait(session, link, queue, lane, value).await?;
    }
    Ok(())
}

/// Value announced for a queue.
pub(crate) async fn announced(session: &Session, link: &Link, queue: &str) -> Result<Option<Duration>> {
    let entry = keys::get(session, link, &format!("{KEY_PREFIX}{queue}")).await?;
    Ok(entry.and_then(|entry| parse(&entry.value)))
}

async fn announce(session: &Session, queue: &str, value: Duration) -> Result<()> {
    let (key, text) = (format!("{KEY_PREFIX}{queue}"), millis(value).to_string());
    keys::put(session, &key, text.into(), Expect::Any, None).await.map(|_| ())
}

/// Parses an announced value: whole milliseconds.
fn parse(value: &[u8]) -> Option<Duration> {
    let millis: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some(Duration::from_millis(millis).clamp(MIN_ACK_WAIT, MAX_ACK_WAIT))
}
