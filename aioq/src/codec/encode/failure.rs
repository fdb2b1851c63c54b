//! Errors of encoding, with the path to the part.

use std::fmt;

/// A part that cannot be encoded.
#[derive(Debug)]
pub(in crate::codec) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    /// Fields from the outermost to the part.
    path: String,
    why: String,
}

impl Failure {
    /// Adds an outer field to the path.
    #[cold]
    pub(super) fn within(mut self, name: &str) -> Self {
        let dot = if self.0.path.is_empty() { "" } else { "." };
        self.0.path.insert_str(0, dot);
        self.0.path.insert_str(0, name);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.path.as_str() {
            "" => f.write_str(&self.0.why),
            path => write!(f, "field `{path}`: {}", self.0.why),
        }
    }
}

impl std::error::Error for Failure {}

impl serde::ser::Error for Failure {
    #[cold]
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self(Box::new(Inner { path: String::new(), why: why.to_string() }))
    }
}
