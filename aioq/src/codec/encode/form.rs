//! Output forms of the serializer.

use std::hash::{BuildHasher as _, Hasher as _};

use serde::ser::Error as _;

use super::failure::Failure;
use crate::codec::msgpack::Reader;
use crate::codec::{Codec, json};

/// Output form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codec) enum Form {
    /// MessagePack.
    MessagePack,
    /// JSON.
    Json,
    /// Fingerprint: like MessagePack, but `Some` has a marker, and an array or a map is the sum of
    /// the hashes of its entries, because sets and maps have no order.
    Fingerprint,
}

/// Writes to a `Vec<u8>` cannot fail.
const INFALLIBLE: &str = "writing to memory does not fail";

/// `Some` in a fingerprint: a byte that begins no MessagePack value.
const SOME: u8 = 0xc1;

impl Form {
    pub(super) fn of(codec: Codec) -> Self {
        match codec {
            Codec::MessagePack => Self::MessagePack,
            Codec::Json => Self::Json,
        }
    }

    pub(super) fn has_bytes(self) -> bool {
        self != Self::Json
    }

    pub(super) fn nil(self, out: &mut Vec<u8>) {
        match self {
            Self::Json => out.extend_from_slice(b"null"),
            Self::MessagePack | Self::Fingerprint => out.push(0xc0),
        }
    }

    pub(super) fn some(self, out: &mut Vec<u8>) {
        if self == Self::Fingerprint {
            out.push(SOME);
        }
    }

    pub(super) fn bool(self, out: &mut Vec<u8>, value: bool) {
        match self {
            Self::Json => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Self::MessagePack | Self::Fingerprint => out.push(if value { 0xc3 } else { 0xc2 }),
        }
    }

    pub(super) fn int(self, out: &mut Vec<u8>, value: i64) {
        match self {
            Self::Json => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            Self::MessagePack | Self::Fingerprint => {
                rmp::encode::write_sint(out, value).expect(INFALLIBLE);
            }
        }
    }

    pub(super) fn uint(self, out: &mut Vec<u8>, value: u64) {
        match self {
            Self::Json => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            Self::MessagePack | Self::Fingerprint => {
                rmp::encode::write_uint(out, value).expect(INFALLIBLE);
            }
        }
    }

    /// A number beyond 64 bits.
    pub(super) fn wide(self, out: &mut Vec<u8>, value: [u8; 16]) -> Result<(), Failure> {
        match self {
            Self::Json => {
                Err(Failure::custom("a number beyond 64 bits has no exact JSON form: pass it as text"))
            }
            Self::MessagePack | Self::Fingerprint => {
                self.bytes(out, &value);
                Ok(())
            }
        }
    }

    /// Refuses NaN and the infinities, which JSON could only write as `null`.
    pub(super) fn check_float(self, value: f64) -> Result<(), Failure> {
        if self == Self::Json && !value.is_finite() {
            Err(Failure::custom(format_args!("{value} has no JSON form")))
        } else {
            Ok(())
        }
    }

    pub(super) fn float(self, out: &mut Vec<u8>, value: f64) {
        match self {
            Self::Json => json::write(out, &value),
            Self::MessagePack | Self::Fingerprint => rmp::encode::write_f64(out, value).expect(INFALLIBLE),
        }
    }

    pub(super) fn float32(self, out: &mut Vec<u8>, value: f32) {
        match self {
            Self::Json => json::write(out, &value),
            Self::MessagePack | Self::Fingerprint => rmp::encode::write_f32(out, value).expect(INFALLIBLE),
        }
    }

    pub(super) fn str(self, out: &mut Vec<u8>, value: &str) {
        match self {
            Self::Json => json::write(out, value),
            Self::MessagePack | Self::Fingerprint => rmp::encode::write_str(out, value).expect(INFALLIBLE),
        }
    }

    pub(super) fn bytes(self, out: &mut Vec<u8>, value: &[u8]) {
        match self {
            Self::Json => json::write(out, value),
            Self::MessagePack | Self::Fingerprint => rmp::encode::write_bin(out, value).expect(INFALLIBLE),
        }
    }

    /// Begins `len` bytes.
    pub(super) fn open_bytes(self, out: &mut Vec<u8>, len: usize) {
        rmp::encode::write_bin_len(out, length(len)).expect(INFALLIBLE);
    }

    /// Begins an array or a map.
    pub(super) fn open(self, out: &mut Vec<u8>, is_map: bool, len: usize) {
        match (self, is_map) {
            (Self::Json, true) => out.push(b'{'),
            (Self::Json, false) => out.push(b'['),
            (_, true) => drop(rmp::encode::write_map_len(out, length(len)).expect(INFALLIBLE)),
            (_, false) => drop(rmp::encode::write_array_len(out, length(len)).expect(INFALLIBLE)),
        }
    }

    /// Corrects the length of an array or a map that began at `start` with another.
    #[cold]
    pub(super) fn correct(self, out: &mut Vec<u8>, is_map: bool, start: usize, told: usize, len: usize) {
        if self == Self::Json {
            return;
        }
        let head = |len| {
            let mut head = Vec::with_capacity(5);
            self.open(&mut head, is_map, len);
            head
        };
        out.splice(start..start + head(told).len(), head(len)).for_each(drop);
    }

    /// Separator before an entry.
    pub(super) fn before(self, out: &mut Vec<u8>, is_first: bool) {
        if self == Self::Json && !is_first {
            out.push(b',');
        }
    }

    /// Separator between a key and its value.
    pub(super) fn between(self, out: &mut Vec<u8>) {
        if self == Self::Json {
            out.push(b':');
        }
    }

    pub(super) fn close(self, out: &mut Vec<u8>, is_map: bool) {
        if self == Self::Json {
            out.push(if is_map { b'}' } else { b']' });
        }
    }

    /// The text at the beginning of the output.
    pub(super) fn read_text(self, written: &[u8]) -> Option<String> {
        match self {
            Self::Json => json::decode(written).ok(),
            Self::MessagePack | Self::Fingerprint => Reader::new(written).str().ok().map(str::to_owned),
        }
    }

    /// The part of an entry in the fingerprint of its array or map.
    pub(super) fn hash(entry: &[u8]) -> u64 {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        hasher.write(entry);
        hasher.finish()
    }
}

fn length(entries: usize) -> u32 {
    u32::try_from(entries).expect("fewer than 2^32 entries")
}
