//! One list that is being read: two sides, merged row by row.

use std::collections::{HashSet, VecDeque};

use futures_util::future::{join_all, try_join_all};

use super::cursor::{Cursor, Position};
use super::{JobFilter, MAX_HIDDEN};
use crate::broker::{Order, Page, Queued, QueuedFilter, Waiting};
use crate::error::Result;
use crate::jobs::{Jobs, merge};
use crate::message::{JobId, Message};
use crate::store::{JobRecord, RecordFilter, Status, Stored};
use crate::time::Timestamp;
use crate::unique;

/// A list that is being read.
pub(super) struct Listing<'a> {
    jobs: &'a Jobs,
    filter: &'a JobFilter,
    /// Number of rows to request at once.
    batch: usize,
    /// Messages in the broker.
    waiting: Side,
    /// Records in the store.
    stored: Side,
    shown: HashSet<JobId>,
    /// Number of rows that were read and do not match.
    hidden: usize,
}

/// A row of one side: its number, and its job unless the row is hidden.
type Row = (u64, Option<JobRecord>);

/// One side of a list.
struct Side {
    /// End of the rows that were shown.
    shown: Position,
    /// End of the rows that were read.
    read: Position,
    /// Rows that were read and not shown.
    rows: VecDeque<Row>,
}

impl Side {
    fn from(start: Position) -> Self {
        Self { shown: start, read: start, rows: VecDeque::new() }
    }

    fn is_at_end(&self) -> bool {
        self.rows.is_empty() && self.read == Position::End
    }

    /// True if rows must be read before the next one can be shown.
    fn needs_rows(&self) -> bool {
        self.rows.is_empty() && self.read != Position::End
    }

    /// Adds the rows of a page. A page of fewer than `limit` rows is the last one.
    fn add(&mut self, rows: Vec<Row>, limit: usize) {
        self.read = match rows.last() {
            Some((row, _)) if rows.len() >= limit => Position::After(*row),
            _ => Position::End,
        };
        self.rows.extend(rows);
    }

    fn pop(&mut self) -> Option<JobRecord> {
        let (row, record) = self.rows.pop_front()?;
        self.shown = if self.is_at_end() { Position::End } else { Position::After(row) };
        record
    }
}

impl<'a> Listing<'a> {
    pub(super) fn new(jobs: &'a Jobs, filter: &'a JobFilter, cursor: Cursor, batch: usize) -> Self {
        let (waiting, stored) = (Side::from(cursor.waiting), Side::from(cursor.stored));
        Self { jobs, filter, batch, waiting, stored, shown: HashSet::new(), hidden: 0 }
    }

