//! Encoded values that are made of encoded values, without decoding them.

use bytes::Bytes;

use super::super::Payload;
use super::{ArgsEncoder, Arguments, Codec, Reader, Writer, json};
use crate::error::Result;

impl Payload {
    /// An array of these values.
    pub(crate) fn array(codec: Codec, values: &[Self]) -> Self {
        let recoded = values.iter().map(|value| value.recoded(codec));
        let bytes = match codec {
            Codec::MessagePack => {
                let mut array = Writer::new();
                array.array(values.len());
                recoded.for_each(|value| array.raw(value.as_bytes()));
                array.finish()
            }
            Codec::Json => {
                let mut array = vec![b'['];
                for (index, value) in recoded.enumerate() {
                    if index > 0 {
                        array.push(b',');
                    }
                    array.extend_from_slice(value.as_bytes());
                }
                array.push(b']');
                array.into()
            }
        };
        Self { codec, bytes }
    }

    /// The variant of an enum that contains this value, as `Ok` of a `Result`.
    pub(crate) fn in_variant(&self, name: &str) -> Self {
        let bytes = match self.codec {
            Codec::MessagePack => {
                let mut variant = Writer::new();
                variant.map(1);
                variant.str(name);
                variant.raw(&self.bytes);
                variant.finish()
            }
            Codec::Json => {
                let (name, value) = (json::to_string(name), &self.bytes);
                Bytes::from([b"{", name.as_bytes(), b":", value, b"}"].concat())
            }
        };
        Self { codec: self.codec, bytes }
    }
}

impl Arguments {
    /// These arguments and others, by name.
    ///
    /// # Errors
    /// [`Decode`](crate::ErrorKind::Decode) if these are no map.
    pub(crate) fn with(&self, added: impl IntoIterator<Item = (impl AsRef<str>, Payload)>) -> Result<Self> {
        let mut all = ArgsEncoder::resume(self)?;
        for (name, value) in added {
            all.encoded(name.as_ref(), &value);
        }
        let all = Self { reading: self.reading, ..all.finish() };
        Ok(Self { positional: self.positional.clone(), ..all })
    }
}

impl ArgsEncoder {
    /// A writer that adds to named arguments.
    fn resume(arguments: &Arguments) -> Result<Self> {
        let named = arguments.named();
        let mut resumed = Self::new(arguments.codec());
        match resumed.codec {
            Codec::MessagePack => {
                let mut reader = Reader::new(named);
                resumed.count = reader.map()?;
                resumed.entries.extend_from_slice(reader.rest());
            }
            Codec::Json => {
                let open = named.trim_ascii();
                let open = open.strip_suffix(b"}").unwrap_or(open).trim_ascii_end();
                // The writer puts the brace before its first entry.
                if open != b"{" {
                    resumed.count = 1;
                    resumed.entries.extend_from_slice(open);
                }
            }
        }
        Ok(resumed)
    }

    /// Adds an encoded argument.
    fn encoded(&mut self, name: &str, value: &Payload) {
        self.name(name);
        self.entries.extend_from_slice(value.recoded(self.codec).as_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_are_joined_as_if_they_had_been_encoded_together() {
        for codec in [Codec::MessagePack, Codec::Json] {
            for other in [Codec::MessagePack, Codec::Json] {
                let values: Vec<_> = [1, 2].map(|value| other.encode(&value).unwrap()).into();
                assert_eq!(Payload::array(codec, &values), codec.encode(&[1, 2]).unwrap());
            }
            assert_eq!(Payload::array(codec, &[]), codec.encode(&Vec::<i32>::new()).unwrap());
            let ok = codec.encode(&"text").unwrap().in_variant("Ok");
            assert_eq!(ok, codec.encode(&Ok::<_, ()>("text")).unwrap());
            let own = Arguments::from_json(codec, r#"{"depth": 3}"#).unwrap();
            let page = codec.encode(&(1, "page")).unwrap();
            let all = own.with([("page", page.clone()), ("more", page.clone())]).unwrap();
            assert_eq!(all.to_json(), r#"{"depth":3,"page":[1,"page"],"more":[1,"page"]}"#);
            let none = Arguments::from_json(codec, "{}").unwrap();
            assert_eq!(none.with([("page", page)]).unwrap().to_json(), r#"{"page":[1,"page"]}"#);
        }
        let spaced = Arguments::from_named(Codec::Json, Bytes::from_static(b" {\"a\" : 1 } "));
        let all = spaced.with([("b", Codec::Json.encode(&2).unwrap())]).unwrap();
        assert_eq!(all.to_json(), r#"{"a":1,"b":2}"#);
    }
}
