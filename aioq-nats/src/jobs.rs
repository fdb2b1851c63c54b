//! Records of jobs: [`NatsJobs`].

pub(crate) mod superseded;

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use aioq::store::{Expect, JobRecord, JobStore, Page, RecordCount, RecordFilter, Status, Stored, Watched};
use aioq::{Error, ErrorKind, JobId, Result};
use async_nats::HeaderMap;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use self::superseded::Leftover;
use crate::api::page::Listing;
use crate::api::publish::{expecting_in, expire, publish};
use crate::api::{Spared, count, last, last_of_leader, purge};
use crate::broker::REMOVALS;
use crate::broker::inspect;
use crate::connection::{Connection, Part, Session};
use crate::error::not_started;
use crate::link::{Deadline, Outgoing};

/// How many filters are counted at a time.
const COUNTS: usize = 64;

/// Remembers jobs in the stream `<PREFIX>_RECORDS`, one message per record.
pub struct NatsJobs(Part);

impl NatsJobs {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self(Part::new(connection))
    }
}

#[async_trait]
impl JobStore for NatsJobs {
    async fn startup(&self) -> Result<()> {
        self.0.startup().await
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.shutdown().await
    }

    async fn get(&self, id: &JobId) -> Result<Option<Stored>> {
        read(&*self.0.session()?, id).await
    }

    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let session = self.0.session()?;
        let put = Put::new(&session, &record, expect, ttl)?;
        put.run(&session).await.map_err(|error| error.with_id(record.id.clone()))
    }

    async fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<Stored>> {
        let session = self.0.session()?;
        session.leftovers.flush().await;
        let filter = session.names.records(filter.queue.as_deref(), filter.status);
        let listing = Listing { session: &session, stream: &session.names.records, filter: &filter };
        let found = listing.page(page).await?;
        // The stream holds nothing but records, so none is left out.
        Ok(found.iter().filter_map(inspect::stored).collect())
    }

    async fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>> {
        let session = self.0.session()?;
        session.leftovers.flush().await;
        let statuses = Status::ALL.len();
        let counts = (0..queues.len() * statuses)
            .map(|index| count_of(&session, &queues[index / statuses], Status::ALL[index % statuses]));
        let counts = stream::iter(counts).buffered(COUNTS);
        counts.try_filter(|found| ready(found.count > 0)).try_collect().await
    }

    async fn remove(&self, records: &[Stored]) -> Vec<Result<bool>> {
        let Ok(session) = self.0.session() else {
            return records.iter().map(|_| Err(not_started())).collect();
        };
        let removals = (0..records.len()).map(|index| remove(&session, &records[index]));
        stream::iter(removals).buffered(REMOVALS).collect().await
    }

    fn drop_older(&self, stored: &Stored) {
        if let Ok(session) = self.0.session() {
            let filter = session.names.records_in(&stored.record.queue, &stored.record.id);
            session.leftovers.remove(Leftover::Below(stored.revision, filter));
        }
    }

    async fn trim(&self, status: Status, keep: u64) -> Result<u64> {
        let session = self.0.session()?;
        let filter = session.names.records(None, Some(status));
        let (stream, deadline) = (&session.names.records, session.deadline());
        let purged = purge(&session.link, deadline, stream, &filter, Spared::Newest(keep)).await;
        purged.map(|(count, _)| count)
    }

    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>> {
        let session = self.0.session()?;
        let ended = self.0.ended();
        let subject = match &watched {
            Watched::Job { id, queue } => session.names.told_records_in(queue, id),
            // Whatever else may be watched one day is among all of them.
            _ => session.names.under_prefix("done.>"),
        };
        let broken = session.link.broken_or_denied(subject.clone());
        let subscription = match &watched {
            Watched::Job { .. } => session.link.subscribe(subject).await?,
            _ => session.link.subscribe_now(subject, session.deadline()).await?,
        };
        // For one job there is no round trip: who waits for it reads the record next, over this connection.
        // The server takes what one connection sends in order, so whatever that read does not show yet is
        // told to a subscription that stands by then.
        let messages = subscription.take_until(broken).take_until(ended);
        let looks = match &watched {
            Watched::Job { id, .. } if session.link.is_clustered() => late_looks(session, id.clone()).boxed(),
            _ => stream::empty().boxed(),
        };
        let told = messages.filter_map(|message| ready(JobRecord::from_bytes(&message.payload).ok()));
        let covered = move |record: &JobRecord| ready(watched.covers(record));
        Ok(stream::select(told, looks).filter(covered).boxed())
    }
}

