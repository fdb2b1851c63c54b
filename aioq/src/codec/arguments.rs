//! The arguments of a call, written by name and read by name or position.

mod fields;
mod splice;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use super::borrowed::Str;
use super::encode::{self, Trust};
use super::msgpack::{Reader, Writer, utf8};
use super::value::{Value, last_of_each};
use super::{Codec, Reading, buffer, json};
use crate::error::{
    AfterFailure, Error, ErrorKind, JobError, Reason, Result, TaskError, TaskResult, excerpt,
};

/// The arguments of a call, still encoded.
#[derive(Clone, Debug)]
pub struct Arguments {
    codec: Codec,
    reading: Reading,
    /// Positional arguments as an encoded array, if there are any. Python writes them, aioq does
    /// not.
    positional: Option<Box<Bytes>>,
    /// Named arguments as an encoded map.
    named: Bytes,
}

/// An empty array.
const NONE_MSGPACK: &[u8] = &[0x90];
const NONE_JSON: &[u8] = b"[]";

impl Arguments {
    /// Named arguments from an encoded map.
    pub(crate) fn from_named(codec: Codec, named: Bytes) -> Self {
        Self { codec, reading: Reading::default(), positional: None, named }
    }

    /// Adds positional arguments, an array that is a part of `whole`.
    pub(crate) fn and_positional(mut self, positional: &[u8], whole: &Bytes) -> Self {
        let some = positional != self.no_positional();
        self.positional = some.then(|| Box::new(whole.slice_ref(positional)));
        self
    }

    fn no_positional(&self) -> &'static [u8] {
        match self.codec {
            Codec::MessagePack => NONE_MSGPACK,
            Codec::Json => NONE_JSON,
        }
    }

    /// The codec of the arguments.
    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    /// Named arguments as an encoded map.
    pub(crate) fn named(&self) -> &[u8] {
        &self.named
    }

    /// Positional arguments as an encoded array.
    pub(crate) fn positional(&self) -> &[u8] {
        self.positional.as_deref().map_or(self.no_positional(), |positional| positional)
    }

    /// True if there are positional arguments.
    pub(crate) fn has_positional(&self) -> bool {
        self.positional.is_some()
    }

    /// Named arguments, from a value that serializes as a map or as nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a value that is not a map with text keys.
    pub fn from_map<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Result<Self> {
        let mut bytes = Vec::new();
        encode::encode_map(codec, value, &mut bytes)?;
        let entries = match codec.value(&bytes)? {
            Value::Null => return Ok(ArgsEncoder::new(codec).finish()),
            Value::Map(entries) => entries,
            _ => return Err(invalid("arguments are an object of names and values, like {\"a\": 1}")),
        };
        if entries.iter().all(|(name, _)| matches!(name, Value::Str(_))) {
            Ok(Self::from_named(codec, bytes.into()))
        } else {
            Err(invalid("the names of arguments are text"))
        }
    }

    /// Named arguments, from a JSON object.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for text that is not a JSON object.
    pub fn from_json(codec: Codec, text: &str) -> Result<Self> {
        let value: Value = json::decode(text.as_bytes())
            .map_err(|error| invalid(format!("arguments are not JSON: {error}")))?;
        Self::from_map(codec, &value)
    }

    /// The same arguments without casts, and with errors that quote values: for a caller that can
    /// correct them.
    ///
    /// They are converted to JSON, where all keys of a map are text.
    #[cfg(feature = "cli")]
    pub(crate) fn strictly(&self) -> Result<Self> {
        let mut arguments = Self::from_json(Codec::Json, &self.to_json())?;
        arguments.reading = Reading { strict: true, quotes: true };
        Ok(arguments)
    }

    /// Allows errors to quote values.
    pub(crate) fn quote_values(&mut self) {
        self.reading.quotes = true;
    }

    /// Encoded size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.positional().len() + self.named.len()
    }

    /// True if there are no arguments.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() <= ArgsEncoder::new(self.codec).finish().len()
    }

    /// The arguments as compact JSON: an object, or `{"args": [..], "kwargs": {..}}` if there are
    /// positional ones.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }

    /// Reader of the arguments of a task with these parameters. Surplus arguments are refused here,
    /// missing ones when they are read.
    ///
    /// # Errors
    /// A fatal error of reason [`BadArguments`](Reason::BadArguments).
    pub fn reader(&self, params: &'static [Param]) -> TaskResult<ArgsReader<'_>> {
        ArgsReader::new(self, params)
    }

    /// Decodes all arguments as one value: a struct or a map for named ones, a struct or a tuple
    /// for positional ones.
    ///
    /// # Errors
    /// A fatal error of reason [`BadArguments`](Reason::BadArguments); also for a name that a
    /// struct does not have, and for positional and named arguments together.
    pub fn decode<T: DeserializeOwned>(&self) -> TaskResult<T> {
        let decode = |bytes| {
            self.codec.check_depth(bytes, 1)?;
            self.codec.decode_checked(bytes, self.reading)
        };
        if !self.has_positional() {
            if let Some(fields) = fields::of::<T>() {
                self.check_names(fields)?;
            }
            return decode(&self.named).map_err(bad_arguments);
        }
        if !self.has_no_named() {
            return Err(bad_arguments("arguments by position and by name at once: give all of them by name"));
        }
        decode(self.positional()).map_err(|error| bad_arguments(format!("arguments by position: {error}")))
    }

    fn has_no_named(&self) -> bool {
        match self.codec {
            Codec::MessagePack => *self.named == [0x80],
            Codec::Json => {
                json::decode::<RawEntries<'_>>(&self.named).is_ok_and(|entries| entries.0.is_empty())
            }
        }
    }

    fn check_names(&self, fields: &[&str]) -> TaskResult<()> {
        let check = |name: &str| {
            if fields.contains(&name) {
                Ok(())
            } else {
                Err(bad_arguments(unexpected(name, fields.iter().copied())))
            }
        };
        match self.codec {
            Codec::MessagePack => {
                let mut named = Reader::new(&self.named);
                for _ in 0..named.map().map_err(bad_arguments)? {
                    check(named.str().map_err(bad_arguments)?)?;
                    named.raw().map_err(bad_arguments)?;
                }
                Ok(())
            }
            Codec::Json => {
                let entries: RawEntries<'_> = json::decode(&self.named).map_err(bad_arguments)?;
                entries.0.iter().try_for_each(|(name, _)| check(name))
            }
        }
    }

    pub(crate) fn named_value(&self) -> Value {
        match self.codec.value(&self.named).unwrap_or(Value::Null).with_plain_keys() {
            Value::Map(entries) => Value::Map(last_of_each(entries)),
            other => other,
        }
    }

    pub(crate) fn positional_value(&self) -> Value {
        self.codec.value(self.positional()).unwrap_or(Value::Null).with_plain_keys()
    }
}

