//! Errors of lenient decoding, with and without values.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

/// An error of lenient decoding.
#[derive(Debug)]
pub(in crate::codec) struct Failure {
    /// Names and types only: safe for logs and records.
    plain: String,
    /// The same with the value, if that says more.
    quoting: Option<String>,
}

/// Messages of serde's code for enums, which have no kind of their own, and quote nothing.
const HARMLESS: &[&str] = &["data did not match any variant of", "no variant of enum"];

impl Failure {
    /// The message, with values if `quotes` is true.
    pub(super) fn text(self, quotes: bool) -> String {
        match self.quoting {
            Some(quoting) if quotes => quoting,
            _ => self.plain,
        }
    }

    fn both(plain: String, quoting: String) -> Self {
        Self { plain, quoting: Some(quoting) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plain)
    }
}

impl std::error::Error for Failure {}

impl Error for Failure {
    /// The message of a custom `Deserialize` may quote values.
    fn custom<T: fmt::Display>(why: T) -> Self {
        let why = why.to_string();
        if HARMLESS.iter().any(|harmless| why.starts_with(harmless)) {
            Self { plain: why, quoting: None }
        } else {
            Self::both("the type refuses its value".to_owned(), why)
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::both(
            format!("invalid type: {}, expected {expected}", kind(&found)),
            format!("invalid type: {found}, expected {expected}"),
        )
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::both(
            format!("invalid value: {}, expected {expected}", kind(&found)),
            format!("invalid value: {found}, expected {expected}"),
        )
    }

    fn invalid_length(len: usize, expected: &dyn Expected) -> Self {
        Self { plain: format!("invalid length {len}, expected {expected}"), quoting: None }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let expected = names(expected);
        Self::both(
            format!("unknown variant, expected {expected}"),
            format!("unknown variant `{variant}`, expected {expected}"),
        )
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let expected = names(expected);
        Self {
            plain: format!("unknown field `{}`, expected {expected}", crate::error::excerpt(field)),
            quoting: None,
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { plain: format!("missing field `{field}`"), quoting: None }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self { plain: format!("duplicate field `{field}`"), quoting: None }
    }
}

fn names(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        names => format!("`{}`", names.join("`, `")),
    }
}

/// The kind of the found value, without the value.
fn kind(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "integer",
        Unexpected::Float(_) => "floating point number",
        Unexpected::Char(_) => "character",
        Unexpected::Str(_) => "string",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit => "null",
        Unexpected::Option => "optional value",
        Unexpected::NewtypeStruct => "newtype struct",
        Unexpected::Seq => "sequence",
        Unexpected::Map => "map",
        Unexpected::Enum => "enum",
        Unexpected::UnitVariant => "unit variant",
        Unexpected::NewtypeVariant => "newtype variant",
        Unexpected::TupleVariant => "tuple variant",
        Unexpected::StructVariant => "struct variant",
        Unexpected::Other(_) => "another value",
    }
}
