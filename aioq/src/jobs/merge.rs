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
        return stored.and_then(|stored| without_message(stored.record, now));
    };
    let message = Message::open(&queued.body).ok();
    Some(merge_waiting(&queued, message.as_ref(), stored, now))
}

/// The job of a record without a message in the broker: one that runs, has ended or is blocked, or
/// that was released and is about to be kicked.
fn without_message(mut record: JobRecord, now: Timestamp) -> Option<JobRecord> {
    if record.is_released() {
        if record.run_at.is_some_and(|due| due > now) {
            record.status = Status::Scheduled;
        }
        return Some(record);
    }
    // Any other record that still says `pending` is stale. The job was removed, or is being kicked
    // again.
    Some(record).filter(|record| !record.is_unstarted())
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::broker::Expect;
    use crate::jobs::JobFilter;
    use crate::memory::Memory;
    use crate::message::Envelope;
    use crate::{Backend, Client};

    fn record(status: Status) -> JobRecord {
        JobRecord::unreadable("1".into(), "q", status)
    }

    fn merged(record: JobRecord) -> Option<Status> {
        merge(None, Some(Stored::new(record, 7)), Timestamp::now()).map(|record| record.status)
    }

    #[test]
    fn a_blocked_job_is_its_record() {
        assert_eq!(merged(record(Status::Blocked)), Some(Status::Blocked));
        let queued = Queued::new("1".into(), "q", Bytes::from_static(b"not a message"), true);
        let both = merge(Some(queued), Some(Stored::new(record(Status::Blocked), 7)), Timestamp::now());
        assert_eq!(both.map(|record| record.status), Some(Status::Blocked));
    }

    #[test]
    fn a_released_job_is_there_before_its_message() {
        let message = Some(Bytes::from_static(b"sealed"));
        let released = JobRecord { message, ..record(Status::Pending) };
        assert_eq!(merged(released.clone()), Some(Status::Pending));
        let due = |run_at| merged(JobRecord { run_at: Some(run_at), ..released.clone() });
        assert_eq!(due(Timestamp::now() + Duration::from_secs(60)), Some(Status::Scheduled));
        assert_eq!(due(Timestamp::from_micros(0)), Some(Status::Pending));
    }

    #[test]
    fn a_pending_record_without_a_message_anywhere_is_no_job() {
        assert_eq!(merged(record(Status::Pending)), None);
        assert_eq!(merged(JobRecord::removed(&record(Status::Completed))), None);
    }

    #[tokio::test]
    async fn a_blocked_job_is_found_listed_counted_awaited_and_cancelled() {
        let backend = Backend::from(Memory::new());
        let client = Client::connect(backend.clone()).await.unwrap();
        backend.broker().kick(Envelope::new("0".into(), "q", "other"), Expect::Absent).await.unwrap();
        let blocked = Arc::new(record(Status::Blocked));
        backend.jobs().unwrap().put(blocked, Expect::Absent, None).await.unwrap();

        let (jobs, id) = (client.jobs(), "1".into());
        assert_eq!(jobs.get(&id).await.unwrap().status, Status::Blocked);
        for filter in [JobFilter::new().status(Status::Blocked), JobFilter::new().queue("q")] {
            let listed = jobs.list(filter, 10).await.unwrap().jobs;
            let is_listed = |job: &JobRecord| job.id == id && job.status == Status::Blocked;
            assert_eq!(listed.iter().filter(|job| is_listed(job)).count(), 1, "{listed:?}");
        }
        let counts = jobs.counts(Duration::ZERO).await.unwrap().counts;
        assert_eq!(counts.get(&Status::Blocked), Some(&1));

        let (ended, cancelled) = tokio::join!(jobs.wait(&id, "q"), jobs.cancel(&id));
        assert!(cancelled.unwrap());
        assert_eq!(ended.unwrap().status, Status::Cancelled);
    }
}