/// No arguments, in the default codec.
impl Default for Arguments {
    fn default() -> Self {
        ArgsEncoder::new(Codec::default()).finish()
    }
}

impl PartialEq for Arguments {
    /// Compares the encoded arguments, and not the settings for reading them.
    fn eq(&self, other: &Self) -> bool {
        (self.codec, &self.positional, &self.named) == (other.codec, &other.positional, &other.named)
    }
}

impl Eq for Arguments {}

impl Serialize for Arguments {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.positional_value() {
            Value::Seq(values) if !values.is_empty() => Value::Map(vec![
                (Value::Str("args".to_owned()), Value::Seq(values)),
                (Value::Str("kwargs".to_owned()), self.named_value()),
            ])
            .serialize(serializer),
            _ => self.named_value().serialize(serializer),
        }
    }
}

/// Writer of the named arguments of a call.
pub struct ArgsEncoder {
    codec: Codec,
    count: usize,
    entries: Vec<u8>,
}

impl ArgsEncoder {
    /// A writer without arguments.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self { codec, count: 0, entries: buffer::take() }
    }

    /// Adds an argument.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`], with the name of the argument, also if the value would come back
    /// changed.
    pub fn arg<T: Serialize + DeserializeOwned>(&mut self, name: &str, value: &T) -> Result<()> {
        self.name(name);
        let start = self.entries.len();
        let encoded = match self.codec.encode_into(value, &mut self.entries) {
            Ok(Trust::Doubtful) => self.check_return(value, start),
            encoded => encoded.map(drop),
        };
        encoded.map_err(|error| error.context(format_args!("argument `{name}`")))
    }

    /// Decodes the argument written last, as a worker will, and compares it with the value.
    #[cold]
    fn check_return<T: Serialize + DeserializeOwned>(&self, value: &T, start: usize) -> Result<()> {
        let reading = Reading { quotes: true, ..Reading::default() };
        let refuse = |why| Err(Error::new(ErrorKind::Encode, why));
        match self.codec.decode_checked::<T>(&self.entries[start..], reading) {
            Ok(returned) if encode::fingerprint(&returned)? == encode::fingerprint(value)? => Ok(()),
            Ok(_) => refuse("a worker would read another value, as `None` for `Some(None)`".to_owned()),
            Err(error) => refuse(format!("no worker could read it back: {error}")),
        }
    }

    /// Adds an argument of bytes, which stay bytes in MessagePack.
    ///
    /// # Errors
    /// None today; the signature is that of [`arg`](Self::arg).
    pub fn bytes(&mut self, name: &str, value: &[u8]) -> Result<()> {
        self.name(name);
        self.codec.encode_into(&Lent(value), &mut self.entries).map(drop)
    }

    fn name(&mut self, name: &str) {
        match self.codec {
            Codec::MessagePack => {
                let mut writer = Writer::around(std::mem::take(&mut self.entries));
                writer.str(name);
                self.entries = writer.into_buffer();
            }
            Codec::Json => {
                self.entries.push(if self.count == 0 { b'{' } else { b',' });
                self.entries.extend_from_slice(json::to_string(name).as_bytes());
                self.entries.push(b':');
            }
        }
        self.count += 1;
    }

    /// The arguments.
    #[must_use]
    pub fn finish(mut self) -> Arguments {
        let named = match self.codec {
            Codec::MessagePack => {
                let named = Writer::map_of(self.count, &self.entries);
                buffer::give_back(self.entries);
                named
            }
            Codec::Json if self.count == 0 => Bytes::from_static(b"{}"),
            Codec::Json => {
                self.entries.push(b'}');
                buffer::exact(self.entries)
            }
        };
        Arguments::from_named(self.codec, named)
    }
}

