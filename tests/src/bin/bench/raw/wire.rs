//! Messages and records as the framework writes them, by serde alone.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::jobs::{QUEUE, TEXT};

/// A new id, as the framework draws them.
pub(super) fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// Microseconds since 1970.
pub(super) fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Bytes of the body of a job.
pub(super) fn encoded(id: &str, number: u64) -> Vec<u8> {
    let kicked_at = now_us().to_string();
    let message = Message {
        task_id: id,
        task_name: "bench.noop",
        labels: Labels { kicked_at: &kicked_at, queue_name: QUEUE },
        labels_types: LabelTypes { kicked_at: 2, queue_name: 3 },
        args: [],
        kwargs: Arguments { number, text: TEXT },
    };
    rmp_serde::to_vec_named(&message).expect("a message is plain data")
}

/// A message.
#[derive(Serialize, Deserialize)]
pub(super) struct Message<'a> {
    pub(super) task_id: &'a str,
    task_name: &'a str,
    #[serde(borrow)]
    labels: Labels<'a>,
    labels_types: LabelTypes,
    args: [(); 0],
    pub(super) kwargs: Arguments<'a>,
}

#[derive(Serialize, Deserialize)]
struct Labels<'a> {
    kicked_at: &'a str,
    queue_name: &'a str,
}

#[derive(Serialize, Deserialize)]
struct LabelTypes {
    kicked_at: i64,
    queue_name: i64,
}

/// The arguments of a job.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Arguments<'a> {
    pub(super) number: u64,
    pub(super) text: &'a str,
}

impl<'a> Message<'a> {
    /// Reads the body of a job.
    pub(super) fn read(body: &'a [u8]) -> Self {
        rmp_serde::from_slice(body).expect("a body that was written here")
    }
}

/// A record.
#[derive(Serialize, Deserialize)]
pub(super) struct Record<'a> {
    is_err: bool,
    log: (),
    return_value: (),
    execution_time: f64,
    labels: NoLabels,
    error: (),
    id: &'a str,
    task: &'a str,
    queue: &'a str,
    status: &'a str,
    priority: u8,
    attempt: u32,
    max_retries: u32,
    kwargs: Arguments<'a>,
    worker_id: &'a str,
    kicked_at: u64,
    started_at: u64,
    finished_at: u64,
}

#[derive(Serialize, Deserialize)]
struct NoLabels {}

impl<'a> Record<'a> {
    /// The bytes of the record of a job that has run.
    pub(super) fn encoded(message: &Message<'a>, worker_id: &str, started_at: u64) -> Vec<u8> {
        let record = Record {
            is_err: false,
            log: (),
            return_value: (),
            execution_time: 0.000_001,
            labels: NoLabels {},
            error: (),
            id: message.task_id,
            task: message.task_name,
            queue: QUEUE,
            status: "completed",
            priority: 5,
            attempt: 1,
            max_retries: 0,
            kwargs: message.kwargs,
            worker_id,
            kicked_at: message.labels.kicked_at.parse().expect("a number"),
            started_at,
            finished_at: now_us(),
        };
        rmp_serde::to_vec_named(&record).expect("a record is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{Tally, noop};
    use aioq::{Memory, WorkerOptions};
    use aioq_tests::Bed;

    #[tokio::test]
    async fn bodies_and_records_are_those_of_the_framework() {
        let bed = Bed::Memory(Memory::new());
        let app = bed.app().state(Tally::of(1)).worker_options(WorkerOptions::new().queues([QUEUE]));
        let worker = app.worker().await.expect("a worker");
        let handle = worker.client().kiq(noop(7, TEXT)).await.expect("a kick");
        let queued = bed.backend().broker().find(handle.id()).await.expect("a look").expect("a message");
        let message = Message::read(&queued.body);
        assert_eq!(queued.body, rmp_serde::to_vec_named(&message).expect("bytes"));
        assert_eq!(queued.body.len(), encoded(message.task_id, 7).len());
        worker.drain().await.expect("a drain");
        let bytes = handle.record().await.expect("a record").to_bytes();
        let record: Record<'_> = rmp_serde::from_slice(&bytes).expect("a record");
        assert_eq!(bytes, rmp_serde::to_vec_named(&record).expect("bytes"));
        assert_eq!(bytes.len(), Record::encoded(&message, worker.id(), now_us()).len());
    }
}
