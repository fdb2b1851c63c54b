//! A message as a taskiq `TaskiqMessage`.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::labels::{self, RawLabel, WireLabel};
use crate::codec::msgpack::{NIL, Reader, Writer, utf8};
use crate::codec::{Arguments, Codec, Value, decode_error, json};
use crate::error::Result;
use crate::message::{Envelope, JobId, MAX_LABELS, Message, Name, check_id, check_task_name};

impl Message {
    /// Encodes the message, in the codec of its arguments. The only way into an [`Envelope`].
    #[must_use]
    pub fn seal(&self) -> Envelope {
        let body = match self.arguments.codec() {
            Codec::MessagePack => encode_msgpack(self),
            Codec::Json => encode_json(self),
        };
        Envelope {
            id: self.id.clone(),
            attempt: self.attempt,
            queue: self.queue.clone(),
            priority: self.priority,
            not_before: self.run_at,
            expires_at: self.expires_at,
            body,
        }
    }

    /// Decodes the body of an envelope, MessagePack or JSON.
    ///
    /// # Errors
    /// [`Decode`](crate::ErrorKind::Decode) for anything that is not a taskiq message. A length in
    /// the bytes never decides how much is allocated.
    pub fn open(body: &Bytes) -> Result<Self> {
        decode(body, None)
    }

    /// The base revision of an encoded message; 0 for one that cannot be read.
    pub(crate) fn base_revision_of(body: &Bytes) -> u64 {
        Self::open(body).map_or(0, |message| message.base_revision())
    }

    /// Decodes the body of an envelope, without copying values that are `known` already.
    pub(crate) fn open_known(body: &Bytes, known: Known<'_>) -> Result<Self> {
        decode(body, Some(known))
    }
}

/// Values of a message that the caller has already, so that they need not be copied from the body.
pub(crate) struct Known<'a> {
    pub(crate) id: &'a JobId,
    pub(crate) queue: &'a Name,
    /// Finds the task of exactly that name.
    pub(crate) task: &'a mut dyn FnMut(&str) -> Option<Name>,
}

fn decode(body: &Bytes, known: Option<Known<'_>>) -> Result<Message> {
    let mut message = match Codec::detect(body)? {
        Codec::MessagePack => decode_msgpack(body, known),
        Codec::Json => decode_json(body),
    }?;
    labels::finish(&mut message);
    // A message that is sent again needs room for aioq's own labels.
    if message.labels.len() > MAX_LABELS {
        return Err(decode_error(format!("{} labels, at most {MAX_LABELS} are read", message.labels.len())));
    }
    Ok(message)
}

fn encode_msgpack(message: &Message) -> Bytes {
    let labels = labels::of_message(message);
    let arguments = &message.arguments;
    let mut out = Writer::new();
    out.map(6);
    out.str("task_id");
    out.str(message.id.as_str());
    out.str("task_name");
    out.str(&message.task);
    out.str("labels");
    out.map(labels.len());
    for WireLabel { name, text, .. } in &labels {
        out.str(name);
        text.write(&mut out);
    }
    out.str("labels_types");
    out.map(labels.len());
    for WireLabel { name, kind, .. } in &labels {
        out.str(name);
        out.int(*kind);
    }
    out.str("args");
    out.raw(arguments.positional());
    out.str("kwargs");
    out.raw(arguments.named());
    out.finish()
}

fn decode_msgpack(body: &Bytes, mut known: Option<Known<'_>>) -> Result<Message> {
    let mut reader = Reader::new(body);
    let (mut id, mut task, mut labels, mut types, mut args, mut kwargs) =
        (None, None, None, Types::none(), None, None);
    for _ in 0..reader.map()? {
        match reader.text()? {
            b"task_id" => id = Some(reader.text()?),
            b"task_name" => task = Some(reader.str()?),
            b"labels" => labels = Some(reader.raw()?),
            b"labels_types" => types = Types::of(reader.raw()?)?,
            b"args" => args = Some(reader.raw()?),
            b"kwargs" => kwargs = Some(reader.raw()?),
            other => {
                utf8(other)?;
                reader.raw()?;
            }
        }
    }
    reader.expect_end()?;
    let (args, kwargs) = (required(args, "args")?, required(kwargs, "kwargs")?);
    Reader::new(args).array().map_err(|error| error.context("args"))?;
    Reader::new(kwargs).map().map_err(|error| error.context("kwargs"))?;
    let arguments =
        Arguments::from_named(Codec::MessagePack, body.slice_ref(kwargs)).and_positional(args, body);
    let (id, task) = (required(id, "task_id")?, required(task, "task_name")?);
    let id = match &known {
        Some(known) if known.id.as_str().as_bytes() == id => known.id.clone(),
        _ => utf8(id)?.into(),
    };
    check_id(id.as_str())?;
    check_task_name(task)?;
    let task = known.as_mut().and_then(|known| (known.task)(task)).unwrap_or_else(|| task.into());
    let mut message = Message::new(id, task, arguments);
    let queue = known.map(|known| known.queue);
    let mut labels = Reader::new(required(labels, "labels")?);
    let count = labels.map()?;
    check_count(count)?;
    for _ in 0..count {
        read_label(&mut message, &mut labels, &mut types, queue)?;
    }
    Ok(message)
}

