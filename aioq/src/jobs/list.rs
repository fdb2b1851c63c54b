//! Listing jobs: what waits in the broker and what the store remembers, as one list.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::str::FromStr;

use futures_util::future::{join_all, try_join_all};

use super::{Jobs, merge};
use crate::broker::{Order, Page, Queued, QueuedFilter, Waiting};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Label, Message};
use crate::store::{JobRecord, RecordFilter, Status, Stored};
use crate::time::Timestamp;

/// The most rows that one call looks at without showing them, and the greatest offset.
const MOST_LOOKED_AT: usize = 10_000;

/// The most rows to ask for at once.
const MOST_AT_ONCE: usize = 500;

/// Which jobs to list; the default is all.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct JobFilter {
    pub(super) queue: Option<String>,
    pub(super) statuses: Vec<Status>,
    task: Option<String>,
    label: Option<(String, Label)>,
    dead_lettered: bool,
}

impl JobFilter {
    /// All jobs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of one queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Those with that status; said several times, those with one of them.
    pub fn status(mut self, status: Status) -> Self {
        self.statuses.push(status);
        self
    }

    /// Those of one task. The store does not know tasks: records are looked through.
    pub fn task(mut self, task: impl Into<String>) -> Self {
        self.task = Some(task.into());
        self
    }

    /// Those with that label. The store does not know labels: records are looked through.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<Label>) -> Self {
        self.label = Some((name.into(), value.into()));
        self
    }

    /// Those in the dead letters.
    pub fn dead_lettered(mut self) -> Self {
        self.dead_lettered = true;
        self
    }

    /// Those with one of these statuses, unless it was said which.
    pub(crate) fn or_statuses(mut self, statuses: &[Status]) -> Self {
        if self.statuses.is_empty() {
            self.statuses.extend(statuses);
        }
        self
    }

    fn wants(&self, status: Status) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&status)
    }

    /// What the body tells, whatever became of the job.
    fn wants_task(&self, task: &str, label: impl Fn(&str) -> Option<Label>) -> bool {
        self.task.as_deref().is_none_or(|wanted| wanted == task)
            && self
                .label
                .as_ref()
                .is_none_or(|(name, value)| label(name).is_some_and(|found| found.reads_as(value)))
    }

    fn wants_record(&self, record: &JobRecord) -> bool {
        self.wants(record.status)
            && (!self.dead_lettered || record.dead_lettered)
            && self.wants_task(&record.task, |name| record.labels.get(name).cloned())
    }

    /// Whether rows are looked at that are not shown.
    fn looks_through(&self) -> bool {
        self.task.is_some() || self.label.is_some() || self.dead_lettered
    }
}

/// Which piece of a list.
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

    /// Without the first `offset` jobs, at most 10,000; for more, follow the cursor.
    pub fn offset(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    /// From where an earlier list ended.
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
    /// The jobs, the latest change of state first; among those that wait, the latest kick first.
    pub jobs: Vec<JobRecord>,
    /// Where the list goes on; `None` at its end.
    pub next: Option<Cursor>,
    /// False if the search ended because it had looked at 10,000 rows: there may be more behind `next`, also if
    /// this piece is short.
    pub complete: bool,
}

/// A place in a list. As text it can be kept and handed to another process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    waiting: Place,
    stored: Place,
}

/// How far one of the two sides has been shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    After(u64),
    End,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::After(position) => position.fmt(f),
            Self::End => f.write_str("end"),
        }
    }
}

impl Place {
    fn read(text: &str) -> Option<Self> {
        match text {
            "start" => Some(Self::Start),
            "end" => Some(Self::End),
            position => position.parse().ok().map(Self::After),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.waiting, self.stored)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let places = text.split_once('-');
        let cursor = places.and_then(|(waiting, stored)| {
            Some(Self { waiting: Place::read(waiting)?, stored: Place::read(stored)? })
        });
        cursor.ok_or_else(|| {
            let message = format!("`{text}` is no cursor: use the one that an earlier list returned");
            Error::new(ErrorKind::InvalidArgument, message)
        })
    }
}

