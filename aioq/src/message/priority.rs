//! [`Priority`] of a message within its queue.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Priority within a queue: 0 to 9, lower first, 5 by default. Messages of one priority are first
/// in, first out.
///
/// The in-memory broker distinguishes all ten. NATS has three lanes: 0 to 3, 4 to 6, 7 to 9.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    /// The lowest priority.
    pub const LOWEST: Self = Self(9);

    /// The priority of that value.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] above 9.
    pub fn new(value: u8) -> Result<Self> {
        match value {
            0..=9 => Ok(Self(value)),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("priority is 0 to 9, lower first, not {value}"),
            )),
        }
    }

    /// All priorities, the highest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::LOWEST.0).map(Self)
    }

    /// The value, 0 to 9.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
