//! Serializer of arrays and maps.

use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
};

use super::failure::Failure;
use super::{Encoder, Form, Trust};

/// An array or a map, partly written.
pub(in crate::codec) struct Compound<'a, 'o> {
    encoder: &'a mut Encoder<'o>,
    kind: Kind,
    /// True for the content of a variant.
    in_variant: bool,
    /// Its position in the output.
    start: usize,
    /// Announced number of entries.
    told: usize,
    /// Number of entries so far.
    count: usize,
    /// Position of the current entry.
    entry_at: usize,
    /// Sum of the entries, in a fingerprint.
    sum: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array,
    Map,
    /// A number of serde_json, as text.
    Number,
    /// Raw JSON text of serde_json.
    RawJson,
}

impl<'a, 'o> Compound<'a, 'o> {
    pub(super) fn array(encoder: &'a mut Encoder<'o>, len: Option<usize>) -> Result<Self, Failure> {
        let start = encoder.open(false, len)?;
        Ok(Self::new(encoder, Kind::Array, start, len))
    }

    pub(super) fn map(encoder: &'a mut Encoder<'o>, len: Option<usize>) -> Result<Self, Failure> {
        let start = encoder.open(true, len)?;
        Ok(Self::new(encoder, Kind::Map, start, len))
    }

    pub(super) fn number(encoder: &'a mut Encoder<'o>) -> Self {
        let start = encoder.out.len();
        Self::new(encoder, Kind::Number, start, None)
    }

    pub(super) fn raw_json(encoder: &'a mut Encoder<'o>) -> Self {
        let start = encoder.out.len();
        Self::new(encoder, Kind::RawJson, start, None)
    }

    fn new(encoder: &'a mut Encoder<'o>, kind: Kind, start: usize, len: Option<usize>) -> Self {
        let entry_at = encoder.out.len();
        let told = len.unwrap_or(0);
        Self { encoder, kind, in_variant: false, start, told, count: 0, entry_at, sum: 0 }
    }

    /// The same, as the content of a variant.
    pub(super) fn of_variant(mut self) -> Self {
        self.in_variant = true;
        self
    }

    fn begin_entry(&mut self) {
        self.encoder.form.before(self.encoder.out, self.count == 0);
        self.entry_at = self.encoder.out.len();
        self.count += 1;
    }

    /// In a fingerprint, only the hash of an entry is kept.
    fn end_entry(&mut self) {
        if self.encoder.form == Form::Fingerprint {
            self.sum = self.sum.wrapping_add(Form::hash(&self.encoder.out[self.entry_at..]));
            self.encoder.out.truncate(self.entry_at);
        }
    }

    pub(super) fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        self.begin_entry();
        value.serialize(&mut *self.encoder)?;
        self.end_entry();
        Ok(())
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failure> {
        self.begin_entry();
        key.serialize(&mut *self.encoder)?;
        if self.encoder.form == Form::Json {
            self.key_as_text()?;
        }
        self.encoder.form.between(self.encoder.out);
        Ok(())
    }

    /// Turns the key that was just written into text.
    fn key_as_text(&mut self) -> Result<(), Failure> {
        match self.encoder.out.get(self.entry_at) {
            Some(b'"') => {}
            Some(b'[' | b'{' | b'n') | None => {
                return Err(Failure::custom("the keys of a JSON object are text"));
            }
            Some(_) => {
                self.encoder.out.insert(self.entry_at, b'"');
                self.encoder.out.push(b'"');
                // Some enums of serde cannot turn such a key back.
                self.encoder.trust = Trust::Doubtful;
            }
        }
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        value.serialize(&mut *self.encoder).map_err(|failure| self.within_entry(failure))?;
        self.end_entry();
        Ok(())
    }

    /// Adds the key of the entry to the failure.
    #[cold]
    fn within_entry(&self, failure: Failure) -> Failure {
        let written = &self.encoder.out[self.entry_at..];
        // Only the key: JSON allows nothing after it.
        let key = match self.encoder.form {
            Form::Json => {
                let mut values = serde_json::Deserializer::from_slice(written).into_iter::<String>();
                values.next().and_then(Result::ok)
            }
            form => form.read_text(written),
        };
        match key {
            Some(key) => failure.within(&key),
            None => failure,
        }
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Failure> {
        match self.kind {
            Kind::Number | Kind::RawJson => return self.text_of_json(value),
            Kind::Array | Kind::Map => {}
        }
        self.begin_entry();
        self.encoder.form.str(self.encoder.out, name);
        self.encoder.form.between(self.encoder.out);
        value.serialize(&mut *self.encoder).map_err(|failure| failure.within(name))?;
        self.end_entry();
        Ok(())
    }

    fn text_of_json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        value.serialize(&mut *self.encoder)?;
        let text = self.encoder.take_text(self.start)?;
        match self.kind {
            Kind::Number => self.encoder.number(&text),
            _ => self.encoder.raw_json(&text),
        }
    }

    pub(super) fn close(self) -> Result<(), Failure> {
        let is_map = match self.kind {
            Kind::Array => false,
            Kind::Map => true,
            Kind::Number | Kind::RawJson => return Ok(()),
        };
        let encoder = self.encoder;
        if self.count != self.told {
            encoder.form.correct(encoder.out, is_map, self.start, self.told, self.count);
        }
        if encoder.form == Form::Fingerprint {
            encoder.out.extend_from_slice(&self.sum.to_be_bytes());
        }
        encoder.form.close(encoder.out, is_map);
        encoder.room += 1;
        if self.in_variant {
            encoder.close_variant();
        }
        Ok(())
    }
}

macro_rules! elements {
    ($($kind:ident: $method:ident),* $(,)?) => {$(
        impl $kind for Compound<'_, '_> {
            type Ok = ();
            type Error = Failure;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
                self.element(value)
            }

            fn end(self) -> Result<(), Failure> {
                self.close()
            }
        }
    )*};
}

elements! {
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
}

macro_rules! fields {
    ($($kind:ident),*) => {$(
        impl $kind for Compound<'_, '_> {
            type Ok = ();
            type Error = Failure;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Failure> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Failure> {
                self.close()
            }
        }
    )*};
}

fields!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = Failure;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failure> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        self.value(value)
    }

    fn end(self) -> Result<(), Failure> {
        self.close()
    }
}
