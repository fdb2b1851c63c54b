//! Removes messages of a stream.

use aioq::Result;
use serde_json::json;

use super::{call, call_counted};
use crate::error::Refusal;
use crate::link::{Deadline, Link};

/// Number of single removals to have in flight. A server drops requests when too many wait.
pub(crate) const CONCURRENT_REMOVALS: usize = 512;

/// Messages that a purge leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep {
    /// Messages from this sequence on.
    From(u64),
    /// This number of the newest messages.
    Newest(u64),
}

/// Removes the messages that match `filter`, except those to keep.
///
/// Returns the number removed. The flag is true if an earlier attempt, whose answer was lost, may
/// have removed more.
pub(crate) async fn purge(
    link: &Link,
    deadline: Deadline,
    stream: &str,
    filter: &str,
    keep: Keep,
) -> Result<(u64, bool)> {
    let request = match keep {
        Keep::From(sequence) => json!({ "filter": filter, "seq": sequence }),
        Keep::Newest(count) => json!({ "filter": filter, "keep": count }),
    };
    let endpoint = format!("STREAM.PURGE.{stream}");
    let (answer, resent) = call_counted(link, deadline, &endpoint, Some(&request)).await?;
    Ok((answer?["purged"].as_u64().unwrap_or(0), resent))
}

/// Removes the message with this sequence; false if there was none.
pub(crate) async fn delete(link: &Link, deadline: Deadline, stream: &str, sequence: u64) -> Result<bool> {
    let request = json!({ "seq": sequence, "no_erase": true });
    let endpoint = format!("STREAM.MSG.DELETE.{stream}");
    let (answer, resent) = call_counted(link, deadline, &endpoint, Some(&request)).await?;
    let refusal = match answer {
        Ok(_) => return Ok(true),
        Err(refusal) => refusal,
    };
    let gone = match refusal.reason {
        Refusal::SEQUENCE_NOT_FOUND => true,
        // The server also answers this for a sequence below the first message.
        Refusal::DELETE_FAILED => is_gone(link, deadline, stream, sequence).await?,
        _ => false,
    };
    // A message that is gone at a repeated request was removed by the first one, whose answer was
    // lost.
    if gone { Ok(resent) } else { Err(refusal.into()) }
}

async fn is_gone(link: &Link, deadline: Deadline, stream: &str, sequence: u64) -> Result<bool> {
    let endpoint = format!("STREAM.MSG.GET.{stream}");
    let answer = call(link, deadline, &endpoint, Some(&json!({ "seq": sequence }))).await?;
    Ok(answer.is_err_and(|refusal| refusal.reason == Refusal::NO_MESSAGE))
}
