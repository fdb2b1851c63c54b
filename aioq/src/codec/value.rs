//! A decoded value of unknown type, from either format.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Name and only key of the map by which serde_json passes a number to other formats with its
/// feature `arbitrary_precision`, which any crate of a build can enable.
pub(super) const NUMBER: &str = "$serde_json::private::Number";

/// Name and only key for raw JSON text.
pub(super) const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Values of MessagePack and JSON, and bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    Seq(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// Replaces keys that JSON does not allow by text. A compound key becomes the name of its kind:
    /// quoted as JSON, nested keys would grow without limit.
    pub(super) fn with_plain_keys(self) -> Self {
        let plain_key = |key: Self| match key {
            Self::Null => Self::Str("null".to_owned()),
            Self::Float(number) => Self::Str(number.to_string()),
            Self::Bytes(bytes) => Self::Str(String::from_utf8_lossy(&bytes).into_owned()),
            Self::Seq(_) => Self::Str("[..]".to_owned()),
            Self::Map(_) => Self::Str("{..}".to_owned()),
            key => key,
        };
        match self {
            Self::Seq(values) => Self::Seq(values.into_iter().map(Self::with_plain_keys).collect()),
            Self::Map(entries) => {
                let plain = |(key, value): (Self, Self)| (plain_key(key), value.with_plain_keys());
                Self::Map(entries.into_iter().map(plain).collect())
            }
            other => other,
        }
    }
}

/// The last entry of each name, as in Python.
pub(super) fn last_of_each(entries: Vec<(Value, Value)>) -> Vec<(Value, Value)> {
    let mut places: HashMap<String, usize> = HashMap::with_capacity(entries.len());
    let mut kept: Vec<(Value, Value)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let Value::Str(name) = &key else {
            kept.push((key, value));
            continue;
        };
        match places.entry(name.clone()) {
            Entry::Occupied(place) => kept[*place.get()].1 = value,
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push((key, value));
            }
        }
    }
    kept
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        Value::deserialize(inner)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        Value::deserialize(inner)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Uint(value), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Str(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Str(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        // No capacity from the size hint, which may be wrong.
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Seq(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(number_of(&entries).unwrap_or(Value::Map(entries)))
    }
}

/// The number that such a map stands for.
fn number_of(entries: &[(Value, Value)]) -> Option<Value> {
    let [(Value::Str(key), Value::Str(text))] = entries else { return None };
    if key != NUMBER {
        return None;
    }
    let number = text.parse().map(Value::Int).or_else(|_| text.parse().map(Value::Uint));
    number.or_else(|_| text.parse().map(Value::Float)).ok()
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Uint(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Str(value) => serializer.serialize_str(value),
            Self::Bytes(value) => serializer.serialize_bytes(value),
            Self::Seq(values) => {
                let mut seq = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| seq.serialize_element(value))?;
                seq.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}
