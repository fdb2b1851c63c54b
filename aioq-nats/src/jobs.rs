//! Records of jobs: [`NatsJobs`].

mod superseded;

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use aioq::store::{Expect, JobRecord, JobStore, Page, RecordCount, RecordFilter, Status, Stored, Watched};
use aioq::{Error, ErrorKind, JobId, Result, Timestamp};
use async_nats::HeaderMap;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use self::superseded::BackgroundRemovals;
use crate::api::get::{StoredMessage, count, count_since, last, last_from_leader};
use crate::api::page::Listing;
use crate::api::publish::publish;
use crate::api::purge::{CONCURRENT_REMOVALS, Keep, purge};
use crate::connection::{Connection, ConnectionHandle};
use crate::error::not_started;
use crate::link::{Deadline, Outgoing};
use crate::session::Session;
use crate::wire::headers::{expecting_in, expire};
use crate::wire::subject::RecordSubject;

/// Number of filters counted at a time.
const CONCURRENT_COUNTS: usize = 64;

/// Stores records of jobs in the stream `<PREFIX>_RECORDS`, one message per record.
pub struct NatsJobs {
    connection: ConnectionHandle,
    superseded: BackgroundRemovals,
}

impl NatsJobs {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        let connection = ConnectionHandle::new(connection);
        Self { connection, superseded: BackgroundRemovals::new() }
    }
}

#[async_trait]
impl JobStore for NatsJobs {
    async fn startup(&self) -> Result<()> {
        self.connection.startup().await
    }

    async fn shutdown(&self) -> Result<()> {
        self.superseded.flush().await;
        self.connection.shutdown().await
    }

    async fn get(&self, id: &JobId) -> Result<Option<Stored>> {
        read(&*self.connection.session()?, id).await
    }

    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let session = self.connection.session()?;
        let put = Put::new(&session, &record, expect, ttl)?;
        put.run(&session).await.map_err(|error| error.with_id(record.id.clone()))
    }

    async fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<Stored>> {
        let session = self.connection.session()?;
        self.superseded.flush().await;
        let filter = session.names.records(filter.queue.as_deref(), filter.status);
        let (stream, timeout) = (&session.names.records, session.options.deadline);
        let listing = Listing { link: &session.link, timeout, stream, filter: &filter };
        let found = listing.page(page).await?;
        // The stream holds only records, so this skips none.
        Ok(found.iter().filter_map(stored).collect())
    }

    async fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>> {
        let session = self.connection.session()?;
        self.superseded.flush().await;
        let statuses = Status::ALL.len();
        let counts = (0..queues.len() * statuses)
            .map(|index| count_of(&session, &queues[index / statuses], Status::ALL[index % statuses]));
        let counts = stream::iter(counts).buffered(CONCURRENT_COUNTS);
        counts.try_filter(|found| ready(found.count > 0)).try_collect().await
    }

    async fn remove(&self, records: &[Stored]) -> Vec<Result<bool>> {
        let Ok(session) = self.connection.session() else {
            return records.iter().map(|_| Err(not_started())).collect();
        };
        let removals = (0..records.len()).map(|index| remove(&session, &records[index]));
        stream::iter(removals).buffered(CONCURRENT_REMOVALS).collect().await
    }

    fn drop_older(&self, stored: &Stored) {
        if let Ok(session) = self.connection.session() {
            let filter = session.names.records_in(&stored.record.queue, &stored.record.id);
            self.superseded.remove_below(session, stored.revision, filter);
        }
    }

    async fn trim(&self, status: Status, keep: u64, before: Option<Timestamp>) -> Result<u64> {
        let session = self.connection.session()?;
        let filter = session.names.records(None, Some(status));
        let (stream, deadline) = (&session.names.records, session.deadline());
        let later = match before {
            Some(time) => count_since(&session.link, deadline, stream, &filter, time).await?,
            None => None,
        };
        let kept = match later {
            Some(later) if later.count > keep => Keep::From(later.first),
            _ => Keep::Newest(keep),
        };
        purge(&session.link, deadline, stream, &filter, kept).await.map(|(count, _)| count)
    }

    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>> {
        let session = self.connection.session()?;
        let ended = self.connection.ended();
        let subject = match &watched {
            Watched::Job { id, queue } => session.names.record_notices_in(queue, id),
            // Any other selection is part of all records.
            _ => session.names.under_prefix("done.>"),
        };
        let broken = session.link.broken_or_denied(subject.clone());
        let subscription = match &watched {
            Watched::Job { .. } => session.link.subscribe(subject).await?,
            _ => session.link.subscribe_now(subject, session.deadline()).await?,
        };
        // No round trip for one job: the caller reads the record next, over this connection. The
        // server reads one connection's messages in order, so it has the subscription before it
        // answers that read.
        let messages = subscription.take_until(broken).take_until(ended);
        let late_reads = match &watched {
            Watched::Job { id, .. } if session.link.is_clustered() => late_reads(session, id.clone()).boxed(),
            _ => stream::empty().boxed(),
        };
        let notices = messages.filter_map(|message| ready(JobRecord::from_bytes(&message.payload).ok()));
        let covered = move |record: &JobRecord| ready(watched.covers(record));
        Ok(stream::select(notices, late_reads).filter(covered).boxed())
    }
}

async fn read(session: &Session, id: &JobId) -> Result<Option<Stored>> {
    let filter = session.names.records_of(id);
    let found = last(&session.link, session.deadline(), &session.names.records, &filter).await;
    let found = found.map_err(|error| error.with_id(id.clone()))?;
    Ok(found.as_ref().and_then(stored))
}