fn read_label(
    message: &mut Message,
    labels: &mut Reader<'_>,
    types: &mut Types<'_>,
    queue: Option<&Name>,
) -> Result<()> {
    let name = labels.text()?;
    labels::check_name(name)?;
    let kind = types.find(name)?;
    if !labels.is_at_text() {
        let label = foreign_label(Codec::MessagePack.value(labels.raw()?)?);
        return labels::read(message, utf8(name)?, label, kind);
    }
    let text = labels.text()?;
    // Fast path for a label of nearly every message.
    if let Some(queue) = queue.filter(|queue| name == b"queue_name" && queue.as_bytes() == text) {
        message.queue = queue.clone();
        return Ok(());
    }
    if kind == Some(labels::INT)
        && let Some(number) = labels::digits(text)
        && labels::read_number(message, name, number)?
    {
        return Ok(());
    }
    labels::read(message, utf8(name)?, RawLabel::Str(utf8(text)?.into()), kind)
}

/// The types of labels. All known writers write them in the order of the labels.
struct Types<'a> {
    count: usize,
    /// Types not asked for yet, as long as all were asked for in their order.
    rest: Reader<'a>,
    all: Reader<'a>,
    /// All types, from the first request out of order on.
    by_name: Option<HashMap<&'a [u8], &'a [u8], RandomState>>,
}

impl<'a> Types<'a> {
    fn none() -> Self {
        Self { count: 0, rest: Reader::new(&[]), all: Reader::new(&[]), by_name: None }
    }

    fn of(table: &'a [u8]) -> Result<Self> {
        if table == NIL {
            return Ok(Self::none());
        }
        let mut all = Reader::new(table);
        let count = all.map()?;
        check_count(count)?;
        Ok(Self { count, rest: all, all, by_name: None })
    }

    fn find(&mut self, name: &[u8]) -> Result<Option<i64>> {
        if self.by_name.is_none() && !self.rest.is_empty() {
            let (typed, kind) = (self.rest.text()?, self.rest.raw()?);
            if typed == name {
                return kind_of(kind).map(Some);
            }
        }
        if self.count == 0 {
            return Ok(None);
        }
        let kind = self.index()?.get(name).copied();
        kind.map(kind_of).transpose()
    }

    /// The last type of each name, as in Python.
    fn index(&mut self) -> Result<&HashMap<&'a [u8], &'a [u8], RandomState>> {
        if self.by_name.is_none() {
            let (mut all, mut by_name) = (self.all, HashMap::default());
            for _ in 0..self.count {
                by_name.insert(all.text()?, all.raw()?);
            }
            self.by_name = Some(by_name);
        }
        Ok(self.by_name.get_or_insert_default())
    }
}

fn kind_of(kind: &[u8]) -> Result<i64> {
    Reader::new(kind).small_int().map_or_else(|| Codec::MessagePack.decode(kind), Ok)
}

/// Number of labels that aioq itself may add.
const OWN_LABELS: usize = 24;

fn check_count(count: usize) -> Result<()> {
    if count <= MAX_LABELS + OWN_LABELS {
        Ok(())
    } else {
        Err(decode_error(format!("{count} labels, at most {MAX_LABELS} are read")))
    }
}

/// A label that is not a string, from a producer other than taskiq.
fn foreign_label(value: Value) -> RawLabel<'static> {
    match value {
        Value::Null => RawLabel::Null,
        Value::Bool(value) => RawLabel::Bool(value),
        Value::Int(number) => RawLabel::Int(number),
        Value::Uint(number) => RawLabel::Float(number as f64),
        Value::Float(number) => RawLabel::Float(number),
        Value::Str(text) => RawLabel::Str(text.into()),
        // Stored as text, because labels are small values.
        value => RawLabel::Str(json::to_string(&value).into()),
    }
}

fn required<T>(value: Option<T>, key: &str) -> Result<T> {
    value.ok_or_else(|| decode_error(format!("`{key}` is missing")))
}

