//! Messages and records with the same bytes as aioq's, written by serde alone.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{QUEUE, TASK, TEXT};
use crate::error::{Error, ErrorKind, Result};

/// Microseconds since 1970.
#[must_use]
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Message of a job, as a raw program writes and reads it. The bytes are the same as aioq's.
///
/// ```
/// use aioq::bench::RawMessage;
///
/// let id = RawMessage::new_id();
/// let body = RawMessage::encoded(&id, 7);
/// let message = RawMessage::read(&body)?;
/// assert_eq!((message.id(), message.run()), (id.as_str(), 7));
/// # Ok::<(), aioq::Error>(())
/// ```
#[derive(Debug, Serialize, Deserialize)]
pub struct RawMessage<'a> {
    task_id: &'a str,
    task_name: &'a str,
    #[serde(borrow)]
    labels: Labels<'a>,
    labels_types: LabelTypes,
    args: [(); 0],
    kwargs: Arguments<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Labels<'a> {
    kicked_at: &'a str,
    queue_name: &'a str,
}

#[derive(Debug, Serialize, Deserialize)]
struct LabelTypes {
    kicked_at: i64,
    queue_name: i64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Arguments<'a> {
    number: u64,
    text: &'a str,
}

impl<'a> RawMessage<'a> {
    /// A new id, of the same kind as aioq's.
    #[must_use]
    pub fn new_id() -> String {
        uuid::Uuid::now_v7().simple().to_string()
    }

    /// Bytes of the message of a job.
    ///
    /// # Panics
    /// Never: a message is plain data.
    #[must_use]
    pub fn encoded(id: &str, number: u64) -> Vec<u8> {
        let kicked_at = now_us().to_string();
        let message = RawMessage {
            task_id: id,
            task_name: TASK,
            labels: Labels { kicked_at: &kicked_at, queue_name: QUEUE },
            labels_types: LabelTypes { kicked_at: 2, queue_name: 3 },
            args: [],
            kwargs: Arguments { number, text: TEXT },
        };
        rmp_serde::to_vec_named(&message).expect("a message is plain data")
    }

    /// Reads the bytes that [`encoded`](Self::encoded) returns.
    ///
    /// # Errors
    /// [`Decode`](ErrorKind::Decode) if the bytes are no such message.
    pub fn read(body: &'a [u8]) -> Result<Self> {
        rmp_serde::from_slice(body).map_err(|error| {
            Error::new(ErrorKind::Decode, "this message is not a job of the benchmark").with_source(error)
        })
    }

    /// The id of the job.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.task_id
    }

    /// The body of a job in a raw program: reads the arguments and returns the number.
    pub fn run(&self) -> u64 {
        std::hint::black_box(self.kwargs.text);
        std::hint::black_box(self.kwargs.number)
    }
}

/// Record of a completed job, as a raw program writes it. The bytes are the same as aioq's.
#[derive(Debug, Serialize, Deserialize)]
pub struct RawRecord<'a> {
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

#[derive(Debug, Serialize, Deserialize)]
struct NoLabels {}

impl<'a> RawRecord<'a> {
    /// Bytes of the record of a job that ends now.
    ///
    /// # Panics
    /// Never: a record is plain data.
    #[must_use]
    pub fn encoded(message: &RawMessage<'a>, worker_id: &str, started_at: u64) -> Vec<u8> {
        let record = RawRecord {
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
            kicked_at: message.labels.kicked_at.parse().unwrap_or_default(),
            started_at,
            finished_at: now_us(),
        };
        rmp_serde::to_vec_named(&record).expect("a record is plain data")
    }
}
