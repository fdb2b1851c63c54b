//! Reads and writes keys of the shared state, in the stream `<PREFIX>_KV`: one message per key.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aioq::store::{Entry, Expect, KvChange};
use aioq::{Error, ErrorKind, Result};
use async_nats::{HeaderMap, HeaderName, Message};
use bytes::Bytes;
use futures_util::stream::{BoxStream, iter};
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::api::batch::{self, Batch};
use crate::api::get::{StoredMessage, last, next_up_to_date};
use crate::api::publish::publish;
use crate::link::{Link, Outgoing};
use crate::session::Session;
use crate::wire::headers::{expecting, expire, number};

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// Header that marks the message of a deleted key.
const OPERATION: HeaderName = HeaderName::from_static("KV-Operation");
const DELETED: &str = "DEL";

/// Time for which the message of a deleted key stays: longer than any write is under way.
const DELETED_TTL: Duration = Duration::from_secs(300);

/// Header that identifies one write, so that a write whose confirmation was lost is recognized.
const WRITE_ID: HeaderName = HeaderName::from_static("Aioq-Write");

/// Number of keys read at a time by a scan.
const SCAN_PAGE: usize = 512;

/// Number of keys read at a time where each takes a request.
const GETS_AT_ONCE: usize = 64;

/// Value of a key.
pub(crate) async fn get(session: &Session, link: &Link, key: &str) -> Result<Option<Entry>> {
    check_key(key)?;
    let found = newest(session, link, key).await?.filter(|message| !is_deleted(&message.headers));
    Ok(found.map(|message| Entry::new(key, message.payload, message.sequence)))
}

/// Writes a key. A deleted key counts as absent.
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

/// Deletes a key; false if it was absent.
pub(crate) async fn delete(session: &Session, key: &str, expect: Expect) -> Result<bool> {
    check_key(key)?;
    let mut write = Write { headers: HeaderMap::new(), value: Bytes::new() };
    write.headers.insert(OPERATION, DELETED);
    expire(&mut write.headers, Some(DELETED_TTL));
    let deadline = session.deadline();
    loop {
        let found = get(session, session.link_for_keys().await?, key).await?;
        let revision = match (found, expect) {
            (None, Expect::Any | Expect::Absent) => return Ok(false),
            (Some(found), Expect::Any) => found.revision,
            (Some(found), Expect::Revision(revision)) if found.revision == revision => revision,
            (_, Expect::Absent | Expect::Revision(_)) => return Err(conflict(key)),
        };
        match write.run(session, key, Some(revision)).await? {
            Some(_) => return Ok(true),
            None if expect != Expect::Any || deadline.has_passed() => return Err(conflict(key)),
            // The key changed since it was read: read it again.
            None => {}
        }
    }
}

/// Message to write under a key.
struct Write {
    headers: HeaderMap,
    value: Bytes,
}

impl Write {
    /// Writes if the newest message of the key has this sequence; `None` if it has another.
    async fn run(&self, session: &Session, key: &str, sequence: Option<u64>) -> Result<Option<u64>> {
        let (deadline, id) = (session.deadline(), new_write_id(session));
        let outgoing = |_| {
            let mut headers = sequence.map_or_else(HeaderMap::new, expecting);
            for (name, values) in self.headers.iter() {
                values.iter().for_each(|value| headers.insert(name.clone(), value.clone()));
            }
            headers.insert(WRITE_ID, id.as_str());
            Outgoing { subject: session.names.key(key), headers: Some(headers), payload: self.value.clone() }
        };
        let link = session.link_for_keys().await?;
        let written = publish(link, deadline, 0, outgoing).await.map_err(|error| with_key(key, error))?;
        match written.answer {
            Ok(revision) => Ok(Some(revision)),
            Err(refusal) if !refusal.is_conflict() => Err(with_key(key, refusal.into())),
            Err(_) if !written.resent => Ok(None),
            // The conflict may be this write itself, whose first confirmation was lost.
            Err(_) => {
                let newest = newest(session, link, key).await?;
                let ours = newest.filter(|message| header(&message.headers, WRITE_ID) == Some(&id));
                Ok(ours.map(|message| message.sequence))
            }
        }
    }

    async fn run_if_absent(&self, session: &Session, key: &str) -> Result<u64> {
        if let Some(revision) = self.run(session, key, Some(0)).await? {
            return Ok(revision);
        }
        // The newest message may mark a deleted key, which may be written over.
        let found = newest(session, session.link_for_keys().await?, key).await?;
        let revision = match found {
            Some(found) if is_deleted(&found.headers) => self.run(session, key, Some(found.sequence)).await?,
            Some(_) => None,
            None => self.run(session, key, Some(0)).await?,
        };
        revision.ok_or_else(|| conflict(key))
    }
}

async fn newest(session: &Session, link: &Link, key: &str) -> Result<Option<StoredMessage>> {
    let (stream, subject) = (&session.names.kv, session.names.key(key));
    last(link, session.deadline(), stream, &subject).await.map_err(|error| with_key(key, error))
}