/// Serializes bytes as bytes.
struct Lent<'a>(&'a [u8]);

impl Serialize for Lent<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// A parameter of a task that its messages carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    name: &'static str,
    type_name: &'static str,
    has_default: bool,
}

impl Param {
    /// A parameter that every message must have.
    #[must_use]
    pub const fn required(name: &'static str, type_name: &'static str) -> Self {
        Self { name, type_name, has_default: false }
    }

    /// A parameter that a message may omit.
    #[must_use]
    pub const fn with_default(name: &'static str, type_name: &'static str) -> Self {
        Self { name, type_name, has_default: true }
    }

    /// The name of the argument in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The type as written in the source.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// True if a message may omit it.
    #[must_use]
    pub const fn has_default(&self) -> bool {
        self.has_default
    }
}

/// Reader of single arguments, which borrow from the message.
pub struct ArgsReader<'a> {
    codec: Codec,
    reading: Reading,
    params: &'static [Param],
    /// Number of positional arguments.
    positional: usize,
    /// The raw argument of each parameter.
    raw: SmallVec<[Option<&'a [u8]>; 8]>,
}

impl<'a> ArgsReader<'a> {
    fn new(arguments: &'a Arguments, params: &'static [Param]) -> TaskResult<Self> {
        let mut reader = Self {
            codec: arguments.codec,
            reading: arguments.reading,
            params,
            positional: 0,
            raw: smallvec![None; params.len()],
        };
        match arguments.codec {
            Codec::MessagePack => reader.split_msgpack(arguments),
            Codec::Json => reader.split_json(arguments),
        }?;
        Ok(reader)
    }

    fn split_msgpack(&mut self, arguments: &'a Arguments) -> TaskResult<()> {
        let mut positional = Reader::new(arguments.positional());
        for index in 0..positional.array().map_err(bad_arguments)? {
            self.by_position(index, positional.value().map_err(bad_arguments)?)?;
        }
        let mut named = Reader::new(&arguments.named);
        for _ in 0..named.map().map_err(bad_arguments)? {
            let name = named.text().map_err(bad_arguments)?;
            self.by_name(name, named.value().map_err(bad_arguments)?)?;
        }
        Ok(())
    }

