//! Listing jobs: the messages in the broker and the records in the store, merged into one list.

mod cursor;
mod filter;
mod listing;

pub use self::cursor::Cursor;
pub use self::filter::JobFilter;
use self::listing::Listing;
use super::Jobs;
use crate::error::{Error, ErrorKind, Result};
use crate::store::JobRecord;

/// Largest number of rows that one call reads without showing them, and largest offset.
const MAX_HIDDEN: usize = 10_000;

/// Largest number of rows to request at once.
const MAX_BATCH: usize = 500;

/// A piece of a list: its start and its length.
#[derive(Clone, Debug)]
#[must_use]
pub struct JobsPage {
    limit: usize,
    offset: usize,
    cursor: Cursor,
}

impl JobsPage {
    /// The first `limit` jobs.
    pub fn of(limit: usize) -> Self {
        Self { limit, offset: 0, cursor: Cursor::default() }
    }

    /// Skips `offset` jobs, at most 10,000; to skip more, follow the cursor.
    pub fn offset(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    /// Starts where an earlier list ended.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.cursor = cursor;
        self
    }
}

impl From<usize> for JobsPage {
    fn from(limit: usize) -> Self {
        Self::of(limit)
    }
}

/// A piece of a list.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobList {
    /// Jobs, the latest change of state first; among waiting jobs, the latest kick first.
    pub jobs: Vec<JobRecord>,
    /// Start of the next piece; `None` at the end of the list.
    pub next: Option<Cursor>,
    /// False if the search stopped after 10,000 hidden rows: then more jobs may follow after
    /// `next`, even if this piece is short.
    pub complete: bool,
}

impl Jobs {
    /// Lists the jobs that match a filter, the latest change of state first.
    ///
    /// Queue and status are indexed. A task or a label is not: the rows that match the rest are
    /// read, at most 10,000 in one call. A job that changes state while the list is read may be
    /// missing, or be listed with either state, but never twice in one piece. A job that expired
    /// while it waited is listed as expired, after the jobs that are recorded as expired. A job
    /// whose parents are done is listed once its message is in the broker, a moment later.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for an offset above 10,000; the errors of
    /// the backend.
    pub async fn list(&self, filter: JobFilter, page: impl Into<JobsPage>) -> Result<JobList> {
        let JobsPage { limit, offset, cursor } = page.into();
        if offset > MAX_HIDDEN {
            let message = format!("an offset is at most {MAX_HIDDEN}: follow the cursor of a list instead");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let wanted = limit.saturating_add(offset);
        let batch = if filter.hides_rows() { MAX_BATCH } else { wanted.clamp(1, MAX_BATCH) };
        let mut listing = Listing::new(self, &filter, cursor, batch);
        let mut jobs = listing.take(wanted).await?;
        jobs.drain(..offset.min(jobs.len()));
        let next = listing.cursor();
        let complete = listing.hidden() < MAX_HIDDEN || next.is_none();
        Ok(JobList { jobs, next, complete })
    }
}