/// The values of keys, in their order.
///
/// A replica may be behind. So in a cluster the leader is asked, which returns one key per request.
pub(crate) async fn get_all(session: &Session, keys: &[String]) -> Result<Vec<Option<Entry>>> {
    keys.iter().try_for_each(|key| check_key(key))?;
    let link = session.link_for_keys().await?;
    let mut entries = Vec::with_capacity(keys.len());
    for keys in keys.chunks(batch::MAX_MESSAGES) {
        let subjects: Vec<String> = keys.iter().map(|key| session.names.key(key)).collect();
        let few = if link.is_clustered() {
            None
        } else {
            batch::last_of_each(link, session.deadline(), &session.names.kv, &subjects).await?
        };
        match few {
            Some(messages) => {
                let found = messages.into_iter().filter_map(|message| entry_of(session, message));
                let found: HashMap<String, Option<Entry>> = found.collect();
                entries.extend(keys.iter().map(|key| found.get(key).cloned().flatten()));
            }
            None => {
                let gets = (0..keys.len()).map(|index| get(session, link, &keys[index]));
                let gets: Vec<_> = iter(gets).buffered(GETS_AT_ONCE).try_collect().await?;
                entries.extend(gets);
            }
        }
    }
    Ok(entries)
}

/// All keys that start with `prefix`. A key that changes during the scan is returned in one of its
/// states.
pub(crate) async fn scan(session: &Session, prefix: &str) -> Result<Vec<Entry>> {
    let link = session.link_for_keys().await?;
    let (filter, mut entries, mut next) = (session.names.keys(prefix), BTreeMap::new(), 1);
    let mut few = if link.is_clustered() {
        None
    } else {
        batch::last_of_each(link, session.deadline(), &session.names.kv, std::slice::from_ref(&filter))
            .await?
    };
    loop {
        let page = match few.take() {
            Some(messages) => Batch { messages, more: false },
            None => page(session, link, &filter, next).await?,
        };
        next = page.messages.last().map_or(next, |last| last.sequence + 1);
        // A key that changed since an earlier page comes again, newer.
        entries.extend(page.messages.into_iter().filter_map(|message| entry_of(session, message)));
        if !page.more {
            return Ok(entries.into_values().flatten().collect());
        }
    }
}

/// The key of a message, and its value unless it was deleted.
fn entry_of(session: &Session, message: StoredMessage) -> Option<(String, Option<Entry>)> {
    let key = session.names.key_of(&message.subject)?;
    let entry = Entry::new(key.clone(), message.payload, message.sequence);
    Some((key, (!is_deleted(&message.headers)).then_some(entry)))
}

/// Next keys of a scan, from a sequence on.
///
/// A replica may be behind, and a scan must not miss a key. So in a cluster the leader is asked,
/// which returns one key per request.
async fn page(session: &Session, link: &Link, filter: &str, from: u64) -> Result<Batch> {
    let (stream, deadline) = (&session.names.kv, session.deadline());
    if !link.is_clustered() {
        return batch::read(link, deadline, stream, filter, from, SCAN_PAGE).await;
    }
    let message = next_up_to_date(link, deadline, stream, filter, from).await?;
    Ok(Batch { more: message.is_some(), messages: message.into_iter().collect() })
}

/// Changes of the keys that start with `prefix`, received over `link` if given.
pub(crate) async fn watch(
    session: Arc<Session>,
    link: Option<&Link>,
    prefix: &str,
) -> Result<BoxStream<'static, KvChange>> {
    let link = match link {
        Some(link) => link,
        None => session.link_for_keys().await?,
    };
    let subscription = link.subscribe_now(session.names.key_notices(prefix), session.deadline()).await?;
    let changes = subscription.filter_map(move |message| {
        let change = change(&session, message);
        async move { change }
    });
    Ok(changes.boxed())
}

fn change(session: &Session, message: Message) -> Option<KvChange> {
    let headers = message.headers?;
    let key = session.names.key_of(&message.subject)?;
    if is_deleted(&headers) {
        return Some(KvChange::Deleted(key));
    }
    let revision = number(&headers, "Nats-Sequence")?;
    Some(KvChange::Put(Entry::new(key, message.payload, revision)))
}

fn is_deleted(headers: &HeaderMap) -> bool {
    header(headers, OPERATION) == Some(DELETED)
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map(async_nats::HeaderValue::as_str)
}

/// Unique id of a write, derived from the connection's unique name.
fn new_write_id(session: &Session) -> String {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}", session.link.unique_name(), WRITES.fetch_add(1, Ordering::Relaxed))
}

fn conflict(key: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("key `{key}` was changed by another writer"))
}

fn with_key(key: &str, error: Error) -> Error {
    error.context(format!("key `{key}`"))
}

/// Refuses a key that is too long.
pub(crate) fn check_key(key: &str) -> Result<()> {
    match key.len() {
        0..=MAX_KEY_BYTES => Ok(()),
        bytes => {
            let message = format!("a key has at most {MAX_KEY_BYTES} bytes, this one has {bytes}");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}

/// Refuses a prefix that ends within a part of a key.
pub(crate) fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() || prefix.ends_with('.') {
        return check_key(prefix);
    }
    let message = format!("the key prefix `{prefix}` must be empty or end with `.`");
    Err(Error::new(ErrorKind::InvalidArgument, message))
}
