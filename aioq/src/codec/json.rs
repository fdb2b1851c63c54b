//! JSON, by serde_json.

use serde::{Deserialize, Serialize};

use super::decode_error;
use crate::error::{Error, ErrorKind, Result};

pub(super) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    let done = serde_json::to_writer(out, value);
    done.map_err(|error| Error::new(ErrorKind::Encode, format!("no JSON form: {error}")))
}

pub(super) fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| decode_error(error.to_string()))
}

pub(super) fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}
