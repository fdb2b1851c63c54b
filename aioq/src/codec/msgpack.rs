//! MessagePack: values by rmp-serde, the envelope of messages and records by hand, so that raw
//! values stay raw.

use arrayvec::ArrayVec;
use bytes::Bytes;
use rmp::Marker;
use serde::Deserialize;

use super::{MAX_DEPTH, buffer, decode_error, too_deep};
use crate::error::{Error, Result};

/// Depth limit of rmp-serde. Deeper values than [`MAX_DEPTH`] were refused before.
const DEPTH_OF_READER: usize = 128;

pub(crate) fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    deserializer.set_max_depth(DEPTH_OF_READER);
    T::deserialize(&mut deserializer).map_err(|error| decode_error(error.to_string()))
}

/// Refuses values that are nested too deeply, which a recursive enum could be without end. `around`
/// is the number of levels around the value.
pub(crate) fn check_depth(bytes: &[u8], around: usize) -> Result<()> {
    match bytes.first() {
        Some(0x80..=0x9f | 0xdc..=0xdf) => Reader::new(bytes).raw_within(around).map(drop),
        _ => Ok(()),
    }
}

/// Maximum number of levels around a value.
const MAX_SKELETON: usize = 8;

/// Encoded `()`.
pub(crate) const NIL: &[u8] = &[0xc0];

/// Writer of maps, part by part.
pub(crate) struct Writer(Vec<u8>);

/// Writes to a `Vec<u8>` cannot fail.
const INFALLIBLE: &str = "writing to memory does not fail";

impl Writer {
    pub(crate) fn new() -> Self {
        Self(buffer::take())
    }