    /// Position after the rows shown so far; `None` at the end of the list.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        let is_at_end = self.waiting.is_at_end() && self.stored.is_at_end();
        (!is_at_end).then_some(Cursor { waiting: self.waiting.shown, stored: self.stored.shown })
    }

    pub(super) fn hidden(&self) -> usize {
        self.hidden
    }

    pub(super) async fn take(&mut self, wanted: usize) -> Result<Vec<JobRecord>> {
        let mut jobs = Vec::new();
        while jobs.len() < wanted && self.hidden < MAX_HIDDEN {
            self.fill().await?;
            let Some(side) = self.next_side() else { break };
            match side.pop() {
                Some(job) if self.shown.insert(job.id.clone()) => jobs.push(job),
                _ => self.hidden += 1,
            }
        }
        // Refill now, so that the last page reports no cursor.
        self.fill().await?;
        Ok(jobs)
    }

    /// The side of the next row: the later change of state, hidden rows first; `None` if no rows
    /// are left.
    fn next_side(&mut self) -> Option<&mut Side> {
        match (self.waiting.rows.front(), self.stored.rows.front()) {
            (None, None) => None,
            (Some((_, None)), _) => Some(&mut self.waiting),
            (_, Some((_, None))) => Some(&mut self.stored),
            (Some(_), None) => Some(&mut self.waiting),
            (None, Some(_)) => Some(&mut self.stored),
            (Some((_, Some(waiting))), Some((_, Some(stored)))) => {
                let is_waiting_later = changed_at(waiting) >= changed_at(stored);
                Some(if is_waiting_later { &mut self.waiting } else { &mut self.stored })
            }
        }
    }

    /// Reads the next page of each side that has no rows left.
    async fn fill(&mut self) -> Result<()> {
        if self.stored.needs_rows() {
            let rows = self.read_stored().await?;
            self.stored.add(rows, self.batch);
        }
        if self.waiting.needs_rows() {
            let rows = self.read_waiting().await?;
            self.waiting.add(rows, self.batch);
        }
        Ok(())
    }

    fn page(&self, read: Position) -> Page {
        let after = match read {
            Position::After(row) => Some(row),
            Position::Start | Position::End => None,
        };
        Page { order: Order::NewestFirst, after, limit: self.batch }
    }

    async fn read_stored(&self) -> Result<Vec<Row>> {
        let Some(store) = self.jobs.client.backend().jobs() else { return Ok(Vec::new()) };
        let page = self.page(self.stored.read);
        let mut base = RecordFilter::new();
        base.queue.clone_from(&self.filter.queue);
        let filters: Vec<RecordFilter> = if self.filter.statuses.is_empty() {
            vec![base]
        } else {
            let stored = self.filter.statuses.iter().filter(|status| is_stored(**status));
            stored.map(|status| base.clone().status(*status)).collect()
        };
        let lists = try_join_all(filters.iter().map(|filter| store.list(filter, page))).await?;
        let mut rows: Vec<Stored> = lists.into_iter().flatten().collect();
        rows.sort_by_key(|stored| std::cmp::Reverse(stored.revision));
        rows.truncate(page.limit);
        let rows = rows.into_iter().map(|stored| async {
            let revision = stored.revision;
            self.job_of_record(stored).await.map(|record| (revision, record))
        });
        try_join_all(rows).await
    }

    /// The job of a record; `None` if it does not match, or if its message is newer.
    async fn job_of_record(&self, stored: Stored) -> Result<Option<JobRecord>> {
        let record = stored.record;
        if !is_stored(record.status) || !self.filter.matches_record(&record) {
            return Ok(None);
        }
        match record.status {
            Status::Completed => return Ok(Some(record)),
            // A server that crashed may list a record that was replaced.
            status if !status.is_terminal() => {
                let newest = self.jobs.stored(&record.id).await?;
                return Ok(newest.filter(|newest| newest.revision == stored.revision).map(|_| record));
            }
            _ => {}
        }
        // The job may have been kicked again: then its message is newer.
        let queued = self.jobs.client.backend().broker().find(&record.id).await?;
        let is_newest = queued.is_none_or(|queued| queued.is_older_than(stored.revision));
        Ok(is_newest.then_some(record))
    }

    async fn read_waiting(&self) -> Result<Vec<Row>> {
        let mut filter = QueuedFilter::new();
        filter.queue.clone_from(&self.filter.queue);
        let statuses = &self.filter.statuses;
        // An expired message may be in any of the three states.
        if !statuses.is_empty() && !statuses.contains(&Status::Expired) {
            let kinds: Vec<Waiting> = statuses.iter().filter_map(|status| waiting_for(*status)).collect();
            match kinds[..] {
                [] => return Ok(Vec::new()),
                [kind] => filter.waiting = Some(kind),
                _ => {}
            }
        }
        let broker = self.jobs.client.backend().broker();
        let rows = broker.list(&filter, self.page(self.waiting.read)).await?;
        let rows = join_all(rows.into_iter().map(|queued| async {
            let position = queued.position;
            self.job_of_message(queued).await.map(|record| (position, record))
        }));
        rows.await.into_iter().collect()
    }

    /// The job of a message; `None` if it does not match, or if its record is newer.
    async fn job_of_message(&self, queued: Queued) -> Result<Option<JobRecord>> {
        let mut message = Message::open(&queued.body).ok();
        if let Some(ticket) = &message
            && let Some(newest) = unique::newest(&**self.jobs.client.backend().kv(), ticket).await?
        {
            message = Some(newest);
        }
        if let Some(message) = &message
            && !self.filter.matches_message(&message.task, |name| message.labels.get(name).cloned())
        {
            return Ok(None);
        }
        let stored = self.jobs.stored(&queued.id).await?;
        let now = self.jobs.client.now();
        let record = merge::merge_waiting(&queued, message.as_ref(), stored, now);
        // Other jobs with a stored status are rows of the other side.
        let is_ours = !is_stored(record.status) || record.status == Status::Expired;
        Ok(Some(record).filter(|record| is_ours && self.filter.matches_record(record)))
    }
}

/// True if jobs with this status are listed from their records.
fn is_stored(status: Status) -> bool {
    !matches!(status, Status::Scheduled | Status::Pending | Status::Retrying)
}

/// The state of the messages of jobs with this status.
fn waiting_for(status: Status) -> Option<Waiting> {
    match status {
        Status::Pending => Some(Waiting::Ready),
        Status::Scheduled => Some(Waiting::Scheduled),
        Status::Retrying => Some(Waiting::Retrying),
        _ => None,
    }
}

/// The time of the last change of state, as far as the record tells.
fn changed_at(record: &JobRecord) -> Option<Timestamp> {
    match record.status {
        Status::Running => record.started_at,
        Status::Retrying => record.errors.last().map(|error| error.at).or(record.kicked_at),
        _ => record.finished_at.or(record.kicked_at),
    }
}
