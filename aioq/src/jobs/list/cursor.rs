//! Positions in a list: [`Cursor`].

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// A position in a list. Its text form can be stored, and passed to another process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Position among the messages in the broker.
    pub(super) waiting: Position,
    /// Position among the records in the store.
    pub(super) stored: Position,
}

/// A position on one side of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Position {
    #[default]
    Start,
    /// After the row with this number.
    After(u64),
    End,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::After(row) => row.fmt(f),
            Self::End => f.write_str("end"),
        }
    }
}

impl Position {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "start" => Some(Self::Start),
            "end" => Some(Self::End),
            row => row.parse().ok().map(Self::After),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.waiting, self.stored)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let positions = text.split_once('-');
        let cursor = positions.and_then(|(waiting, stored)| {
            Some(Self { waiting: Position::parse(waiting)?, stored: Position::parse(stored)? })
        });
        cursor.ok_or_else(|| {
            let message = format!("`{text}` is no cursor: use the one that an earlier list returned");
            Error::new(ErrorKind::InvalidArgument, message)
        })
    }
}
