//! The edge between a parent and a job that waits for it, in the shared state.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::codec::Codec;
use crate::error::{ErrorKind, JobError, Result};
use crate::message::{JobId, OnParentFailure};
use crate::store::{Entry, Expect, KvStore};

/// Prefix of the edges.
pub(super) const EDGES: &str = "after.";

/// Time for which the empty value of a removed edge is kept. A short lifetime costs one write; a
/// removal leaves a mark for longer on some stores.
const REMOVED_TTL: Duration = Duration::from_secs(1);

/// Longest name that stands for itself in a key, in bytes.
const LONGEST_PART: usize = 64;

/// One parent of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Edge {
    /// Id of the parent.
    pub(super) parent: JobId,
    /// Id of the job that waits.
    pub(super) child: JobId,
    /// The parent after this one in the list; `None` for the last one.
    pub(super) next: Option<JobId>,
    pub(super) on_failure: OnParentFailure,
    pub(super) state: EdgeState,
    /// True if all parents before this one are done.
    pub(super) baton: bool,
    /// True if the job takes the result of the parent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) wanted: bool,
    /// The end of the parent, once that is done and wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) yielded: Option<Yielded>,
}

/// What a job takes from a parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Yielded {
    /// The result, in MessagePack.
    Result(#[serde(with = "crate::codec::as_bytes")] Bytes),
    /// The error of a parent that did not complete.
    Error(JobError),
}

impl Edge {
    /// True if the job fails for this parent.
    pub(super) fn is_fatal(&self) -> bool {
        self.state == EdgeState::Bad && self.on_failure == OnParentFailure::Fail
    }
}

/// What is known of the parent of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EdgeState {
    /// It has not ended.
    Waiting,
    /// It completed, or counts as completed. This is final.
    Done,
    /// It ended otherwise.
    Bad,
}

/// An edge, and its revision.
#[derive(Clone, Debug)]
pub(super) struct StoredEdge {
    pub(super) edge: Edge,
    pub(super) revision: u64,
}

impl StoredEdge {
    /// The edge of an entry; `None` if it was removed, or cannot be read.
    fn of(entry: &Entry) -> Option<Self> {
        if entry.value.is_empty() {
            return None;
        }
        let edge = Codec::MessagePack.decode(&entry.value);
        let edge = edge.map_err(|error| tracing::warn!(key = entry.key, %error, "an edge cannot be read"));
        Some(Self { edge: edge.ok()?, revision: entry.revision })
    }
}

fn key(parent: &JobId, child: &JobId) -> String {
    format!("{EDGES}{}.{}", part(parent.as_str()), part(child.as_str()))
}

/// A name as one part of a key: itself if it is short and has no `.`, else `~` and 32 hexadecimal
/// digits of its SHA-256.
fn part(name: &str) -> Cow<'_, str> {
    if name.len() <= LONGEST_PART && !name.contains('.') && !name.starts_with('~') {
        return name.into();
    }
    let digest = Sha256::digest(name.as_bytes());
    let digits: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("~{digits}").into()
}

pub(super) async fn get(kv: &dyn KvStore, parent: &JobId, child: &JobId) -> Result<Option<StoredEdge>> {
    Ok(kv.get(&key(parent, child)).await?.as_ref().and_then(StoredEdge::of))
}

/// The edges of a job to some of its parents, in their order.
pub(super) async fn get_all(
    kv: &dyn KvStore,
    parents: impl Iterator<Item = &JobId>,
    child: &JobId,
) -> Result<Vec<Option<StoredEdge>>> {
    let keys: Vec<String> = parents.map(|parent| key(parent, child)).collect();
    let found = kv.get_all(&keys).await?;
    Ok(found.into_iter().map(|entry| entry.as_ref().and_then(StoredEdge::of)).collect())
}

/// The edges of a parent.
pub(super) async fn all_of(kv: &dyn KvStore, parent: &JobId) -> Result<Vec<StoredEdge>> {
    let found = kv.scan(&format!("{EDGES}{}.", part(parent.as_str()))).await?;
    Ok(found.iter().filter_map(StoredEdge::of).filter(|found| found.edge.parent == *parent).collect())
}

/// All edges.
pub(super) async fn all(kv: &dyn KvStore) -> Result<Vec<StoredEdge>> {
    Ok(kv.scan(EDGES).await?.iter().filter_map(StoredEdge::of).collect())
}

/// Writes an edge. `None` if `expect` does not hold.
pub(super) async fn put(kv: &dyn KvStore, edge: &Edge, expect: Expect) -> Result<Option<u64>> {
    match kv.put(&key(&edge.parent, &edge.child), encode(edge)?, expect, None).await {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes an edge unless it is there. One that was removed, or cannot be read, is replaced; with
/// `anew`, any one.
pub(super) async fn draw(kv: &dyn KvStore, edge: &Edge, anew: bool) -> Result<()> {
    // A new job has none, as a rule.
    if anew && put(kv, edge, Expect::Absent).await?.is_some() {
        return Ok(());
    }
    let found = kv.get(&key(&edge.parent, &edge.child)).await?;
    let expect = match &found {
        Some(entry) if !anew && StoredEdge::of(entry).is_some() => return Ok(()),
        Some(entry) => Expect::Revision(entry.revision),
        None => Expect::Absent,
    };
    // After a conflict, another process has drawn it.
    put(kv, edge, expect).await.map(drop)
}

/// Removes an edge of a job that waits no longer.
pub(super) async fn remove(kv: &dyn KvStore, parent: &JobId, child: &JobId) -> Result<()> {
    kv.put(&key(parent, child), Bytes::new(), Expect::Any, Some(REMOVED_TTL)).await.map(drop)
}

fn encode(edge: &Edge) -> Result<Bytes> {
    let mut value = Vec::new();
    Codec::MessagePack.encode_into(edge, &mut value)?;
    Ok(value.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[tokio::test]
    async fn a_removed_edge_is_absent_and_can_be_drawn_again() {
        let backend = crate::Backend::from(Memory::new());
        backend.startup().await.unwrap();
        let kv = &**backend.kv();
        let (parent, child) = (JobId::from("parent"), JobId::from("child"));
        let edge = Edge {
            parent: parent.clone(),
            child: child.clone(),
            next: None,
            on_failure: OnParentFailure::Fail,
            state: EdgeState::Waiting,
            baton: true,
            wanted: false,
            yielded: None,
        };
        let stored = async || get(kv, &parent, &child).await.unwrap().map(|found| found.edge);
        for value in [&b""[..], b"no edge"] {
            kv.put(&key(&parent, &child), value.into(), Expect::Any, None).await.unwrap();
            assert_eq!(stored().await, None);
            draw(kv, &edge, false).await.unwrap();
            assert_eq!(stored().await.as_ref(), Some(&edge));
        }
        let done = Edge { state: EdgeState::Done, ..edge.clone() };
        put(kv, &done, Expect::Any).await.unwrap();
        draw(kv, &edge, false).await.unwrap();
        assert_eq!(stored().await, Some(done), "an edge that is there is left alone");
        draw(kv, &edge, true).await.unwrap();
        assert_eq!(stored().await.as_ref(), Some(&edge), "unless its job is new");
        remove(kv, &parent, &child).await.unwrap();
        assert_eq!(stored().await, None);
        assert!(all_of(kv, &parent).await.unwrap().is_empty());
    }
}
