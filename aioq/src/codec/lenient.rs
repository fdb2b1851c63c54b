//! Decoding with lossless casts: `"5"` as a number or a boolean, a whole float as an integer.
//!
//! Used only after strict decoding failed, so it costs nothing where types agree. The
//! rules come from taskiq, which parses parameters with pydantic in lax mode.

use serde::Deserialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, EnumAccess, Error as _, IntoDeserializer, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::{Value, decode_error};
use crate::error::Result;

mod failure;

use self::failure::Failure;

/// Decodes a value as a `T`. Errors quote values only if `quotes` is true.
pub(super) fn from_value<'de, T: Deserialize<'de>>(value: Value, quotes: bool) -> Result<T> {
    T::deserialize(Lenient(value)).map_err(|failure| decode_error(failure.text(quotes)))
}

pub(super) struct Lenient(Value);

impl Lenient {
    /// The scalar that a text spells; other values unchanged.
    fn scalar(self) -> Value {
        let Value::Str(text) = &self.0 else { return self.0 };
        let text = text.trim();
        let int = text.parse().map(Value::Int);
        let number =
            int.or_else(|_| text.parse().map(Value::Uint)).or_else(|_| text.parse().map(Value::Float));
        match text.to_ascii_lowercase().as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => number.unwrap_or(self.0),
        }
    }

    /// The bytes of a number beyond 64 bits, in the form of MessagePack.
    fn wide(self) -> Result<[u8; 16], Self> {
        match &self.0 {
            Value::Bytes(bytes) => <[u8; 16]>::try_from(bytes.as_slice()).map_err(|_| self),
            _ => Err(self),
        }
    }

    /// The value as a whole number, from any form of one.
    fn whole(self) -> Value {
        match self.scalar() {
            // Whole, and within the integers that a float holds exactly.
            Value::Float(float) if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 => {
                Value::Int(float as i64)
            }
            other => other,
        }
    }
}

impl<'de> IntoDeserializer<'de, Failure> for Value {
    type Deserializer = Lenient;

    fn into_deserializer(self) -> Lenient {
        Lenient(self)
    }
}

macro_rules! cast {
    ($cast:ident: $($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            Lenient(self.$cast()).deserialize_any(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Int(value) => visitor.visit_i64(value),
            Value::Uint(value) => visitor.visit_u64(value),
            Value::Float(value) => visitor.visit_f64(value),
            Value::Str(value) => visitor.visit_string(value),
            // Passed as numbers: serde hands buffered bytes, as in an enum with a tag, to no
            // `Vec<u8>`.
            Value::Bytes(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.into_iter())),
            Value::Seq(values) => {
                let mut values = SeqDeserializer::new(values.into_iter());
                let visited = visitor.visit_seq(&mut values)?;
                // Remaining items would be lost.
                values.end()?;
                Ok(visited)
            }
            Value::Map(entries) => {
                let mut entries = MapDeserializer::new(entries.into_iter());
                let visited = visitor.visit_map(&mut entries)?;
                entries.end()?;
                Ok(visited)
            }
        }
    }

    cast!(whole: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
                 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64);
    cast!(scalar: deserialize_f32 deserialize_f64 deserialize_bool);

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.wide() {
            Ok(bytes) => visitor.visit_i128(i128::from_be_bytes(bytes)),
            Err(other) => Self(other.whole()).deserialize_any(visitor),
        }
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.wide() {
            Ok(bytes) => visitor.visit_u128(u128::from_be_bytes(bytes)),
            Err(other) => Self(other.whole()).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0 {
            Value::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.0 {
            Value::Map(mut entries) if entries.len() == 1 => match entries.pop() {
                Some((variant, content)) => {
                    visitor.visit_enum(LenientEnum { variant, content: Some(content) })
                }
                None => Err(Failure::custom("an enum without a variant")),
            },
            variant => visitor.visit_enum(LenientEnum { variant, content: None }),
        }
    }

    forward_to_deserialize_any! {
        char seq unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

struct LenientEnum {
    variant: Value,
    content: Option<Value>,
}

impl<'de> EnumAccess<'de> for LenientEnum {
    type Error = Failure;
    type Variant = Lenient;

    fn variant_seed<S: serde::de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Lenient), Failure> {
        let variant = seed.deserialize(Lenient(self.variant))?;
        Ok((variant, Lenient(self.content.unwrap_or(Value::Null))))
    }
}

impl<'de> VariantAccess<'de> for Lenient {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        serde::Deserialize::deserialize(self)
    }

    fn newtype_variant_seed<S: serde::de::DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Failure> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_any(visitor)
    }
}
