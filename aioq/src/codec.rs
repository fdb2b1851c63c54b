//! Values as bytes and back: the only module that knows MessagePack and JSON.
//!
//! Both formats carry one data model: structs are maps, and types that have a text form (UUIDs, addresses,
//! times) use it.

mod arguments;
mod json;
mod lenient;
mod lent;
mod msgpack;
mod scratch;
mod value;
pub(crate) mod wire;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::arguments::{ArgsEncoder, ArgsReader, Arguments, Param};
pub use self::lent::{ByteBuf, ByteSlice, Str};
use self::value::Value;
use crate::error::{Error, ErrorKind, Result};

/// How messages and results are written. A reader tells the two apart by the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Compact; bytes are bytes.
    #[default]
    MessagePack,
    /// Readable; bytes are arrays of numbers.
    Json,
}

impl Codec {
    /// The codec of a message or a record, which are maps, by its first byte.
    fn detect(bytes: &[u8]) -> Result<Self> {
        match bytes.first() {
            Some(b'{' | b' ' | b'\t' | b'\n' | b'\r') => Ok(Self::Json),
            Some(0x80..=0x8f | 0xde | 0xdf) => Ok(Self::MessagePack),
            Some(other) => {
                Err(decode_error(format!("neither JSON nor a MessagePack map (first byte 0x{other:02x})")))
            }
            None => Err(decode_error("no bytes at all")),
        }
    }

    /// Encodes a value.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if the value's `Serialize` refuses, or has no form in this codec.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Payload> {
        let mut buffer = scratch::take();
        self.encode_into(value, &mut buffer)?;
        let bytes = match (self, buffer.as_slice()) {
            // What most tasks return.
            (Self::MessagePack, msgpack::NIL) => {
                scratch::give_back(buffer);
                Bytes::from_static(msgpack::NIL)
            }
            _ => scratch::exact(buffer),
        };
        Ok(Payload { codec: self, bytes })
    }

    fn encode_into<T: Serialize + ?Sized>(self, value: &T, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::MessagePack => msgpack::encode(value, out),
            Self::Json => json::encode(value, out),
        }
    }

    /// Decodes a value: strictly, and failing that with the casts that lose nothing (`"5"` is a number, a
    /// number is text where text is wanted is not).
    fn decode<'de, T: Deserialize<'de>>(self, bytes: &'de [u8]) -> Result<T> {
        let strict = match self {
            Self::MessagePack => msgpack::decode(bytes),
            Self::Json => json::decode(bytes),
        };
        // The lenient reader names values and types; the strict one of MessagePack only knows markers.
        strict.or_else(|error| match self.value(bytes) {
            Ok(value) => lenient::from_value(value),
            Err(_) => Err(error),
        })
    }

    /// Decodes a MessagePack value of aioq's own.
    pub(crate) fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        Self::MessagePack.decode(bytes)
    }

    fn value(self, bytes: &[u8]) -> Result<Value> {
        match self {
            Self::MessagePack => msgpack::decode(bytes),
            Self::Json => json::decode(bytes),
        }
    }
}

/// An encoded value: the result of a job, or one of its arguments.
///
/// ```
/// use aioq::Codec;
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
    /// What is encoded already. Nothing is looked at before it is decoded.
    #[must_use]
    pub fn from_bytes(codec: Codec, bytes: impl Into<Bytes>) -> Self {
        Self { codec, bytes: bytes.into() }
    }

    /// The value.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if it is no `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        self.codec.decode(&self.bytes)
    }

    /// The value as compact JSON; bytes become arrays of numbers, what JSON cannot say becomes `null`.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }

    /// How it is encoded.
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
    fn recoded(&self, codec: Codec) -> Self {
        if self.codec == codec {
            return self.clone();
        }
        let value = self.codec.value(&self.bytes).unwrap_or(Value::Null);
        codec.encode(&value).unwrap_or_else(|_| Self { codec, bytes: Bytes::new() })
    }
}

impl Serialize for Payload {
    /// The value itself, not its bytes. A key that is neither text nor a whole number becomes a text.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.codec.value(&self.bytes).unwrap_or(Value::Null).with_plain_keys().serialize(serializer)
    }
}

/// Compact JSON of anything, for what people and tools read. What has no JSON form becomes `null`.
#[cfg(feature = "cli")]
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    json::to_string(value)
}

fn decode_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Decode, message.into())
}