#[derive(Serialize)]
struct JsonOut<'a> {
    task_id: &'a str,
    task_name: &'a str,
    labels: OrderedMap<'a, Cow<'a, str>>,
    labels_types: OrderedMap<'a, i64>,
    args: &'a RawValue,
    kwargs: &'a RawValue,
}

struct OrderedMap<'a, T>(Vec<(&'a str, T)>);

impl<T: Serialize> Serialize for OrderedMap<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

fn encode_json(message: &Message) -> Bytes {
    let labels = labels::of_message(message);
    // Copied to the letter, numbers beyond 64 bits included.
    let raw = |bytes: &'_ [u8]| json::decode::<Box<RawValue>>(bytes).unwrap_or_default();
    let out = JsonOut {
        task_id: message.id.as_str(),
        task_name: &message.task,
        labels: OrderedMap(labels.iter().map(|label| (label.name, label.text.to_text())).collect()),
        labels_types: OrderedMap(labels.iter().map(|label| (label.name, label.kind)).collect()),
        args: &raw(message.arguments.positional()),
        kwargs: &raw(message.arguments.named()),
    };
    json::to_string(&out).into()
}

/// A JSON message. The last of duplicate keys counts, as in Python.
#[derive(Default)]
struct JsonIn<'a> {
    task_id: Option<String>,
    task_name: Option<String>,
    labels: Option<HashMap<String, Value>>,
    labels_types: Option<HashMap<String, i64>>,
    args: Option<&'a RawValue>,
    kwargs: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for JsonIn<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = JsonIn<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a taskiq message")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = JsonIn::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "task_id" => fields.task_id = Some(map.next_value()?),
                        "task_name" => fields.task_name = Some(map.next_value()?),
                        "labels" => fields.labels = Some(map.next_value()?),
                        "labels_types" => fields.labels_types = map.next_value()?,
                        "args" => fields.args = Some(map.next_value()?),
                        "kwargs" => fields.kwargs = Some(map.next_value()?),
                        _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

fn decode_json(body: &Bytes) -> Result<Message> {
    let fields: JsonIn<'_> = json::decode(body)?;
    let (args, kwargs) = (required(fields.args, "args")?, required(fields.kwargs, "kwargs")?);
    json::decode::<Vec<&RawValue>>(args.get().as_bytes()).map_err(|error| error.context("args"))?;
    json::decode::<HashMap<Cow<'_, str>, &RawValue>>(kwargs.get().as_bytes())
        .map_err(|error| error.context("kwargs"))?;
    let named = body.slice_ref(kwargs.get().as_bytes());
    let arguments = Arguments::from_named(Codec::Json, named).and_positional(args.get().as_bytes(), body);
    let id: JobId = required(fields.task_id, "task_id")?.into();
    id.check()?;
    let task = required(fields.task_name, "task_name")?;
    check_task_name(&task)?;
    let mut message = Message::new(id, task, arguments);
    let types = fields.labels_types.unwrap_or_default();
    let labels = required(fields.labels, "labels")?;
    check_count(labels.len().max(types.len()))?;
    for (name, value) in labels {
        labels::check_name(name.as_bytes())?;
        labels::read(&mut message, &name, foreign_label(value), types.get(&name).copied())?;
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::msgpack::steps;

    /// A message with `count` labels whose types are in another order; every third type is missing.
    fn labelled(count: usize) -> Bytes {
        let mut out = Writer::new();
        out.map(6);
        for (key, value) in [("task_id", "1"), ("task_name", "t")] {
            out.str(key);
            out.str(value);
        }
        out.str("labels");
        out.map(count);
        for label in 0..count {
            out.str(&format!("label-{label}"));
            out.str("7");
        }
        let typed: Vec<usize> = (0..count).rev().filter(|label| !label.is_multiple_of(3)).collect();
        out.str("labels_types");
        out.map(typed.len());
        for label in &typed {
            out.str(&format!("label-{label}"));
            out.int(labels::INT);
        }
        out.str("args");
        out.raw(&[0x90]);
        out.str("kwargs");
        out.raw(&[0x80]);
        out.finish()
    }

    #[test]
    fn twice_as_many_labels_take_twice_the_steps() {
        let [once, twice] = [64, 128].map(|count| {
            let body = labelled(count);
            let before = steps();
            let message = Message::open(&body).unwrap();
            assert_eq!(message.labels.len(), count);
            assert_eq!(message.labels["label-1"], crate::message::Label::Int(7));
            assert_eq!(message.labels["label-3"], "7".into());
            steps() - before
        });
        assert!(twice < once * 5 / 2, "{once} steps, then {twice}");
    }
}
