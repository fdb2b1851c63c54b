//! What is known of a job, put together from its message and its record.

use crate::broker::Queued;
use crate::error::Reason;
use crate::message::Message;
use crate::store::{History, JobRecord, Status, Stored};
use crate::time::Timestamp;

/// The newer of the two sides: the message of a job that waits, or the record of one that got further.
pub(super) fn merge(queued: Option<Queued>, stored: Option<Stored>, now: Timestamp) -> Option<JobRecord> {
    let Some(queued) = queued else {
        // Whose record says no more than that the message waits is gone with it, or was about to be kicked again.
        return stored.map(|stored| stored.record).filter(|record| !record.is_unstarted());
    };
    let message = Message::open(&queued.body).ok();
    Some(merge_waiting(&queued, message.as_ref(), stored, now))
}

/// As [`merge`], for a job whose message waits and is decoded; `None` is one that cannot be read.
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
    let base = message.supersedes.unwrap_or(0);
    match stored {
        // The record came after the message: the job runs, or has ended and is not acked yet. One that says no more than
        // that a message waits, or that there was a job, came in the place of an earlier one.
        Some(stored) if stored.revision > base && !stored.record.is_unstarted() => stored.record,
        Some(stored) => waiting(message, queued.ready, Some(stored.record), now),
        None => waiting(message, queued.ready, None, now),
    }
}

/// A job that waits: its message, and what earlier attempts left on its record.
fn waiting(message: &Message, ready: bool, earlier: Option<JobRecord>, now: Timestamp) -> JobRecord {
    // A broker may count a message as ready that is due in a moment.
    let ready = ready && message.run_at.is_none_or(|due| due <= now);
    let status = match ready {
        _ if message.has_expired_unstarted(now) => Status::Expired,
        true => Status::Pending,
        false if message.attempt > 1 => Status::Retrying,
        false => Status::Scheduled,
    };
    let mut record = JobRecord::of(message, status);
    if status == Status::Expired {
        // As the worker that gets the message would record it.
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
