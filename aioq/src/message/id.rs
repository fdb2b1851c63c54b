//! Job ids: [`JobId`], and the generators of new ones.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrayvec::ArrayString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::MAX_NAME_BYTES;
use crate::codec::Str;
use crate::error::{Error, ErrorKind, Result};

/// Id of a job: any text of 1 to [`MAX_NAME_BYTES`] bytes. Cheap to clone.
///
/// Generated ids are UUIDv7 in simple form, which sort by creation.
#[derive(Clone)]
pub struct JobId(Text);

#[derive(Clone)]
enum Text {
    /// Inline, because threads contend on the reference count of a shared text.
    Short(ArrayString<UUID_BYTES>),
    Long(Arc<str>),
}

/// Length of a UUID in simple form.
const UUID_BYTES: usize = 32;

impl JobId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Short(text) => text,
            Text::Long(text) => text,
        }
    }

    /// Checks an id that a caller chose.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for an empty or too long id.
    pub fn check(&self) -> Result<()> {
        check_id(self.as_str())
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
        Self(ArrayString::from(text).map_or_else(|_| Text::Long(text.into()), Text::Short))
    }
}

impl From<String> for JobId {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&JobId> for JobId {
    fn from(id: &JobId) -> Self {
        id.clone()
    }
}

impl AsRef<str> for JobId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for JobId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for JobId {}

impl PartialOrd for JobId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for JobId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for JobId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok((&*Str::deserialize(deserializer)?).into())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Generator of the ids of new jobs. Ids must never repeat: a kick does not check a generated id.
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
        JobId::from(&*uuid::Uuid::now_v7().simple().encode_lower(&mut text))
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