async fn read(session: &Session, id: &JobId) -> Result<Option<Stored>> {
    let filter = session.names.records_of(id);
    let found = last(&session.link, session.deadline(), &session.names.records, &filter).await;
    let found = found.map_err(|error| error.with_id(id.clone()))?;
    Ok(found.as_ref().and_then(inspect::stored))
}

/// When to look at a record that is watched over the servers of a cluster, after the watch began.
const LATE_LOOKS: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(250)];

/// The record of a job a moment after it is watched: between the servers of a cluster, the word that somebody
/// listens may come to the leader after the read that follows it.
fn late_looks(session: Arc<Session>, id: JobId) -> impl Stream<Item = JobRecord> + Send {
    stream::iter(LATE_LOOKS).filter_map(move |pause| {
        let (session, id) = (Arc::clone(&session), id.clone());
        async move {
            tokio::time::sleep(pause).await;
            read(&session, &id).await.ok().flatten().map(|stored| stored.record)
        }
    })
}

async fn count_of(session: &Session, queue: &str, status: Status) -> Result<RecordCount> {
    let filter = session.names.records(Some(queue), Some(status));
    let count = count(&session.link, session.deadline(), &session.names.records, &filter, 1).await?;
    Ok(RecordCount { queue: queue.to_owned(), status, count })
}

/// Removes a record and what it has replaced, which may have been left under another status.
async fn remove(session: &Session, Stored { record, revision, .. }: &Stored) -> Result<bool> {
    let (stream, deadline) = (&session.names.records, session.deadline());
    let filter = session.names.records_in(&record.queue, &record.id);
    let removed = async {
        match purge(&session.link, deadline, stream, &filter, Spared::From(revision + 1)).await? {
            // The first try may have done it, if nobody wrote since.
            (0, true) => Ok(last_of_leader(&session.link, deadline, stream, &filter).await?.is_none()),
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
    /// All records of the job, as every writer of it names them: the server then counts on one filter only.
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
                let earlier = match written.resent {
                    true => self.find_ours(session, deadline).await?,
                    false => None,
                };
                earlier.ok_or_else(|| self.conflict())?
            }
            Err(refusal) => return Err(refusal.into()),
        };
        self.drop_older(session, revision).await;
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

    /// The revision of this very write, if an earlier try of it has passed although its confirmation was lost.
    async fn find_ours(&self, session: &Session, deadline: Deadline) -> Result<Option<u64>> {
        let stream = &session.names.records;
        let newest = last_of_leader(&session.link, deadline, stream, &self.filter).await?;
        Ok(newest.and_then(|(revision, body)| (body == self.body).then_some(revision)))
    }

    fn conflict(&self) -> Error {
        let message = match self.expect {
            Expect::Absent => "there is a record already".to_owned(),
            _ => format!("the record was changed by somebody else, expected {:?}", self.expect),
        };
        Error::new(ErrorKind::Conflict, message)
    }

    /// Removes the record that this write replaced: under another status, it would stay.
    async fn drop_older(&self, session: &Session, revision: u64) {
        match self.expect {
            Expect::Absent => return,
            // Awaited: a worker that is cut off would take along what it has yet to remove, and the counts would stay wrong.
            Expect::Revision(older) => return superseded::remove(session, Leftover::At(older)).await,
            _ => {}
        }
        let (stream, deadline) = (&session.names.records, session.deadline());
        // The newest record counts, so a failure here is harmless; the write itself is confirmed.
        if let Err(error) = purge(&session.link, deadline, stream, &self.filter, Spared::From(revision)).await
        {
            tracing::debug!(%error, id = %self.record.id, "an older record stays until it expires");
        }
    }
}
