//! The fate of the job that an entry names: what its record and its message say.

use crate::backend::Backend;
use crate::error::Result;
use crate::message::{JobId, Message};
use crate::store::{JobRecord, Status, Stored};

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
    let stored = stored(backend, id).await?;
    if stored.as_ref().is_some_and(|stored| waits_for_others(&stored.record)) {
        return Ok(Fate::Unfinished);
    }
    if let Some(queued) = backend.broker.find(id).await? {
        let base = Message::base_revision_of(&queued.body);
        return Ok(match stored {
            Some(Stored { record, revision }) if record.status.is_terminal() && revision > base => {
                ended_as(record.status)
            }
            _ => Fate::Unfinished,
        });
    }
    let last = match stored {
        Some(stored) if stored.record.status.is_terminal() => Some(stored.record),
        _ => self::stored(backend, id).await?.map(|stored| stored.record),
    };
    Ok(match last {
        Some(record) if record.status.is_terminal() => ended_as(record.status),
        Some(record) if waits_for_others(&record) => Fate::Unfinished,
        // A record of a job that waits or runs, without a message, is of a job that was removed.
        _ => Fate::Unknown,
    })
}

/// True if the job has no message yet, because it waits for other jobs or has just been released.
fn waits_for_others(record: &JobRecord) -> bool {
    record.status == Status::Blocked || record.is_released()
}

fn ended_as(status: Status) -> Fate {
    if status == Status::Completed { Fate::Completed } else { Fate::Ended }
}

async fn stored(backend: &Backend, id: &JobId) -> Result<Option<Stored>> {
    match &backend.jobs {
        Some(jobs) => jobs.get(id).await,
        None => Ok(None),
    }
}
