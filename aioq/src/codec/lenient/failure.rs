//! Why a value does not fit a type, with and without the value.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

/// Why a value does not fit.
#[derive(Debug)]
pub(in crate::codec) struct Failure {
    /// Names and types, no values: fit for logs and records.
    plain: String,
    /// The same with the value, if that tells more.
    quoting: Option<String>,
}

/// What serde's own code for enums says, which has no kind of its own, and quotes nothing.
const HARMLESS: &[&str] = &["data did not match any variant of", "no variant of enum"];

impl Failure {
    /// The reason, with the value if `quotes` says so.
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
    /// What a type's own `Deserialize` says may quote anything.
    fn custom<T: fmt::Display>(why: T) -> Self {
        let why = why.to_string();
        match HARMLESS.iter().any(|harmless| why.starts_with(harmless)) {
            true => Self { plain: why, quoting: None },
            false => Self::both("the type refuses its value".to_owned(), why),
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

/// What was found, without the value.
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