    fn split_json(&mut self, arguments: &'a Arguments) -> TaskResult<()> {
        let positional: Vec<&serde_json::value::RawValue> =
            json::decode(arguments.positional()).map_err(bad_arguments)?;
        for (index, raw) in positional.into_iter().enumerate() {
            self.by_position(index, raw.get().as_bytes())?;
        }
        let named: RawEntries<'a> = json::decode(&arguments.named).map_err(bad_arguments)?;
        for (name, raw) in named.0 {
            self.by_name(name.as_bytes(), raw.get().as_bytes())?;
        }
        Ok(())
    }

    fn by_position(&mut self, index: usize, raw: &'a [u8]) -> TaskResult<()> {
        match self.raw.get_mut(index) {
            Some(slot) => {
                *slot = Some(raw);
                self.positional = index + 1;
            }
            None => {
                let count = self.params.len();
                return Err(bad_arguments(format!(
                    "{} positional arguments, the task has {count} parameters",
                    index + 1
                )));
            }
        }
        Ok(())
    }

    fn by_name(&mut self, name: &[u8], raw: &'a [u8]) -> TaskResult<()> {
        match self.params.iter().position(|param| param.name.as_bytes() == name) {
            // As in taskiq: a positional argument wins over a named one, and of equal names the
            // last.
            Some(index) => {
                if index >= self.positional {
                    self.raw[index] = Some(raw);
                }
                Ok(())
            }
            None => {
                let name = utf8(name).map_err(bad_arguments)?;
                Err(bad_arguments(unexpected(name, self.params.iter().map(|param| param.name))))
            }
        }
    }

    /// Reads the argument of parameter `index`.
    ///
    /// # Errors
    /// A fatal error of reason [`BadArguments`](Reason::BadArguments) if it is missing or does not
    /// fit.
    pub fn required<T: Deserialize<'a>>(&mut self, index: usize) -> TaskResult<T> {
        let param = self.params[index];
        match self.raw[index] {
            Some(raw) => self.decode(param, raw),
            None => Err(bad_arguments(format!("missing argument `{}` ({})", param.name, param.type_name))),
        }
    }

    /// Reads the argument of parameter `index`, or its default.
    ///
    /// # Errors
    /// A fatal error of reason [`BadArguments`](Reason::BadArguments) if it is present and does not
    /// fit.
    pub fn or_else<T: Deserialize<'a>>(
        &mut self,
        index: usize,
        default: impl FnOnce() -> T,
    ) -> TaskResult<T> {
        Ok(self.optional(index)?.unwrap_or_else(default))
    }

    /// Reads the argument of parameter `index`, if the message has it.
    ///
    /// # Errors
    /// As [`or_else`](Self::or_else).
    pub fn optional<T: Deserialize<'a>>(&mut self, index: usize) -> TaskResult<Option<T>> {
        self.raw[index].map(|raw| self.decode(self.params[index], raw)).transpose()
    }

    fn decode<T: Deserialize<'a>>(&self, param: Param, raw: &'a [u8]) -> TaskResult<T> {
        let decoded = match self.codec {
            // Checked when the arguments were split.
            Codec::MessagePack => Ok(()),
            Codec::Json => self.codec.check_depth(raw, 0),
        };
        decoded.and_then(|()| self.codec.decode_checked(raw, self.reading)).map_err(|error| {
            bad_arguments(format!("argument `{}` does not fit {}: {error}", param.name, param.type_name))
        })
    }
}

/// The entries of a JSON object in order, values raw.
struct RawEntries<'a>(Vec<(Cow<'a, str>, &'a serde_json::value::RawValue)>);

impl<'de> Deserialize<'de> for RawEntries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawEntries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of arguments by name")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, raw)) = map.next_entry::<Str<'de>, _>()? {
                    entries.push((name.into_cow(), raw));
                }
                Ok(RawEntries(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

fn unexpected<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let name = excerpt(name);
    let known: Vec<&str> = known.collect();
    match known.as_slice() {
        [] => format!("unexpected argument `{name}`: the task takes none"),
        known => format!("unexpected argument `{name}`: the task takes `{}`", known.join("`, `")),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message.into())
}

fn bad_arguments(why: impl fmt::Display) -> TaskError {
    let error = JobError::new("BadArguments", why.to_string());
    TaskError::described(AfterFailure::Fatal, Reason::BadArguments, error)
}
