//! The error of a job as it is stored.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest stored message of an error, in bytes.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// Longest stored message of a cause, in bytes.
const MAX_CAUSE_BYTES: usize = 512;

/// The error of a failed job as text: type, message and causes.
///
/// Stored as the `error` of a taskiq result, so a Python program reads it as an exception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobError {
    /// The last segment of the error's type name: `ParseIntError`.
    #[serde(rename = "type")]
    pub exc_type: String,
    /// Module of the type, with dots: `core.num.error`.
    pub module: Option<String>,
    /// `Display` of the error.
    pub message: String,
    /// `Display` of its sources, outermost first.
    pub chain: Vec<String>,
}

impl JobError {
    /// Longest stored chain of causes.
    pub(crate) const MAX_CHAIN: usize = 16;

    /// An error without a Rust type behind it.
    pub fn new(exc_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            exc_type: exc_type.into(),
            module: Some("aioq".to_owned()),
            message: bounded(message.into(), MAX_MESSAGE_BYTES),
            chain: Vec::new(),
        }
    }

    /// The error of a timeout, under the type name that Python uses.
    pub(crate) fn timeout(message: String) -> Self {
        Self { module: Some("builtins".to_owned()), ..Self::new("TimeoutError", message) }
    }

    /// Describes `error`, which was an `E` before its type was erased.
    pub(crate) fn of<E>(error: &(dyn std::error::Error + 'static)) -> Self {
        let (module, exc_type) = split_type_name(std::any::type_name::<E>());
        let chain = std::iter::successors(error.source(), |cause| cause.source())
            .take(Self::MAX_CHAIN)
            .map(|cause| bounded(cause.to_string(), MAX_CAUSE_BYTES))
            .collect();
        Self { exc_type, module, message: bounded(error.to_string(), MAX_MESSAGE_BYTES), chain }
    }

    /// Adds an innermost cause, up to [`MAX_CHAIN`](Self::MAX_CHAIN).
    pub(crate) fn push_cause(&mut self, cause: &str) {
        if self.chain.len() < Self::MAX_CHAIN {
            self.chain.push(bounded(cause.to_owned(), MAX_CAUSE_BYTES));
        }
    }

    /// Drops the causes, and shortens the message.
    pub(crate) fn reduce(&mut self) {
        self.chain = Vec::new();
        self.message = bounded(std::mem::take(&mut self.message), MAX_CAUSE_BYTES);
    }

    /// Approximate size in bytes.
    pub(crate) fn size(&self) -> usize {
        let module = self.module.as_ref().map_or(0, String::len);
        let chain: usize = self.chain.iter().map(String::len).sum();
        self.exc_type.len() + module + self.message.len() + chain + 64
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() { f.write_str(&self.exc_type) } else { f.write_str(&self.message) }
    }
}

/// Splits `core::num::error::ParseIntError` into `("core.num.error", "ParseIntError")`, without
/// generics and references.
fn split_type_name(name: &str) -> (Option<String>, String) {
    let plain = name.split('<').next().unwrap_or(name).trim_start_matches(['&', '(']);
    match plain.rsplit_once("::") {
        Some((path, last)) => (Some(path.replace("::", ".")), last.to_owned()),
        None => (None, plain.to_owned()),
    }
}

fn bounded(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_split_at_the_last_segment() {
        let split = |name| split_type_name(name);
        assert_eq!(split("core::num::ParseIntError"), (Some("core.num".into()), "ParseIntError".into()));
        assert_eq!(
            split("alloc::boxed::Box<dyn core::error::Error>"),
            (Some("alloc.boxed".into()), "Box".into())
        );
        assert_eq!(split("&str"), (None, "str".into()));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let cut = bounded("ä".repeat(MAX_MESSAGE_BYTES), MAX_MESSAGE_BYTES);
        assert!(cut.len() <= MAX_MESSAGE_BYTES + '…'.len_utf8());
        assert!(cut.ends_with('…'));
    }
}
