//! Encoding. One serializer for all forms, so that all have one data model and one limit.
//!
//! The serializer refuses values that would come back changed, and marks values that might: such an
//! argument is decoded and compared before its kick.

mod compound;
mod failure;
mod form;

use serde::ser::{Error as _, Serialize, Serializer};

use self::compound::Compound;
use self::failure::Failure;
pub(super) use self::form::Form;
use super::value::{NUMBER, RAW_VALUE, Value};
use super::{Codec, MAX_DEPTH, json};
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of options and newtypes directly within each other. They write no bytes, so only
/// this limit ends a recursion.
const MAX_WRAPPERS: u8 = 16;

/// Confidence in an encoded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It decodes to an equal value.
    Sure,
    /// It has parts that some types decode to another value.
    Doubtful,
}

/// Appends the value to `out`.
pub(super) fn encode<T: Serialize + ?Sized>(codec: Codec, value: &T, out: &mut Vec<u8>) -> Result<Trust> {
    encode_as(Form::of(codec), value, out, MAX_DEPTH)
}

/// Appends a map whose values each may have the full nesting.
pub(super) fn encode_map<T: Serialize + ?Sized>(codec: Codec, value: &T, out: &mut Vec<u8>) -> Result<Trust> {
    encode_as(Form::of(codec), value, out, MAX_DEPTH + 1)
}

/// A fingerprint that differs for different values of one type, even where the codec would lose the
/// difference.
pub(super) fn fingerprint<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let mut fingerprint = Vec::new();
    encode_as(Form::Fingerprint, value, &mut fingerprint, MAX_DEPTH)?;
    Ok(fingerprint)
}

fn encode_as<T: Serialize + ?Sized>(
    form: Form,
    value: &T,
    out: &mut Vec<u8>,
    max_depth: usize,
) -> Result<Trust> {
    let mut encoder = Encoder {
        out,
        form,
        room: max_depth,
        max_depth,
        wrappers: 0,
        some_at: usize::MAX,
        trust: Trust::Sure,
    };
    match value.serialize(&mut encoder) {
        Ok(()) => Ok(encoder.trust),
        Err(failure) => Err(Error::new(ErrorKind::Encode, failure.to_string())),
    }
}

/// Writes one value.
struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    form: Form,
    /// Number of levels that may still be opened.
    room: usize,
    max_depth: usize,
    /// Options and newtypes opened since the last byte.
    wrappers: u8,
    /// Position of the last `Some`, which writes no bytes.
    some_at: usize,
    trust: Trust,
}

impl Encoder<'_> {
    /// Begins an array or a map of `len` entries, if the number is known.
    fn open(&mut self, is_map: bool, len: Option<usize>) -> Result<usize, Failure> {
        let Some(room) = self.room.checked_sub(1) else {
            return Err(Failure::custom(format_args!("nested deeper than {} levels", self.max_depth)));
        };
        self.room = room;
        self.wrappers = 0;
        let start = self.out.len();
        self.form.open(self.out, is_map, len.unwrap_or(0));
        Ok(start)
    }

    /// Begins the map of one entry that encodes a variant with content.
    fn open_variant(&mut self, variant: &str) -> Result<(), Failure> {
        self.open(true, Some(1))?;
        self.form.str(self.out, variant);
        self.form.between(self.out);
        Ok(())
    }

    fn close_variant(&mut self) {
        self.room += 1;
        self.form.close(self.out, true);
    }

    fn wrapped<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        if self.wrappers == MAX_WRAPPERS {
            return Err(Failure::custom("options or newtypes are nested without end"));
        }
        self.wrappers += 1;
        value.serialize(&mut *self)?;
        self.wrappers = self.wrappers.saturating_sub(1);
        Ok(())
    }

    fn nil(&mut self) {
        // `Some` of this value reads as `None`.
        if self.some_at == self.out.len() {
            self.trust = Trust::Doubtful;
        }
        self.form.nil(self.out);
    }

    /// A number of serde_json with its feature `arbitrary_precision`.
    fn number(&mut self, text: &str) -> Result<(), Failure> {
        if let Ok(number) = text.parse() {
            self.form.int(self.out, number);
        } else if let Ok(number) = text.parse() {
            self.form.uint(self.out, number);
        } else if self.form == Form::Json {
            self.out.extend_from_slice(text.as_bytes());
        } else {
            let digits = text.split(['e', 'E']).next().unwrap_or(text).bytes();
            let is_exact = text.contains(['.', 'e', 'E']) && digits.filter(u8::is_ascii_digit).count() <= 17;
            match text.parse::<f64>() {
                Ok(number) if is_exact && number.is_finite() => self.form.float(self.out, number),
                _ => return Err(Failure::custom("a number beyond 64 bits has no exact MessagePack form")),
            }
        }
        Ok(())
    }

    /// Raw JSON text of serde_json.
    fn raw_json(&mut self, text: &str) -> Result<(), Failure> {
        self.trust = Trust::Doubtful;
        if self.form == Form::Json {
            self.out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        let value: Value = json::decode(text.as_bytes()).map_err(Failure::custom)?;
        value.serialize(self)
    }

    /// Removes the text written last, from `at` on, and returns it.
    fn take_text(&mut self, at: usize) -> Result<String, Failure> {
        let text = self.form.read_text(&self.out[at..]);
        self.out.truncate(at);
        text.ok_or_else(|| Failure::custom("expected text"))
    }
}

