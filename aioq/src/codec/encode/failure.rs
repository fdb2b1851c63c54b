//! Why a value has no encoding, and which part of it.

use std::fmt;

/// A part that cannot be encoded.
#[derive(Debug)]
pub(in crate::codec) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    /// The fields on the way to the part, the outermost first.
    path: String,
    why: String,
}

impl Failure {
    /// The same failure, of a part of `name`.
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
