//! Views of the content of a broker.

use bytes::Bytes;

use crate::message::JobId;
use crate::time::Timestamp;

/// A message in a broker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Queued {
    /// Id of the job.
    pub id: JobId,
    /// Queue of the job.
    pub queue: String,
    /// The encoded message.
    pub body: Bytes,
    /// True if the message is ready or held; false if it is delayed.
    pub ready: bool,
    /// Position in lists, greater for later kicks. A successor may have the position of its
    /// predecessor.
    pub position: u64,
    /// Differs from the revisions of its predecessors and successors under the same id.
    pub revision: u64,
}

impl Queued {
    /// A message at position and revision 0.
    #[must_use]
    pub fn new(id: JobId, queue: impl Into<String>, body: Bytes, ready: bool) -> Self {
        Self { id, queue: queue.into(), body, ready, position: 0, revision: 0 }
    }

    /// Sets the position.
    #[must_use]
    pub fn position(mut self, position: u64) -> Self {
        self.position = position;
        self
    }

    /// Sets the revision.
    #[must_use]
    pub fn revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }
}

/// The event that a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// A worker. Held messages count here too.
    Ready,
    /// The time of its first attempt.
    Scheduled,
    /// The time of a later attempt.
    Retrying,
}

/// Selects messages; all by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuedFilter {
    /// Messages of one queue.
    pub queue: Option<String>,
    /// Messages that wait for one event. A message that is due within a second may count as ready.
    pub waiting: Option<Waiting>,
}

impl QueuedFilter {
    /// All messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects messages of one queue.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Selects messages by the event they wait for.
    #[must_use]
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = Some(waiting);
        self
    }
}

/// A page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Direction.
    pub order: Order,
    /// Last position of the page before, in that direction; `None` starts at the end.
    pub after: Option<u64>,
    /// Maximum number of rows.
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

    /// The rows after this position.
    #[must_use]
    pub const fn after(mut self, position: u64) -> Self {
        self.after = Some(position);
        self
    }
}

/// Direction of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By falling position.
    NewestFirst,
    /// By rising position.
    OldestFirst,
}

/// Number of messages in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueDepth {
    /// The queue.
    pub queue: String,
    /// Messages that can be delivered now.
    pub ready: u64,
    /// Messages that workers hold.
    pub held: u64,
    /// Messages that wait for the time of their first attempt.
    pub scheduled: u64,
    /// Messages that wait for the time of a later attempt.
    pub retrying: u64,
    /// Time at which the longest waiting ready message became ready.
    pub oldest: Option<Timestamp>,
}

impl QueueDepth {
    /// An empty queue.
    #[must_use]
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), ..Self::default() }
    }
}
