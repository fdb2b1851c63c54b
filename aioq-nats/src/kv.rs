//! Small shared state by key: [`NatsKv`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aioq::store::{Entry, Expect, KvChange, KvStore};
use aioq::{Error, ErrorKind, Result};
use async_nats::{HeaderMap, HeaderName, Message};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::api::batch::{self, Batch};
use crate::api::publish::{expecting, expire, publish};
use crate::api::{StoredMessage, last, next_up_to_date, number};
use crate::connection::{Connection, Part, Session};
use crate::link::{Link, Outgoing};

/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// Marks a message that stands for a deleted key.
const OPERATION: HeaderName = HeaderName::from_static("KV-Operation");
const DELETED: &str = "DEL";

/// How long the mark of a deleted key stays: longer than any write is under way.
const MARK_TTL: Duration = Duration::from_secs(300);

/// Tells one write from all others, so that a write whose confirmation was lost is recognized.
const WRITE: HeaderName = HeaderName::from_static("Aioq-Write");

/// Keys of one page of a scan.
const PAGE: usize = 512;

/// Remembers keys in the stream `<PREFIX>_KV`, one message per key.
pub struct NatsKv(Part);

impl NatsKv {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self(Part::new(connection))
    }
}

#[async_trait]
impl KvStore for NatsKv {
    async fn startup(&self) -> Result<()> {
        self.0.startup().await
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.shutdown().await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        let session = self.0.session()?;
        get(&session, session.link_for_state().await?, key).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let session = self.0.session()?;
        session
            .check_fits("the value", value.len())
            .map_err(|error| error.context(format!("key `{key}`")))?;
        put(&session, key, value, expect, ttl).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool> {
        let session = self.0.session()?;
        check_key(key)?;
        delete(&session, key, expect).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>> {
        let session = self.0.session()?;
        check_prefix(prefix)?;
        scan(&session, prefix).await
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, KvChange>> {
        let session = self.0.session()?;
        check_prefix(prefix)?;
        // What changes while the connection is broken is not told: who watches learns of it by the end.
        let broken = session.link_for_state().await?.broken_or_denied(session.names.told_keys(prefix));
        let changes = watch(session, None, prefix).await?;
        Ok(changes.take_until(broken).take_until(self.0.ended()).boxed())
    }
}

/// The value of a key.
pub(crate) async fn get(session: &Session, link: &Link, key: &str) -> Result<Option<Entry>> {
    check_key(key)?;
    let found = newest(session, link, key).await?.filter(|message| !is_deleted(&message.headers));
    Ok(found.map(|message| Entry::new(key, message.payload, message.sequence)))
}

/// Writes a key; a key whose last message marks it as deleted is absent.
pub(crate) async fn put(
    session: &Session,
    key: &str,
    value: Bytes,
    expect: Expect,
    ttl: Option<Duration>,
) -> Result<u64> {
    check_key(key)?;
    let mut write = Write { headers: HeaderMap::new(), value };
    expire(&mut write.headers, ttl);
    match expect {
        Expect::Any => write.run(session, key, None).await?.ok_or_else(|| conflict(key)),
        Expect::Revision(revision) => {
            write.run(session, key, Some(revision)).await?.ok_or_else(|| conflict(key))
        }
        Expect::Absent => write.run_if_absent(session, key).await,
    }
}

async fn delete(session: &Session, key: &str, expect: Expect) -> Result<bool> {
    let mut write = Write { headers: HeaderMap::new(), value: Bytes::new() };
    write.headers.insert(OPERATION, DELETED);
    expire(&mut write.headers, Some(MARK_TTL));
    let deadline = session.deadline();
    loop {
        let found = get(session, session.link_for_state().await?, key).await?;
        let revision = match (found, expect) {
            (None, Expect::Any | Expect::Absent) => return Ok(false),
            (Some(found), Expect::Any) => found.revision,
            (Some(found), Expect::Revision(revision)) if found.revision == revision => revision,
            (_, Expect::Absent | Expect::Revision(_)) => return Err(conflict(key)),
        };
        match write.run(session, key, Some(revision)).await? {
            Some(_) => return Ok(true),
            None if expect != Expect::Any || deadline.has_passed() => return Err(conflict(key)),
            // Changed since it was read: it is read again.
            None => {}
        }
    }
}

/// What is to be written under a key.
struct Write {
    headers: HeaderMap,
    value: Bytes,
}

impl Write {
    /// Writes on the condition that the newest message of the key has that sequence; `None` if it has not.
    async fn run(&self, session: &Session, key: &str, sequence: Option<u64>) -> Result<Option<u64>> {
        let (deadline, mark) = (session.deadline(), new_mark(session));
        let outgoing = |_| {
            let mut headers = sequence.map_or_else(HeaderMap::new, expecting);
            for (name, values) in self.headers.iter() {
                values.iter().for_each(|value| headers.insert(name.clone(), value.clone()));
            }
            headers.insert(WRITE, mark.as_str());
            Outgoing { subject: session.names.key(key), headers: Some(headers), payload: self.value.clone() }
        };
        let link = session.link_for_state().await?;
        let written = publish(link, deadline, 0, outgoing).await.map_err(|error| about(key, error))?;
        match written.answer {
            Ok(revision) => Ok(Some(revision)),
            Err(refusal) if !refusal.is_conflict() => Err(about(key, refusal.into())),
            Err(_) if !written.resent => Ok(None),
            // An earlier try may have passed, and only its confirmation been lost.
            Err(_) => {
                let newest = newest(session, link, key).await?;
                let ours = newest.filter(|message| header(&message.headers, WRITE) == Some(&mark));
                Ok(ours.map(|message| message.sequence))
            }
        }
    }

    async fn run_if_absent(&self, session: &Session, key: &str) -> Result<u64> {
        if let Some(revision) = self.run(session, key, Some(0)).await? {
            return Ok(revision);
        }
        // Something is there; a mark of a deleted key may be written over.
        let mark = newest(session, session.link_for_state().await?, key).await?;
        let revision = match mark {
            Some(mark) if is_deleted(&mark.headers) => self.run(session, key, Some(mark.sequence)).await?,
            Some(_) => None,
            None => self.run(session, key, Some(0)).await?,
        };
        revision.ok_or_else(|| conflict(key))
    }
}

async fn newest(session: &Session, link: &Link, key: &str) -> Result<Option<StoredMessage>> {
    let (stream, subject) = (&session.names.kv, session.names.key(key));
    last(link, session.deadline(), stream, &subject).await.map_err(|error| about(key, error))
}

/// All keys that start with `prefix`. Keys that change while they are read are told as one state or another.
pub(crate) async fn scan(session: &Session, prefix: &str) -> Result<Vec<Entry>> {
    let link = session.link_for_state().await?;
    let (filter, mut entries, mut next) = (session.names.keys(prefix), BTreeMap::new(), 1);
    loop {
        let page = page(session, link, &filter, next).await?;
        next = page.messages.last().map_or(next, |last| last.sequence + 1);
        for message in page.messages {
            if let Some(key) = session.names.key_of(&message.subject) {
                // A key that changed since the first page comes again, newer.
                let entry = Entry::new(key.clone(), message.payload, message.sequence);
                entries.insert(key, (!is_deleted(&message.headers)).then_some(entry));
            }
        }
        if !page.more {
            return Ok(entries.into_values().flatten().collect());
        }
    }
}

/// Some keys, from that sequence on. A replica may be behind, and what others rely on must not be missed: in a
/// cluster the leader is asked, which tells one at a time.
async fn page(session: &Session, link: &Link, filter: &str, from: u64) -> Result<Batch> {
    let (stream, deadline) = (&session.names.kv, session.deadline());
    if !link.is_clustered() {
        return batch::read(link, deadline, stream, filter, from, PAGE).await;
    }
    let message = next_up_to_date(link, deadline, stream, filter, from).await?;
    Ok(Batch { more: message.is_some(), messages: message.into_iter().collect() })
}

/// Changes of keys, over `link` if that is given.
pub(crate) async fn watch(
    session: Arc<Session>,
    link: Option<&Link>,
    prefix: &str,
) -> Result<BoxStream<'static, KvChange>> {
    let link = match link {
        Some(link) => link,
        None => session.link_for_state().await?,
    };
    let subscription = link.subscribe_now(session.names.told_keys(prefix), session.deadline()).await?;
    let changes = subscription.filter_map(move |message| {
        let change = change(&session, message);
        async move { change }
    });
    Ok(changes.boxed())
}

fn change(session: &Session, message: Message) -> Option<KvChange> {
    let headers = message.headers?;
    let key = session.names.key_of(&message.subject)?;
    match is_deleted(&headers) {
        true => Some(KvChange::Deleted(key)),
        false => {
            let revision = number(&headers, "Nats-Sequence")?;
            Some(KvChange::Put(Entry::new(key, message.payload, revision)))
        }
    }
}

fn is_deleted(headers: &HeaderMap) -> bool {
    header(headers, OPERATION) == Some(DELETED)
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map(async_nats::HeaderValue::as_str)
}

/// A mark that no other write has: the session's inbox is nobody else's.
fn new_mark(session: &Session) -> String {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}", session.link.own_name(), WRITES.fetch_add(1, Ordering::Relaxed))
}

fn conflict(key: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("key `{key}` was changed by somebody else"))
}

fn about(key: &str, error: Error) -> Error {
    error.context(format!("key `{key}`"))
}

fn check_key(key: &str) -> Result<()> {
    match key.len() {
        0..=MAX_KEY_BYTES => Ok(()),
        bytes => {
            let message = format!("a key has at most {MAX_KEY_BYTES} bytes, this one has {bytes}");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}

fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() || prefix.ends_with('.') {
        return check_key(prefix);
    }
    let message = format!("the prefix of keys `{prefix}` must be empty or end with a full stop");
    Err(Error::new(ErrorKind::InvalidArgument, message))
}