    /// A map of entries that are encoded already.
    pub(crate) fn map_of(count: usize, entries: &[u8]) -> Bytes {
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

    /// A writer that appends to `bytes`.
    pub(crate) fn around(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn map(&mut self, entries: usize) {
        rmp::encode::write_map_len(&mut self.0, length(entries)).expect(INFALLIBLE);
    }

    pub(crate) fn array(&mut self, values: usize) {
        rmp::encode::write_array_len(&mut self.0, length(values)).expect(INFALLIBLE);
    }

    pub(crate) fn str(&mut self, text: &str) {
        rmp::encode::write_str(&mut self.0, text).expect(INFALLIBLE);
    }

    pub(crate) fn int(&mut self, number: i64) {
        rmp::encode::write_sint(&mut self.0, number).expect(INFALLIBLE);
    }

    pub(crate) fn float(&mut self, number: f64) {
        rmp::encode::write_f64(&mut self.0, number).expect(INFALLIBLE);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        rmp::encode::write_bool(&mut self.0, value).expect(INFALLIBLE);
    }

    pub(crate) fn nil(&mut self) {
        rmp::encode::write_nil(&mut self.0).expect(INFALLIBLE);
    }

    pub(crate) fn bin(&mut self, bytes: &[u8]) {
        rmp::encode::write_bin(&mut self.0, bytes).expect(INFALLIBLE);
    }

    /// Writes an encoded value.
    pub(crate) fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    /// The written bytes.
    pub(crate) fn finish(self) -> Bytes {
        buffer::exact(self.0)
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.0
    }
}

fn length(entries: usize) -> u32 {
    u32::try_from(entries).expect("fewer than 2^32 entries")
}

/// Reader of maps, part by part. A length in the bytes is never trusted before the bytes are there.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes that were not read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses bytes after the end.
    pub(crate) fn expect_end(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(decode_error("bytes after the end")) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<u8> {
        #[cfg(test)]
        STEPS.set(STEPS.get() + 1);
        let (head, rest) = self.rest.split_first().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Reads a big-endian length of `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<usize> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut_short)?;
        self.rest = rest;
        let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).map_err(|_| decode_error("length out of range"))
    }

    pub(crate) fn map(&mut self) -> Result<usize> {
        match self.head()? {
            head @ 0x80..=0x8f => Ok(usize::from(head & 0x0f)),
            0xde => self.length::<2>(),
            0xdf => self.length::<4>(),
            other => Err(unexpected("a map", other)),
        }
    }

    pub(crate) fn array(&mut self) -> Result<usize> {
        match self.head()? {
            head @ 0x90..=0x9f => Ok(usize::from(head & 0x0f)),
            0xdc => self.length::<2>(),
            0xdd => self.length::<4>(),
            other => Err(unexpected("an array", other)),
        }
    }

    /// Reads a text as bytes that are not checked for UTF-8: enough to compare.
    pub(crate) fn text(&mut self) -> Result<&'a [u8]> {
        let length = match self.head()? {
            head @ 0xa0..=0xbf => usize::from(head & 0x1f),
            0xd9 => self.length::<1>()?,
            0xda => self.length::<2>()?,
            0xdb => self.length::<4>()?,
            other => return Err(unexpected("text", other)),
        };
        self.take(length)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str> {
        self.text().and_then(utf8)
    }

    /// True if a text comes next.
    pub(crate) fn is_at_text(&self) -> bool {
        matches!(self.rest.first(), Some(0xa0..=0xbf | 0xd9..=0xdb))
    }

    /// Reads a small whole number, if one comes next.
    pub(crate) fn small_int(&mut self) -> Option<i64> {
        let (head, rest) = self.rest.split_first()?;
        (*head <= 0x7f).then(|| {
            self.rest = rest;
            i64::from(*head)
        })
    }

    /// Reads the bytes of one value of any type. Nesting uses no stack.
    pub(crate) fn raw(&mut self) -> Result<&'a [u8]> {
        let start = self.rest;
        let mut values = self.skip_head()?;
        while values > 0 {
            values = values - 1 + self.skip_head()?;
        }
        Ok(&start[..start.len() - self.rest.len()])
    }

    /// The same, for a value that must not be nested too deeply.
    pub(crate) fn value(&mut self) -> Result<&'a [u8]> {
        self.raw_within(0)
    }

    fn raw_within(&mut self, around: usize) -> Result<&'a [u8]> {
        let start = self.rest;
        let mut left = self.skip_head()?;
        // Remaining parts of each value around.
        let mut outer = ArrayVec::<u64, { MAX_DEPTH + MAX_SKELETON }>::new();
        loop {
            while left == 0 {
                match outer.pop() {
                    Some(parts) => left = parts,
                    None => return Ok(&start[..start.len() - self.rest.len()]),
                }
            }
            left -= 1;
            let is_collection = matches!(self.rest.first(), Some(0x80..=0x9f | 0xdc..=0xdf));
            let parts = self.skip_head()?;
            if is_collection {
                if outer.len() + 1 >= MAX_DEPTH + around {
                    return Err(too_deep());
                }
                outer.push(left);
                left = parts;
            }
        }
    }

    /// Skips the head of a value. Returns the number of parts that follow.
    fn skip_head(&mut self) -> Result<u64> {
        let (bytes, parts) = match self.head()? {
            // Small numbers, nil, true and false.
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => return Ok(0),
            // Texts and bytes.
            head @ 0xa0..=0xbf => (usize::from(head & 0x1f), 0),
            0xd9 | 0xc4 => (self.length::<1>()?, 0),
            0xda | 0xc5 => (self.length::<2>()?, 0),
            0xdb | 0xc6 => (self.length::<4>()?, 0),
            // Numbers of 1, 2, 4 and 8 bytes.
            head @ 0xcc..=0xcf => (1 << (head - 0xcc), 0),
            head @ 0xd0..=0xd3 => (1 << (head - 0xd0), 0),
            0xca => (4, 0),
            0xcb => (8, 0),
            // Extensions: a type, and 1, 2, 4, 8, 16 or a given number of bytes.
            head @ 0xd4..=0xd8 => (1 + (1 << (head - 0xd4)), 0),
            0xc7 => (1 + self.length::<1>()?, 0),
            0xc8 => (1 + self.length::<2>()?, 0),
            0xc9 => (1 + self.length::<4>()?, 0),
            head @ 0x90..=0x9f => return Ok(u64::from(head & 0x0f)),
            0xdc => (0, self.length::<2>()? as u64),
            0xdd => (0, self.length::<4>()? as u64),
            head @ 0x80..=0x8f => return Ok(2 * u64::from(head & 0x0f)),
            0xde => (0, 2 * self.length::<2>()? as u64),
            0xdf => (0, 2 * self.length::<4>()? as u64),
            0xc1 => return Err(decode_error("0xc1 is not a MessagePack type")),
        };
        self.take(bytes)?;
        Ok(parts)
    }
}

/// Checks that text is UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| decode_error("text is not UTF-8"))
}

#[cold]
fn cut_short() -> Error {
    decode_error("unexpected end of the bytes")
}

#[cold]
fn unexpected(what: &str, head: u8) -> Error {
    decode_error(format!("expected {what}, found {:?}", Marker::from_u8(head)))
}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Number of values that this thread began to read.
#[cfg(test)]
pub(crate) fn steps() -> u64 {
    STEPS.get()
}
