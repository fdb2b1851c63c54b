//! List of queues: one key per queue, registered by its producers and workers.
//!
//! The streams cannot list their queues cheaply, and a queue whose jobs are all done leaves no
//! trace in them.

use std::time::Duration;

use aioq::Result;
use aioq::store::Expect;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;

use crate::keys;
use crate::session::Session;

/// Prefix of the keys; the rest is the name of the queue.
const KEY_PREFIX: &str = "queue.";

/// Time after its last registration for which a queue stays in the list.
const TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Number of registrations at a time.
const CONCURRENT_WRITES: usize = 64;

/// Registers a queue that the caller has claimed. A failure does not refuse a job: a later kick
/// tries again.
pub(crate) async fn register(session: &Session, queue: &str) {
    let key = format!("{KEY_PREFIX}{queue}");
    match keys::put(session, &key, Bytes::new(), Expect::Any, Some(TTL)).await {
        Ok(_) => session.queues.registered(queue),
        Err(error) => tracing::warn!(
            %error,
            "could not register queue `{queue}`; the queue list is incomplete until the next kick"
        ),
    }
}

/// Like [`register`], for many.
pub(crate) async fn register_all(session: &Session, queues: Vec<&str>) {
    stream::iter(queues).for_each_concurrent(CONCURRENT_WRITES, |queue| register(session, queue)).await;
}

/// Names of the queues, sorted.
pub(crate) async fn list(session: &Session) -> Result<Vec<String>> {
    let entries = keys::scan(session, KEY_PREFIX).await?;
    let names = entries.into_iter().filter_map(|entry| entry.key.strip_prefix(KEY_PREFIX).map(str::to_owned));
    Ok(names.collect())
}
