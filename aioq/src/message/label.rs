//! Labels: small typed values that a message carries.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{MAX_LABELS, MAX_NAME_BYTES};
use crate::error::{Error, ErrorKind, Result, excerpt};

/// The labels of a message by name.
pub type Labels = BTreeMap<String, Label>;

/// Names with a meaning in aioq or taskiq, which a user's label cannot have.
const RESERVED: &[&str] = &[
    "queue_name",
    "priority",
    "timeout",
    "retry_on_error",
    "max_retries",
    "_retries",
    "delay",
    "schedule_id",
    "kicked_at",
    "run_at",
    "expires_at",
    "first_failed_at",
    "supersedes",
    "tick",
    "parents",
    "awaited",
    "unique_key",
];

/// True if a user's label cannot have that name.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Value of a label. On the wire it is a string with a type, as in taskiq.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Label {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Label {
    /// The text, if the value is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// True if the values are equal, or if `wanted` is the text form of this one.
    pub(crate) fn reads_as(&self, wanted: &Self) -> bool {
        let Self::Str(text) = wanted else { return self == wanted };
        match self {
            Self::Bool(value) => *text == value.to_string(),
            Self::Int(number) => *text == number.to_string(),
            Self::Float(number) => *text == number.to_string(),
            Self::Null | Self::Str(_) | Self::Bytes(_) => self == wanted,
        }
    }
}

/// Checks the labels that a caller chose.
pub(crate) fn check_labels(labels: &Labels) -> Result<()> {
    let refuse = |why| Err(Error::new(ErrorKind::InvalidArgument, why));
    if labels.len() > MAX_LABELS {
        return refuse(format!("a message has at most {MAX_LABELS} labels, this one has {}", labels.len()));
    }
    for name in labels.keys() {
        if is_reserved(name) {
            return refuse(format!("label `{name}` is reserved, choose another name"));
        }
        if name.len() > MAX_NAME_BYTES {
            let (name, length) = (excerpt(name), name.len());
            return refuse(format!(
                "the name of a label has at most {MAX_NAME_BYTES} bytes, `{name}` has {length}"
            ));
        }
    }
    Ok(())
}

macro_rules! from {
    ($($kind:ty => $label:ident),* $(,)?) => {$(
        impl From<$kind> for Label {
            fn from(value: $kind) -> Self {
                Self::$label(value.into())
            }
        }
    )*};
}

from!(bool => Bool, i64 => Int, i32 => Int, u32 => Int, f64 => Float, String => Str, &str => Str, Vec<u8> => Bytes);
