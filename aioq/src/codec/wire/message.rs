//! A message as a taskiq `TaskiqMessage`.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::labels::{self, RawLabel, WireLabel};
use crate::codec::arguments::whole;
use crate::codec::msgpack::{NIL, Reader, Writer, utf8};
use crate::codec::value::Value;
use crate::codec::{Arguments, Codec, decode_error, json};
use crate::error::Result;
use crate::message::{JobId, Message, Name, check_id};

/// Encodes a message in the codec of its arguments.
pub(crate) fn encode_message(message: &Message) -> Bytes {
    match message.arguments.codec {
        Codec::MessagePack => encode_msgpack(message),
        Codec::Json => encode_json(message),
    }
}

/// What is known of a message before it is read, so that it need not be copied from there.
pub(crate) struct Known<'a> {
    pub(crate) id: &'a JobId,
    pub(crate) queue: &'a Name,
    /// The task of that name, if it is known by exactly that one.
    pub(crate) task: &'a mut dyn FnMut(&str) -> Option<Name>,
}

/// Decodes a message in either codec.
pub(crate) fn decode_message(body: &Bytes, known: Option<Known<'_>>) -> Result<Message> {
    let mut message = match Codec::detect(body)? {
        Codec::MessagePack => decode_msgpack(body, known),
        Codec::Json => decode_json(body),
    }?;
    labels::finish(&mut message);
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
    out.raw(&arguments.named);
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
    whole(&reader)?;
    let (args, kwargs) = (required(args, "args")?, required(kwargs, "kwargs")?);
    Reader::new(args).array().map_err(|error| error.context("args"))?;
    Reader::new(kwargs).map().map_err(|error| error.context("kwargs"))?;
    let arguments = Arguments::named(Codec::MessagePack, body.slice_ref(kwargs)).and_positional(args, body);
    let (id, task) = (required(id, "task_id")?, required(task, "task_name")?);
    let id = match &known {
        Some(known) if known.id.as_str().as_bytes() == id => known.id.clone(),
        _ => utf8(id)?.into(),
    };
    check_id(id.as_str())?;
    let task = known.as_mut().and_then(|known| (known.task)(task)).unwrap_or_else(|| task.into());
    let mut message = Message::new(id, task, arguments);
    let queue = known.map(|known| known.queue);
    let mut labels = Reader::new(required(labels, "labels")?);
    for _ in 0..labels.map()? {
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
    let kind = types.find(name)?;
    if !labels.is_at_text() {
        let label = foreign_label(Codec::MessagePack.value(labels.raw()?)?);
        return labels::read(message, utf8(name)?, label, kind);
    }
    let text = labels.text()?;
    // What is in nearly all messages, without a look at what it could be else.
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

/// The types of labels. They come in the order of the labels from every writer that we know.
struct Types<'a> {
    count: usize,
    all: Reader<'a>,
    /// Those behind the one that was found last.
    rest: Reader<'a>,
}

impl<'a> Types<'a> {
    fn none() -> Self {
        Self { count: 0, all: Reader::new(&[]), rest: Reader::new(&[]) }
    }

    fn of(table: &'a [u8]) -> Result<Self> {
        if table == NIL {
            return Ok(Self::none());
        }
        let mut all = Reader::new(table);
        let count = all.map()?;
        Ok(Self { count, all, rest: all })
    }

    fn find(&mut self, name: &[u8]) -> Result<Option<i64>> {
        if self.rest.is_empty() {
            self.rest = self.all;
        }
        for _ in 0..self.count {
            let (typed, kind) = (self.rest.text()?, self.rest.raw()?);
            if typed == name {
                return Reader::new(kind)
                    .small_int()
                    .map_or_else(|| Codec::MessagePack.decode(kind), Ok)
                    .map(Some);
            }
            if self.rest.is_empty() {
                self.rest = self.all;
            }
        }
        Ok(None)
    }
}

/// A label that is no string: what a producer other than taskiq may write.
fn foreign_label(value: Value) -> RawLabel<'static> {
    match value {
        Value::Null => RawLabel::Null,
        Value::Bool(value) => RawLabel::Bool(value),
        Value::Int(number) => RawLabel::Int(number),
        Value::Uint(number) => RawLabel::Float(number as f64),
        Value::Float(number) => RawLabel::Float(number),
        Value::Str(text) => RawLabel::Str(text.into()),
        // Kept as text: a label is a small value.
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
    // Arguments whose codec is JSON are JSON; kept to the letter, numbers beyond 64 bits included.
    let raw = |bytes: &'_ [u8]| json::decode::<Box<RawValue>>(bytes).unwrap_or_default();
    let out = JsonOut {
        task_id: message.id.as_str(),
        task_name: &message.task,
        labels: OrderedMap(labels.iter().map(|label| (label.name, label.text.to_text())).collect()),
        labels_types: OrderedMap(labels.iter().map(|label| (label.name, label.kind)).collect()),
        args: &raw(message.arguments.positional()),
        kwargs: &raw(&message.arguments.named),
    };
    json::to_string(&out).into()
}

/// A JSON message. Duplicate keys: the last one counts, as in Python.
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
    let arguments = Arguments::named(Codec::Json, named).and_positional(args.get().as_bytes(), body);
    let id: JobId = required(fields.task_id, "task_id")?.into();
    id.check()?;
    let mut message = Message::new(id, required(fields.task_name, "task_name")?, arguments);
    let types = fields.labels_types.unwrap_or_default();
    let labels = required(fields.labels, "labels")?;
    for (name, value) in labels {
        labels::read(&mut message, &name, foreign_label(value), types.get(&name).copied())?;
    }
    Ok(message)
}
