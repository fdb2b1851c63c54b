//! What is in a broker, seen from outside.

use bytes::Bytes;

use crate::message::JobId;
use crate::time::Timestamp;

/// A message in the broker, seen from outside.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Queued {
    /// The job.
    pub id: JobId,
    /// Its queue.
    pub queue: String,
    /// The encoded message.
    pub body: Bytes,
    /// Whether it can be delivered now, or is held; otherwise it waits for its time.
    pub ready: bool,
    /// Its place in lists: greater for what was kicked later. A successor may inherit the place of its
    /// predecessor.
    pub position: u64,
    /// Tells it from its predecessors and successors of the same id.
    pub revision: u64,
}

impl Queued {
    /// A message in the broker, at position and revision 0.
    #[must_use]
    pub fn new(id: JobId, queue: impl Into<String>, body: Bytes, ready: bool) -> Self {
        Self { id, queue: queue.into(), body, ready, position: 0, revision: 0 }
    }

    /// Its place in lists.
    #[must_use]
    pub fn position(mut self, position: u64) -> Self {
        self.position = position;
        self
    }

    /// What tells it from its predecessors and successors.
    #[must_use]
    pub fn revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }
}

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// A worker; those that a worker holds are counted here, too.
    Ready,
    /// The time of its first attempt.
    Scheduled,
    /// The time of a later attempt.
    Retrying,
}

/// Which messages to list; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuedFilter {
    /// Those of one queue.
    pub queue: Option<String>,
    /// Those that wait for one thing. A message that is due within a second may count as ready.
    pub waiting: Option<Waiting>,
}

impl QueuedFilter {
    /// All messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of one queue.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Those that wait for one thing.
    #[must_use]
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = Some(waiting);
        self
    }
}

/// A piece of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// From which end.
    pub order: Order,
    /// Only what comes after this position, in that order; `None` begins at the end.
    pub after: Option<u64>,
    /// At most this many rows.
    pub limit: usize,
}

impl Page {
    /// The newest rows.
    #[must_use]
    pub const fn newest(limit: usize) -> Self {
        Self { order: Order::NewestFirst, after: None, limit }
    }

    /// The oldest rows.
    #[must_use]
    pub const fn oldest(limit: usize) -> Self {
        Self { order: Order::OldestFirst, after: None, limit }
    }

    /// The rows that come after this position.
    #[must_use]
    pub const fn after(mut self, position: u64) -> Self {
        self.after = Some(position);
        self
    }
}

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By falling position.
    NewestFirst,
    /// By rising position.
    OldestFirst,
}

/// How much is in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueDepth {
    /// The queue.
    pub queue: String,
    /// Messages that could be delivered now.
    pub ready: u64,
    /// Messages that a worker holds.
    pub held: u64,
    /// Messages that wait for the time of their first attempt.
    pub scheduled: u64,
    /// Messages that wait for the time of a later attempt.
    pub retrying: u64,
    /// Since when the message that has been ready for longest is, of those that nobody holds.
    pub oldest: Option<Timestamp>,
}

impl QueueDepth {
    /// An empty queue.
    #[must_use]
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), ..Self::default() }
    }
}