impl Jobs {
    /// The jobs that a filter lets through, the latest change of state first.
    ///
    /// Queue and status are looked up; for a task or a label, rows are looked through, at most 10,000 in one
    /// call. Jobs that move while the list is read may be missing or be in it with either state, never twice in
    /// one piece. A job that expired while it waits is listed as expired behind those that are recorded so.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for an offset above 10,000; what the backend reports.
    pub async fn list(&self, filter: JobFilter, page: impl Into<JobsPage>) -> Result<JobList> {
        let JobsPage { limit, offset, cursor } = page.into();
        if offset > MOST_LOOKED_AT {
            let message = format!("an offset is at most {MOST_LOOKED_AT}: go on from the cursor of a list");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let wanted = limit.saturating_add(offset);
        let at_once = if filter.looks_through() { MOST_AT_ONCE } else { wanted.clamp(1, MOST_AT_ONCE) };
        let mut listing = Listing::new(self, &filter, cursor, at_once);
        let mut jobs = listing.take(wanted).await?;
        jobs.drain(..offset.min(jobs.len()));
        let next = listing.cursor();
        let complete = listing.hidden < MOST_LOOKED_AT || next.is_none();
        Ok(JobList { jobs, next, complete })
    }
}

/// A list on its way: the two sides, and what was read of them and not shown yet.
struct Listing<'a> {
    jobs: &'a Jobs,
    filter: &'a JobFilter,
    at_once: usize,
    waiting: Side,
    stored: Side,
    shown: HashSet<crate::message::JobId>,
    /// Rows that were looked at and not shown.
    hidden: usize,
}

/// One side of the list.
struct Side {
    /// Up to where it has been shown.
    shown: Place,
    /// Up to where it has been read.
    read: Place,
    /// What was read and not shown: places, and the jobs there that are in the list.
    rows: VecDeque<(u64, Option<JobRecord>)>,
}

impl Side {
    fn from(place: Place) -> Self {
        Self { shown: place, read: place, rows: VecDeque::new() }
    }

    fn is_at_end(&self) -> bool {
        self.rows.is_empty() && self.read == Place::End
    }

    /// Takes what was read: a short page is the last.
    fn take(&mut self, rows: Vec<(u64, Option<JobRecord>)>, limit: usize) {
        self.read = match rows.last() {
            Some((position, _)) if rows.len() >= limit => Place::After(*position),
            _ => Place::End,
        };
        self.rows.extend(rows);
    }

    fn pop(&mut self) -> Option<JobRecord> {
        let (position, record) = self.rows.pop_front()?;
        let last = self.rows.is_empty() && self.read == Place::End;
        self.shown = if last { Place::End } else { Place::After(position) };
        record
    }
}

impl<'a> Listing<'a> {
    fn new(jobs: &'a Jobs, filter: &'a JobFilter, cursor: Cursor, at_once: usize) -> Self {
        let (waiting, stored) = (Side::from(cursor.waiting), Side::from(cursor.stored));
        Self { jobs, filter, at_once, waiting, stored, shown: HashSet::new(), hidden: 0 }
    }

    fn cursor(&self) -> Option<Cursor> {
        let done = self.waiting.is_at_end() && self.stored.is_at_end();
        (!done).then_some(Cursor { waiting: self.waiting.shown, stored: self.stored.shown })
    }

    async fn take(&mut self, wanted: usize) -> Result<Vec<JobRecord>> {
        let mut jobs = Vec::new();
        while jobs.len() < wanted && self.hidden < MOST_LOOKED_AT {
            self.fill().await?;
            let side = match (self.waiting.rows.front(), self.stored.rows.front()) {
                (None, None) => break,
                // What is not shown must not stand before what is.
                (Some((_, None)), _) => &mut self.waiting,
                (_, Some((_, None))) => &mut self.stored,
                (Some(_), None) => &mut self.waiting,
                (None, Some(_)) => &mut self.stored,
                (Some((_, Some(waiting))), Some((_, Some(stored)))) => {
                    match changed_at(waiting) >= changed_at(stored) {
                        true => &mut self.waiting,
                        false => &mut self.stored,
                    }
                }
            };
            match side.pop().filter(|job| self.shown.insert(job.id.clone())) {
                Some(job) => jobs.push(job),
                None => self.hidden += 1,
            }
        }
        // So that the last piece knows that it is.
        self.fill().await?;
        Ok(jobs)
    }

    /// Reads on where nothing is left to show.
    async fn fill(&mut self) -> Result<()> {
        if self.stored.rows.is_empty() && self.stored.read != Place::End {
            let rows = self.read_stored().await?;
            self.stored.take(rows, self.at_once);
        }
        if self.waiting.rows.is_empty() && self.waiting.read != Place::End {
            let rows = self.read_waiting().await?;
            self.waiting.take(rows, self.at_once);
        }
        Ok(())
    }

