//! The name of a job.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::MAX_NAME_BYTES;
use crate::error::{Error, ErrorKind, Result};

/// The id of a job: any text of 1 to [`MAX_NAME_BYTES`] bytes. Cheap to clone.
///
/// The default is a UUIDv7 in simple form, so generated ids sort by creation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Arc<str>);

impl JobId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks an id that a caller chose.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for an empty or too long id.
    pub fn check(&self) -> Result<()> {
        check_id(&self.0)
    }
}

/// Checks the text of an id.
pub(crate) fn check_id(id: &str) -> Result<()> {
    match id.len() {
        1..=MAX_NAME_BYTES => Ok(()),
        length => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("a job id has 1 to {MAX_NAME_BYTES} bytes, this one has {length}"),
        )),
    }
}

impl From<&str> for JobId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for JobId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&JobId> for JobId {
    fn from(id: &JobId) -> Self {
        id.clone()
    }
}

impl AsRef<str> for JobId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Draws the ids of new jobs. Ids must never repeat: a kick under a drawn id is not checked against others.
pub trait IdGenerator: Send + Sync + 'static {
    /// A new id.
    fn next_id(&self) -> JobId;
}

impl<F: Fn() -> JobId + Send + Sync + 'static> IdGenerator for F {
    fn next_id(&self) -> JobId {
        self()
    }
}

/// The default generator: UUIDv7 as 32 hex digits, ordered by time.
#[derive(Clone, Copy, Debug, Default)]
pub struct UuidV7;

impl IdGenerator for UuidV7 {
    fn next_id(&self) -> JobId {
        let mut text = uuid::Uuid::encode_buffer();
        JobId(Arc::from(&*uuid::Uuid::now_v7().simple().encode_lower(&mut text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_ids_are_32_hex_digits_and_sort_by_creation() {
        let ids: Vec<JobId> = (0..1000).map(|_| UuidV7.next_id()).collect();
        assert!(ids.is_sorted());
        assert!(
            ids.iter()
                .all(|id| id.as_str().len() == 32 && id.as_str().bytes().all(|b| b.is_ascii_hexdigit()))
        );
    }

    #[test]
    fn an_id_is_neither_empty_nor_endless() {
        assert!(JobId::from("order-1").check().is_ok());
        assert!(JobId::from("").check().is_err());
        assert!(JobId::from("x".repeat(MAX_NAME_BYTES + 1)).check().is_err());
    }
}
