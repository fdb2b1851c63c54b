//! The fate of the job that an entry names: what its record and its message say.

use crate::backend::Backend;
use crate::error::Result;
use crate::message::{JobId, Message};
use crate::store::Status;

/// The fate of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The job waits or runs.
    Unfinished,
    /// The job has completed.
    Completed,
    /// The job has ended otherwise.
    Ended,
    /// Neither a record nor a message is there: the job was removed, or is not kicked yet.
    Unknown,
}

/// Looks at the record first, then at the message. A message that is newer than the last record of
/// the job is a rerun.
///
/// A job whose message is kept until its last record is written cannot be missed: if the message is
/// gone, the record is read again, and tells the end.
pub(super) async fn fate(backend: &Backend, id: &JobId) -> Result<Fate> {
    let record = record(backend, id).await?;
    if let Some(queued) = backend.broker.find(id).await? {
        let base = Message::base_revision_of(&queued.body);
        return Ok(match record {
            Some((status, revision)) if status.is_terminal() && revision > base => ended_as(status),
            _ => Fate::Unfinished,
        });
    }
    let record = match record {
        Some((status, _)) if status.is_terminal() => Some(status),
        _ => self::record(backend, id).await?.map(|(status, _)| status),
    };
    // A record of a job that waits or runs, without a message, is of a job that was removed.
    Ok(record.filter(|status| status.is_terminal()).map_or(Fate::Unknown, ended_as))
}

fn ended_as(status: Status) -> Fate {
    if status == Status::Completed { Fate::Completed } else { Fate::Ended }
}

async fn record(backend: &Backend, id: &JobId) -> Result<Option<(Status, u64)>> {
    let Some(jobs) = &backend.jobs else { return Ok(None) };
    Ok(jobs.get(id).await?.map(|stored| (stored.record.status, stored.revision)))
}
