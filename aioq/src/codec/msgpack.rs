//! MessagePack: values by rmp-serde, the skeleton of messages by hand, so that raw values stay raw.

use bytes::Bytes;
use rmp::Marker;
use rmp_serde::config::BytesMode;
use serde::{Deserialize, Serialize};

use super::{decode_error, scratch};
use crate::error::{Error, ErrorKind, Result};

pub(super) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    let mut serializer = rmp_serde::Serializer::new(out)
        .with_struct_map()
        .with_human_readable()
        .with_bytes(BytesMode::ForceIterables);
    let done = value.serialize(&mut serializer);
    done.map_err(|error| Error::new(ErrorKind::Encode, format!("no MessagePack form: {error}")))
}

/// How deep values may be nested: as in serde_json. Deeper ones could overflow the stack of a worker's thread.
const MAX_DEPTH: usize = 128;

pub(super) fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer).map_err(|error| decode_error(error.to_string()))
}

/// Nothing, as `()` is written.
pub(super) const NIL: &[u8] = &[0xc0];

/// Writes the parts of a map one after the other.
pub(super) struct Writer(Vec<u8>);

/// `Vec<u8>` takes whatever is written.
const INFALLIBLE: &str = "writing to memory does not fail";

impl Writer {
    pub(super) fn new() -> Self {
        Self(scratch::take())
    }

    /// A map whose entries are written already.
    pub(super) fn map_of(count: usize, entries: &[u8]) -> Bytes {
        let head = match count {
            0..=15 => 1,
            16..=0xffff => 3,
            _ => 5,
        };
        let mut map = Self(Vec::with_capacity(head + entries.len()));
        map.map(count);
        map.raw(entries);
        map.0.into()
    }

    /// Goes on writing behind `bytes`.
    pub(super) fn around(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn map(&mut self, entries: usize) {
        rmp::encode::write_map_len(&mut self.0, length(entries)).expect(INFALLIBLE);
    }

    pub(super) fn str(&mut self, text: &str) {
        rmp::encode::write_str(&mut self.0, text).expect(INFALLIBLE);
    }

    pub(super) fn int(&mut self, number: i64) {
        rmp::encode::write_sint(&mut self.0, number).expect(INFALLIBLE);
    }

    pub(super) fn float(&mut self, number: f64) {
        rmp::encode::write_f64(&mut self.0, number).expect(INFALLIBLE);
    }

    pub(super) fn bool(&mut self, value: bool) {
        rmp::encode::write_bool(&mut self.0, value).expect(INFALLIBLE);
    }

    pub(super) fn nil(&mut self) {
        rmp::encode::write_nil(&mut self.0).expect(INFALLIBLE);
    }

    pub(super) fn bin(&mut self, bytes: &[u8]) {
        rmp::encode::write_bin(&mut self.0, bytes).expect(INFALLIBLE);
    }

    /// A value that is encoded already.
    pub(super) fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    /// What was written.
    pub(super) fn finish(self) -> Bytes {
        scratch::exact(self.0)
    }

    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.0
    }
}

fn length(entries: usize) -> u32 {
    u32::try_from(entries).expect("fewer than 2^32 entries")
}

/// Reads a map part by part. No length in the bytes is believed before the bytes are there.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| decode_error("cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn marker(&mut self) -> Result<Marker> {
        Ok(Marker::from_u8(self.take(1)?[0]))
    }

    /// A big-endian length of `bytes` bytes.
    fn number(&mut self, bytes: usize) -> Result<usize> {
        let number = self.take(bytes)?.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).map_err(|_| decode_error("length out of range"))
    }

    pub(super) fn map(&mut self) -> Result<usize> {
        match self.marker()? {
            Marker::FixMap(entries) => Ok(entries.into()),
            Marker::Map16 => self.number(2),
            Marker::Map32 => self.number(4),
            other => Err(decode_error(format!("expected a map, found {other:?}"))),
        }
    }

    pub(super) fn array(&mut self) -> Result<usize> {
        match self.marker()? {
            Marker::FixArray(entries) => Ok(entries.into()),
            Marker::Array16 => self.number(2),
            Marker::Array32 => self.number(4),
            other => Err(decode_error(format!("expected an array, found {other:?}"))),
        }
    }

    pub(super) fn str(&mut self) -> Result<&'a str> {
        let length = match self.marker()? {
            Marker::FixStr(length) => length.into(),
            Marker::Str8 => self.number(1)?,
            Marker::Str16 => self.number(2)?,
            Marker::Str32 => self.number(4)?,
            other => return Err(decode_error(format!("expected text, found {other:?}"))),
        };
        std::str::from_utf8(self.take(length)?).map_err(|_| decode_error("text is not UTF-8"))
    }

    /// The bytes of one whole value, whatever it is; nesting costs no stack.
    pub(super) fn raw(&mut self) -> Result<&'a [u8]> {
        let start = self.rest;
        let mut values = 1u64;
        while values > 0 {
            values = values - 1 + self.skip_head()?;
        }
        Ok(&start[..start.len() - self.rest.len()])
    }

    /// Skips a value without its parts; how many parts follow.
    fn skip_head(&mut self) -> Result<u64> {
        let (bytes, parts) = match self.marker()? {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => (0, 0),
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(length) => (length.into(), 0),
            Marker::Str8 | Marker::Bin8 => (self.number(1)?, 0),
            Marker::Str16 | Marker::Bin16 => (self.number(2)?, 0),
            Marker::Str32 | Marker::Bin32 => (self.number(4)?, 0),
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::Ext8 => (self.number(1)? + 1, 0),
            Marker::Ext16 => (self.number(2)? + 1, 0),
            Marker::Ext32 => (self.number(4)? + 1, 0),
            Marker::FixArray(parts) => (0, u64::from(parts)),
            Marker::Array16 => (0, self.number(2)? as u64),
            Marker::Array32 => (0, self.number(4)? as u64),
            Marker::FixMap(entries) => (0, 2 * u64::from(entries)),
            Marker::Map16 => (0, 2 * self.number(2)? as u64),
            Marker::Map32 => (0, 2 * self.number(4)? as u64),
            Marker::Reserved => return Err(decode_error("0xc1 is no MessagePack")),
        };
        self.take(bytes)?;
        Ok(parts)
    }
}