impl<'a, 'o> Serializer for &'a mut Encoder<'o> {
    type Ok = ();
    type Error = Failure;
    type SerializeSeq = Compound<'a, 'o>;
    type SerializeTuple = Compound<'a, 'o>;
    type SerializeTupleStruct = Compound<'a, 'o>;
    type SerializeTupleVariant = Compound<'a, 'o>;
    type SerializeMap = Compound<'a, 'o>;
    type SerializeStruct = Compound<'a, 'o>;
    type SerializeStructVariant = Compound<'a, 'o>;

    fn is_human_readable(&self) -> bool {
        true
    }

    fn serialize_bool(self, value: bool) -> Result<(), Failure> {
        self.form.bool(self.out, value);
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Failure> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Failure> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Failure> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Failure> {
        self.form.int(self.out, value);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), Failure> {
        // serde cannot buffer such a number, which some enums require.
        self.trust = Trust::Doubtful;
        match i64::try_from(value) {
            Ok(value) => self.serialize_i64(value),
            Err(_) => match u64::try_from(value) {
                Ok(value) => self.serialize_u64(value),
                Err(_) => self.form.wide(self.out, value.to_be_bytes()),
            },
        }
    }

    fn serialize_u8(self, value: u8) -> Result<(), Failure> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Failure> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Failure> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Failure> {
        self.form.uint(self.out, value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Failure> {
        self.trust = Trust::Doubtful;
        match u64::try_from(value) {
            Ok(value) => self.serialize_u64(value),
            Err(_) => self.form.wide(self.out, value.to_be_bytes()),
        }
    }

    fn serialize_f32(self, value: f32) -> Result<(), Failure> {
        self.form.check_float(value.into())?;
        self.form.float32(self.out, value);
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Failure> {
        self.form.check_float(value)?;
        self.form.float(self.out, value);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Failure> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Failure> {
        self.form.str(self.out, value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Failure> {
        self.form.bytes(self.out, value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Failure> {
        self.nil();
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Failure> {
        self.form.some(self.out);
        self.some_at = self.out.len();
        self.wrapped(value)
    }

    fn serialize_unit(self) -> Result<(), Failure> {
        self.nil();
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Failure> {
        match self.form {
            Form::Json => self.nil(),
            Form::MessagePack | Form::Fingerprint => self.form.open(self.out, false, 0),
        }
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Failure> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Failure> {
        self.wrapped(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Failure> {
        self.open_variant(variant)?;
        value.serialize(&mut *self).map_err(|failure| failure.within(variant))?;
        self.close_variant();
        Ok(())
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'a, 'o>, Failure> {
        Compound::array(self, len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'a, 'o>, Failure> {
        Compound::array(self, Some(len))
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Compound<'a, 'o>, Failure> {
        Compound::array(self, Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a, 'o>, Failure> {
        self.open_variant(variant)?;
        Ok(Compound::array(self, Some(len))?.of_variant())
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'a, 'o>, Failure> {
        Compound::map(self, len)
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Compound<'a, 'o>, Failure> {
        match name {
            NUMBER => Ok(Compound::number(self)),
            RAW_VALUE => Ok(Compound::raw_json(self)),
            _ => Compound::map(self, Some(len)),
        }
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a, 'o>, Failure> {
        self.open_variant(variant)?;
        Ok(Compound::map(self, Some(len))?.of_variant())
    }

    fn collect_seq<I>(self, items: I) -> Result<(), Failure>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let items = items.into_iter();
        let len = match items.size_hint() {
            (least, Some(most)) if least == most => Some(least),
            _ => None,
        };
        if let Some(len) = len
            && self.form.has_bytes()
            && is_byte::<I::Item>()
        {
            return write_bytes(self, items, len);
        }
        let mut array = Compound::array(self, len)?;
        for item in items {
            array.element(&item)?;
        }
        array.close()
    }
}

/// True for `u8`. serde passes the bytes of a `Vec<u8>` one by one, as numbers.
fn is_byte<T>() -> bool {
    matches!(std::any::type_name::<T>(), "u8" | "&u8")
}

fn write_bytes<T: Serialize>(
    encoder: &mut Encoder<'_>,
    items: impl Iterator<Item = T>,
    len: usize,
) -> Result<(), Failure> {
    encoder.form.open_bytes(encoder.out, len);
    encoder.out.reserve(len + 1);
    let first = encoder.out.len();
    for item in items {
        let at = encoder.out.len();
        item.serialize(&mut *encoder)?;
        // A small number is one byte. A larger one has a marker before it.
        let byte = encoder.out.last().copied().unwrap_or_default();
        encoder.out.truncate(at);
        encoder.out.push(byte);
    }
    if encoder.out.len() - first == len {
        Ok(())
    } else {
        Err(Failure::custom("an iterator of bytes told another length than it has"))
    }
}

#[cfg(test)]
mod tests;
