//! The state of a job, merged from its message and its record.

use crate::broker::Queued;
use crate::error::Reason;
use crate::message::Message;
use crate::store::{History, JobRecord, Status, Stored};
use crate::time::Timestamp;

/// Merges the two sides; the newer one wins: the message of a job that waits, or the record of a
/// job that has started. `None` if there is no such job.
pub(super) fn merge(queued: Option<Queued>, stored: Option<Stored>, now: Timestamp) -> Option<JobRecord> {
    let Some(queued) = queued else {
        // No message: a record that still says `pending` is stale. The job was removed, or is being
        // kicked again.
        return stored.map(|stored| stored.record).filter(|record| !record.is_unstarted());
    };
    let message = Message::open(&queued.body).ok();
    Some(merge_waiting(&queued, message.as_ref(), stored, now))
}

/// As [`merge`], for a job whose message waits and is decoded. `message` is `None` if it cannot be
/// read.
pub(super) fn merge_waiting(
    queued: &Queued,
    message: Option<&Message>,
    stored: Option<Stored>,
    now: Timestamp,
) -> JobRecord {
    let Some(message) = message else {
        let unreadable = || JobRecord::unreadable(queued.id.clone(), queued.queue.clone(), Status::Pending);
        return stored.map_or_else(unreadable, |stored| stored.record);
    };
    let base = message.base_revision();
    match stored {
        // The record is newer than the message: the job runs, or has ended and is not acked yet. A
        // record that the message comes after, or a placeholder of a removed job, says nothing of
        // the run.
        Some(stored)
            if stored.revision > base
                && !stored.record.is_unstarted()
                && !stored.record.precedes(message) =>
        {
            stored.record
        }
        Some(stored) => waiting(message, queued.ready, Some(stored.record), now),
        None => waiting(message, queued.ready, None, now),
    }
}

/// The record of a job that waits: from its message, with the traces of earlier attempts on its
/// stored record.
fn waiting(message: &Message, ready: bool, earlier: Option<JobRecord>, now: Timestamp) -> JobRecord {
    // A broker may report a message as ready shortly before it is due.
    let ready = ready && message.run_at.is_none_or(|due| due <= now);
    let status = if message.has_expired_unstarted(now) {
        Status::Expired
    } else if ready {
        Status::Pending
    } else if message.attempt > 1 {
        Status::Retrying
    } else {
        Status::Scheduled
    };
    let mut record = JobRecord::of(message, status);
    if status == Status::Expired {
        // The same record that the worker will write when it receives the message.
        record.reason = Some(Reason::Expired);
        record.dead_lettered = true;
        record.finished_at = message.expires_at;
    }
    let Some(mut earlier) = earlier else { return record };
    if !earlier.status.is_terminal() && !earlier.is_removed() {
        record.max_retries = earlier.max_retries;
        record.started_at = earlier.started_at;
        record.worker_id = earlier.worker_id.take();
        record.error = earlier.error.take();
    }
    if let Some(history) = History::of(earlier) {
        history.fill(&mut record);
    }
    record
}
