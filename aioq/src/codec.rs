//! Values as bytes and back. The only module that knows MessagePack and JSON.
//!
//! Both formats have one data model: structs are maps, and types with a text form (UUIDs,
//! addresses, times) use it.

mod arguments;
pub(crate) mod as_bytes;
mod borrowed;
pub(crate) mod buffer;
mod encode;
pub(crate) mod json;
mod lenient;
pub(crate) mod msgpack;
mod value;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::arguments::{ArgsEncoder, ArgsReader, Arguments, Param};
pub use self::borrowed::{ByteBuf, ByteSlice, Str};
use self::encode::Trust;
pub(crate) use self::value::Value;
use crate::error::{Error, ErrorKind, Result};

/// Maximum nesting of arrays and maps in an argument or a result.
pub(crate) const MAX_DEPTH: usize = 100;

/// The format of messages and results. A reader tells the two apart by the first byte.
///
/// # Values
/// Arguments and results are serde values, nested up to 100 levels deep. An argument comes back
/// equal, or its kick is refused with [`ErrorKind::Encode`]. Where the types leave that open, the
/// kick decodes the encoded argument and compares. A result is not compared, because it need not be
/// `Deserialize`.
///
/// | value | MessagePack | JSON |
/// |---|---|---|
/// | integers up to 64 bits, booleans, text, `char` | yes | yes |
/// | `f32`, `f64` | yes | yes, but not NaN and the infinities: refused |
/// | `i128`, `u128` | yes; beyond 64 bits as 16 bytes | up to 64 bits; beyond, refused: pass text |
/// | the same inside an enum with `tag` or `untagged`, or a field with `flatten` | refused: serde cannot buffer them | refused |
/// | `Vec<u8>`, `&[u8]` | yes, as bytes | yes, as an array of numbers |
/// | `Vec<u8>` in an `untagged` enum that has a variant of text before it | text wins if the bytes are text | yes |
/// | structs, tuples, sequences, sets, maps with text for keys | yes | yes |
/// | maps with numbers or booleans for keys | yes | yes, as text |
/// | the same inside an enum with `tag` or `untagged`, or a field with `flatten` | yes | refused: serde does not turn the text back |
/// | maps with other keys | yes | refused |
/// | enums of every representation | yes | yes |
/// | `Option<T>` | yes | yes |
/// | `Some(None)`, `Some(())` | refused: they would come back as `None` | refused |
/// | UUIDs, addresses, times, and others that have a text form | yes, as text | yes, as text |
/// | [`serde_json::Value`](https://docs.rs/serde_json), also with its feature `arbitrary_precision` | yes, numbers up to 64 bits | yes |
///
/// A result that is refused fails its job with
/// [`Reason::Unencodable`](crate::error::Reason::Unencodable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Compact. Bytes stay bytes.
    #[default]
    MessagePack,
    /// Readable. Bytes are arrays of numbers.
    Json,
}

impl Codec {
    /// The codec of a message or a record, from its first byte: both are maps.
    pub(crate) fn detect(bytes: &[u8]) -> Result<Self> {
        match bytes.first() {
            Some(b'{' | b' ' | b'\t' | b'\n' | b'\r') => Ok(Self::Json),
            Some(0x80..=0x8f | 0xde | 0xdf) => Ok(Self::MessagePack),
            Some(other) => {
                Err(decode_error(format!("neither JSON nor a MessagePack map (first byte 0x{other:02x})")))
            }
            None => Err(decode_error("no bytes")),
        }
    }

