//! Reduction of records that are too large for their store.

use std::sync::Arc;
use std::time::Duration;

use super::{Expect, JobRecord, JobStore, Status};
use crate::error::{ErrorKind, JobError, Reason, Result};
use crate::message::{Labels, MAX_NAME_BYTES, Name};

/// Steps that reduce a record, the least missed content first. After all of them id, queue, status
/// and reason are left.
const REDUCTIONS: [fn(&mut JobRecord); 6] =
    [history, repeated_labels, arguments, labels, result, description];

/// Writes a record as [`JobStore::put`] does. A record that is too large is reduced, because a job
/// must be able to end.
pub(crate) async fn put_fitting(
    jobs: &dyn JobStore,
    record: Arc<JobRecord>,
    expect: Expect,
    ttl: Option<Duration>,
) -> Result<u64> {
    match jobs.put(Arc::clone(&record), expect, ttl).await {
        // Boxed to keep the common future small.
        Err(error) if error.kind() == ErrorKind::TooLarge => {
            Box::pin(put_reduced(jobs, record, expect, ttl)).await
        }
        written => written,
    }
}

async fn put_reduced(
    jobs: &dyn JobStore,
    record: Arc<JobRecord>,
    expect: Expect,
    ttl: Option<Duration>,
) -> Result<u64> {
    tracing::warn!(id = %record.id, "the record is too large for the store, writing it without history and other optional content");
    let mut reduced = JobRecord::clone(&record);
    let mut written = None;
    for reduce in REDUCTIONS {
        reduce(&mut reduced);
        let put = jobs.put(Arc::new(reduced.clone()), expect, ttl).await;
        let too_large = put.as_ref().is_err_and(|error| error.kind() == ErrorKind::TooLarge);
        written = Some(put);
        if !too_large {
            break;
        }
    }
    match written {
        Some(written) => written,
        None => jobs.put(record, expect, ttl).await,
    }
}

fn history(record: &mut JobRecord) {
    (record.logs, record.progress) = (Vec::new(), None);
    let older = record.errors.len().saturating_sub(1);
    record.errors.drain(..older);
}

/// Labels that the sealed message contains as well.
fn repeated_labels(record: &mut JobRecord) {
    if record.message.is_some() {
        record.labels = Labels::new();
    }
}

fn arguments(record: &mut JobRecord) {
    (record.arguments, record.message) = (None, None);
}

fn labels(record: &mut JobRecord) {
    record.labels = Labels::new();
}

fn result(record: &mut JobRecord) {
    if let Some(result) = record.result.take() {
        let bytes = result.as_bytes().len();
        let why = format!("the result of {bytes} bytes makes the record too large for its store");
        record.error = Some(Box::new(JobError::new("ResultTooLarge", why)));
        record.reason = Some(Reason::ResultTooLarge);
        record.status = Status::Failed;
    }
}

fn description(record: &mut JobRecord) {
    record.errors = Vec::new();
    if let Some(error) = &mut record.error {
        error.reduce();
    }
    for name in [&mut record.task].into_iter().chain(&mut record.worker_id) {
        if name.len() > MAX_NAME_BYTES {
            *name = Name::default();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec::{Arguments, Codec};
    use crate::message::{JobId, Message};
    use crate::store::{AttemptError, LogLine, Progress};
    use crate::time::Timestamp;

    fn large(status: Status) -> JobRecord {
        let long = "x".repeat(1000);
        let arguments = Arguments::from_json(Codec::MessagePack, &format!(r#"{{"a": "{long}"}}"#));
        let task = &long[..crate::message::MAX_TASK_NAME_BYTES];
        let mut message = Message::new(JobId::from("7"), task, arguments.unwrap());
        message.labels.insert("label".to_owned(), long.clone().into());
        let mut record = JobRecord::of(&message, status);
        record.message = Some(message.seal().body);
        record.progress = Some(Box::new(Progress { done: 1, total: 1, note: Some(long.clone()) }));
        record.logs = vec![LogLine { at: Timestamp::now(), line: long.clone() }];
        let error = JobError::new("Wrong", long.clone());
        let (at, reason) = (Timestamp::now(), Reason::Panic);
        record.errors = vec![AttemptError { attempt: 1, at, worker_id: None, reason, error: error.clone() }];
        (record.error, record.reason) = (Some(Box::new(error)), Some(reason));
        record.result = Codec::MessagePack.encode(&long).ok();
        record
    }

    #[test]
    fn a_record_is_reduced_down_to_what_says_that_the_job_has_ended() {
        for status in [Status::Completed, Status::Failed, Status::Cancelled, Status::Running] {
            let mut record = large(status);
            if status != Status::Completed {
                record.result = None;
            }
            let mut sizes = vec![record.to_bytes().len()];
            for reduce in REDUCTIONS {
                reduce(&mut record);
                sizes.push(record.to_bytes().len());
            }
            assert!(sizes.is_sorted_by(|before, after| before >= after), "{sizes:?}");
            assert!(sizes.last().is_some_and(|least| *least < 1_000), "{sizes:?}");
            let left = JobRecord::from_bytes(&record.to_bytes()).unwrap();
            let ends = if status == Status::Completed { Status::Failed } else { status };
            assert_eq!((left.id.as_str(), left.status), ("7", ends));
            assert!(left.reason.is_some());
        }
    }

    #[test]
    fn labels_are_read_from_the_sealed_message() {
        let mut record = large(Status::Failed);
        let whole = record.labels.clone();
        repeated_labels(&mut record);
        assert!(record.labels.is_empty());
        assert_eq!(JobRecord::from_bytes(&record.to_bytes()).unwrap().labels, whole);
    }
}
