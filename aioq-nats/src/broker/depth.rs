//! Number of messages in a queue: [`depth`].

use aioq::broker::{QueueDepth, Waiting};
use aioq::{Result, Timestamp};
use async_nats::HeaderMap;
use futures_util::future::try_join_all;

use crate::api::get::{count, next};
use crate::session::Session;
use crate::setup::consumers;
use crate::wire::headers::not_before;
use crate::wire::lane::Lane;

/// Counts the messages of a queue.
pub(crate) async fn depth(session: &Session, queue: &str) -> Result<QueueDepth> {
    let lanes = try_join_all(Lane::ALL.map(|lane| lane_depth(session, queue, lane)));
    let scheduled = waiting(session, queue, Waiting::Scheduled);
    let retrying = waiting(session, queue, Waiting::Retrying);
    let (lanes, scheduled, retrying) = tokio::try_join!(lanes, scheduled, retrying)?;
    let mut depth = QueueDepth::new(queue);
    (depth.scheduled, depth.retrying) = (scheduled, retrying);
    depth.ready = lanes.iter().map(|lane| lane.ready).sum();
    depth.held = lanes.iter().map(|lane| lane.held).sum();
    depth.oldest = lanes.iter().filter_map(|lane| lane.oldest).min();
    Ok(depth)
}

async fn waiting(session: &Session, queue: &str, waiting: Waiting) -> Result<u64> {
    count_of(session, &session.names.messages(Some(waiting), Some(queue))).await
}

struct LaneDepth {
    ready: u64,
    held: u64,
    oldest: Option<Timestamp>,
}

async fn lane_depth(session: &Session, queue: &str, lane: Lane) -> Result<LaneDepth> {
    let filter = session.names.lane(queue, lane);
    let (ready, held, delivered) = match consumers::info(session, queue, lane).await? {
        Some(info) => (info.pending, info.unacked, info.delivered),
        // No worker has listened yet, so nothing has been delivered.
        None => (count_of(session, &filter).await?, 0, 0),
    };
    let oldest = if ready == 0 { None } else { oldest(session, &filter, delivered + 1).await? };
    Ok(LaneDepth { ready, held, oldest })
}

/// Time since which the first message from sequence `from` on has been ready.
async fn oldest(session: &Session, filter: &str, from: u64) -> Result<Option<Timestamp>> {
    let found = next(&session.link, session.deadline(), &session.names.jobs, filter, from).await?;
    Ok(found.and_then(|message| ready_since(&message.headers)))
}

fn ready_since(headers: &HeaderMap) -> Option<Timestamp> {
    not_before(headers).or_else(|| headers.get("Nats-Time-Stamp")?.as_str().parse().ok())
}

async fn count_of(session: &Session, filter: &str) -> Result<u64> {
    count(&session.link, session.deadline(), &session.names.jobs, filter, 1).await
}