/// Times after the start of a watch at which the record is read again, in a cluster.
const LATE_READS: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(250)];

/// Reads the record of a watched job again a moment later. In a cluster the subscription may reach
/// the leader after the read that follows it.
fn late_reads(session: Arc<Session>, id: JobId) -> impl Stream<Item = JobRecord> + Send {
    stream::iter(LATE_READS).filter_map(move |pause| {
        let (session, id) = (Arc::clone(&session), id.clone());
        async move {
            tokio::time::sleep(pause).await;
            read(&session, &id).await.ok().flatten().map(|stored| stored.record)
        }
    })
}

/// Stored record, built from its subject if its body cannot be decoded; `None` for any other
/// message.
fn stored(message: &StoredMessage) -> Option<Stored> {
    let record = match JobRecord::from_bytes(&message.payload) {
        Ok(record) => record,
        Err(_) => {
            let subject = RecordSubject::parse(&message.subject)?;
            JobRecord::unreadable(subject.id, subject.queue, subject.status)
        }
    };
    Some(Stored::new(record, message.sequence))
}

async fn count_of(session: &Session, queue: &str, status: Status) -> Result<RecordCount> {
    let filter = session.names.records(Some(queue), Some(status));
    let count = count(&session.link, session.deadline(), &session.names.records, &filter, 1).await?;
    Ok(RecordCount { queue: queue.to_owned(), status, count })
}

/// Removes a record together with older records of the job under other statuses.
async fn remove(session: &Session, Stored { record, revision, .. }: &Stored) -> Result<bool> {
    let (stream, deadline) = (&session.names.records, session.deadline());
    let filter = session.names.records_in(&record.queue, &record.id);
    let removed = async {
        match purge(&session.link, deadline, stream, &filter, Keep::From(revision + 1)).await? {
            // An earlier attempt may have removed it, unless it was written again since.
            (0, true) => Ok(last_from_leader(&session.link, deadline, stream, &filter).await?.is_none()),
            (count, _) => Ok(count > 0),
        }
    };
    removed.await.map_err(|error: Error| error.with_id(record.id.clone()))
}

/// One write of a record.
struct Put<'a> {
    record: &'a JobRecord,
    expect: Expect,
    ttl: Option<Duration>,
    subject: String,
    /// Filter for all records of the job. All writers use the same one, which is cheaper for the
    /// server.
    filter: String,
    body: Bytes,
}

impl<'a> Put<'a> {
    fn new(session: &Session, record: &'a JobRecord, expect: Expect, ttl: Option<Duration>) -> Result<Self> {
        let JobRecord { id, queue, status, .. } = record;
        let body = record.to_bytes();
        session.check_fits("the record", body.len()).map_err(|error| error.with_id(id.clone()))?;
        let (subject, filter) =
            (session.names.record(queue, *status, id), session.names.records_in(queue, id));
        Ok(Self { record, expect, ttl, subject, filter, body })
    }

    async fn run(&self, session: &Session) -> Result<u64> {
        let deadline = session.deadline();
        let written = publish(&session.link, deadline, 0, |_| self.outgoing()).await?;
        let revision = match written.answer {
            Ok(revision) => revision,
            Err(refusal) if refusal.is_conflict() => {
                let ours = if written.resent { self.find_ours(session, deadline).await? } else { None };
                ours.ok_or_else(|| self.conflict())?
            }
            Err(refusal) => return Err(refusal.into()),
        };
        self.remove_previous(session, revision).await;
        Ok(revision)
    }

    fn outgoing(&self) -> Outgoing {
        let mut headers = match self.expect {
            Expect::Any => HeaderMap::new(),
            Expect::Absent => expecting_in(self.filter.clone(), 0),
            Expect::Revision(revision) => expecting_in(self.filter.clone(), revision),
        };
        expire(&mut headers, self.ttl);
        Outgoing { subject: self.subject.clone(), headers: Some(headers), payload: self.body.clone() }
    }

    /// Revision of this write, if an earlier attempt succeeded and its confirmation was lost.
    async fn find_ours(&self, session: &Session, deadline: Deadline) -> Result<Option<u64>> {
        let stream = &session.names.records;
        let newest = last_from_leader(&session.link, deadline, stream, &self.filter).await?;
        Ok(newest.and_then(|(revision, body)| (body == self.body).then_some(revision)))
    }

    fn conflict(&self) -> Error {
        let message = match self.expect {
            Expect::Absent => "a record exists already".to_owned(),
            _ => format!("the record was changed by another writer, expected {:?}", self.expect),
        };
        Error::new(ErrorKind::Conflict, message)
    }

    /// Removes the record that this write replaced, which would stay if it had another status.
    async fn remove_previous(&self, session: &Session, revision: u64) {
        let (stream, deadline) = (&session.names.records, session.deadline());
        match self.expect {
            Expect::Absent => {}
            // Awaited: a removal in the background is lost with a worker that is killed, and counts
            // would stay wrong.
            Expect::Revision(previous) => superseded::remove(session, previous).await,
            // The write itself is confirmed, so a failure here does not fail it.
            Expect::Any => {
                let purged = purge(&session.link, deadline, stream, &self.filter, Keep::From(revision)).await;
                if let Err(error) = purged {
                    tracing::debug!(%error, id = %self.record.id, "a superseded record stays until it expires");
                }
            }
        }
    }
}