    /// Encodes a value.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if the value's `Serialize` fails, or if the value has no form in this
    /// codec. The message names the field.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Payload> {
        let mut buffer = buffer::take();
        let trust = self.encode_into(value, &mut buffer)?;
        if trust == Trust::Doubtful && matches!(buffer.as_slice(), msgpack::NIL | b"null") {
            return Err(Error::new(ErrorKind::Encode, "`Some` of nothing would come back as `None`"));
        }
        let bytes = match (self, buffer.as_slice()) {
            // The result of most tasks.
            (Self::MessagePack, msgpack::NIL) => {
                buffer::give_back(buffer);
                Bytes::from_static(msgpack::NIL)
            }
            _ => buffer::exact(buffer),
        };
        Ok(Payload { codec: self, bytes })
    }

    pub(crate) fn encode_into<T: Serialize + ?Sized>(self, value: &T, out: &mut Vec<u8>) -> Result<Trust> {
        encode::encode(self, value, out)
    }

    /// Decodes a value: strictly first, then with lossless casts. `"5"` can become a number, but a
    /// number never becomes text.
    pub(crate) fn decode<'de, T: Deserialize<'de>>(self, bytes: &'de [u8]) -> Result<T> {
        self.check_depth(bytes, 0)?;
        self.decode_checked(bytes, Reading::default())
    }

    /// Decodes bytes whose nesting was checked.
    fn decode_checked<'de, T: Deserialize<'de>>(self, bytes: &'de [u8], reading: Reading) -> Result<T> {
        let strict = match self {
            Self::MessagePack => msgpack::decode(bytes),
            Self::Json => json::decode(bytes),
        };
        match strict {
            Err(_) if !reading.strict => self.decode_leniently(bytes, reading),
            strict => strict,
        }
    }

    /// The lenient reader also has the better errors: the strict one of MessagePack names only
    /// markers, the one of JSON quotes values.
    #[cold]
    fn decode_leniently<'de, T: Deserialize<'de>>(self, bytes: &'de [u8], reading: Reading) -> Result<T> {
        let value = match self {
            Self::MessagePack => msgpack::decode(bytes),
            Self::Json => json::decode(bytes),
        }?;
        lenient::from_value(value, reading.quotes)
    }

    fn check_depth(self, bytes: &[u8], around: usize) -> Result<()> {
        match self {
            Self::MessagePack => msgpack::check_depth(bytes, around),
            Self::Json => json::check_depth(bytes, around),
        }
    }

    /// Decodes a MessagePack value of aioq's own.
    pub(crate) fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        Self::MessagePack.decode(bytes)
    }

    /// Decodes a value of any type. The arguments of a message are one level above the values in
    /// them.
    pub(crate) fn value(self, bytes: &[u8]) -> Result<Value> {
        self.check_depth(bytes, 1)?;
        match self {
            Self::MessagePack => msgpack::decode(bytes),
            Self::Json => json::decode(bytes),
        }
    }
}

/// Settings for reading arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// No casts: the caller is here and can correct the call.
    pub(crate) strict: bool,
    /// Errors may quote values.
    pub(crate) quotes: bool,
}

/// An encoded value: the result of a job, or one of its arguments.
///
/// ```
/// use aioq::message::Codec;
///
/// let payload = Codec::MessagePack.encode(&(1, "two")).unwrap();
/// assert_eq!(payload.decode::<(i64, String)>().unwrap(), (1, "two".to_owned()));
/// assert_eq!(payload.to_json(), r#"[1,"two"]"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    codec: Codec,
    bytes: Bytes,
}

impl Payload {
    /// Wraps encoded bytes. They are checked when they are decoded.
    #[must_use]
    pub fn from_bytes(codec: Codec, bytes: impl Into<Bytes>) -> Self {
        Self { codec, bytes: bytes.into() }
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if it is not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        self.codec.decode(&self.bytes)
    }

    /// The value as compact JSON. Bytes become arrays of numbers, values without a JSON form become
    /// `null`.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }

    /// The codec of the value.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same value in `codec`.
    pub(crate) fn recoded(&self, codec: Codec) -> Self {
        if self.codec == codec {
            return self.clone();
        }
        let value = self.codec.value(&self.bytes).unwrap_or(Value::Null);
        codec.encode(&value).unwrap_or_else(|_| Self { codec, bytes: Bytes::new() })
    }
}

impl Serialize for Payload {
    /// Serializes the value itself, not its bytes. A key that is neither text nor a whole number
    /// becomes text.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.codec.value(&self.bytes).unwrap_or(Value::Null).with_plain_keys().serialize(serializer)
    }
}

/// Compact JSON of a value, for people and tools. Values without a JSON form become `null`.
#[cfg(feature = "cli")]
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    json::to_string(value)
}

#[cold]
fn too_deep() -> Error {
    decode_error(format!("nested deeper than {MAX_DEPTH} levels"))
}

pub(crate) fn decode_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Decode, message.into())
}