    fn page(&self, read: Place) -> Page {
        let after = match read {
            Place::After(position) => Some(position),
            Place::Start | Place::End => None,
        };
        Page { order: Order::NewestFirst, after, limit: self.at_once }
    }

    async fn read_stored(&self) -> Result<Vec<(u64, Option<JobRecord>)>> {
        let Some(store) = self.jobs.client.backend().jobs() else { return Ok(Vec::new()) };
        let page = self.page(self.stored.read);
        let mut base = RecordFilter::new();
        base.queue.clone_from(&self.filter.queue);
        let filters: Vec<RecordFilter> = match self.filter.statuses.is_empty() {
            true => vec![base],
            false => {
                let stored = self.filter.statuses.iter().filter(|status| is_stored(**status));
                stored.map(|status| base.clone().status(*status)).collect()
            }
        };
        let lists = try_join_all(filters.iter().map(|filter| store.list(filter, page))).await?;
        let mut rows: Vec<Stored> = lists.into_iter().flatten().collect();
        rows.sort_by_key(|stored| std::cmp::Reverse(stored.revision));
        rows.truncate(page.limit);
        let judged = rows.into_iter().map(|stored| async {
            let revision = stored.revision;
            self.judge_stored(stored).await.map(|record| (revision, record))
        });
        try_join_all(judged).await
    }

    /// The job of a record, if the record is what tells of it.
    async fn judge_stored(&self, stored: Stored) -> Result<Option<JobRecord>> {
        let record = stored.record;
        if !is_stored(record.status) || !self.filter.wants_record(&record) {
            return Ok(None);
        }
        match record.status {
            Status::Completed => return Ok(Some(record)),
            // A server that crashed may have brought back what was replaced.
            status if !status.is_terminal() => {
                let newest = self.jobs.stored(&record.id).await?;
                return Ok(newest.filter(|newest| newest.revision == stored.revision).map(|_| record));
            }
            _ => {}
        }
        // It may have been kicked again: then its message tells.
        let queued = self.jobs.client.backend().broker().find(&record.id).await?;
        let is_newest = queued.is_none_or(|queued| queued.is_older_than(stored.revision));
        Ok(is_newest.then_some(record))
    }

    async fn read_waiting(&self) -> Result<Vec<(u64, Option<JobRecord>)>> {
        let mut filter = QueuedFilter::new();
        filter.queue.clone_from(&self.filter.queue);
        let statuses = &self.filter.statuses;
        // One that expired while it waits may wait for anything.
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
        let judged = join_all(rows.into_iter().map(|queued| async {
            let position = queued.position;
            self.judge_waiting(queued).await.map(|record| (position, record))
        }));
        judged.await.into_iter().collect()
    }

    /// The job of a message, if the message is what tells of it.
    async fn judge_waiting(&self, queued: Queued) -> Result<Option<JobRecord>> {
        let message = Message::open(&queued.body).ok();
        if let Some(message) = &message
            && !self.filter.wants_task(&message.task, |name| message.labels.get(name).cloned())
        {
            return Ok(None);
        }
        let stored = self.jobs.stored(&queued.id).await?;
        let now = self.jobs.client.now();
        let record = merge::merge_waiting(&queued, message.as_ref(), stored, now);
        // What a record tells is listed as a record.
        let told = |record: &JobRecord| is_stored(record.status) && record.status != Status::Expired;
        Ok(Some(record).filter(|record| !told(record) && self.filter.wants_record(record)))
    }
}

/// Whether jobs in that status are found by their records.
fn is_stored(status: Status) -> bool {
    !matches!(status, Status::Scheduled | Status::Pending | Status::Retrying)
}

/// What messages of jobs in that status wait for.
fn waiting_for(status: Status) -> Option<Waiting> {
    match status {
        Status::Pending => Some(Waiting::Ready),
        Status::Scheduled => Some(Waiting::Scheduled),
        Status::Retrying => Some(Waiting::Retrying),
        _ => None,
    }
}

/// When a job came into its state, as far as its record tells.
fn changed_at(record: &JobRecord) -> Option<Timestamp> {
    match record.status {
        Status::Running => record.started_at,
        Status::Retrying => record.errors.last().map(|error| error.at).or(record.kicked_at),
        _ => record.finished_at.or(record.kicked_at),
    }
}
