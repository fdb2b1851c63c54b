//! `#[serde(with = "as_bytes")]`: bytes as one value, not as a list of numbers.

use bytes::Bytes;
use serde::{Deserialize as _, Deserializer, Serializer};

use super::ByteBuf;

pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    ByteBuf::deserialize(deserializer).map(|bytes| bytes.into_vec().into())
}
