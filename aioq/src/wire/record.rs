//! A record as a taskiq `TaskiqResult` with keys of aioq's own, always MessagePack.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::labels;
use crate::codec::msgpack::{self, Reader, Writer};
use crate::codec::{Arguments, ByteBuf, Codec, Payload, Value, buffer, decode_error};
use crate::error::{JobError, Result};
use crate::message::{JobId, Label, Labels, MAX_TASK_NAME_BYTES, Message, Name, OnParentFailure, UniqueKey};
use crate::store::{JobRecord, Status};
use crate::time::Timestamp;

impl JobRecord {
    /// Encodes the record, for backends that store bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        // taskiq's keys first, then aioq's. Absent values are not written.
        let mut fields = Fields { count: 0, out: Writer::new() };
        write_result(&mut fields, self);
        write_job(&mut fields, self);
        write_times(&mut fields, self);
        let entries = fields.out.into_buffer();
        let record = Writer::map_of(fields.count, &entries);
        buffer::give_back(entries);
        record
    }

    /// Decodes a record. Fields of a newer version are kept, and written back.
    ///
    /// # Errors
    /// [`Decode`](crate::ErrorKind::Decode) for bytes that [`to_bytes`](Self::to_bytes) did not
    /// write.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let mut record = Self::unreadable(JobId::from(""), "", Status::Pending);
        let (mut args, mut kwargs) = (None, None);
        for _ in 0..reader.map()? {
            let key = reader.str()?;
            let raw = bytes.slice_ref(reader.raw()?);
            match key {
                "args" => args = Some(raw),
                "kwargs" => kwargs = Some(raw),
                _ => read_field(&mut record, key, &raw)
                    .map_err(|error| error.context(format_args!("`{key}`")))?,
            }
        }
        reader.expect_end()?;
        record.arguments = kwargs.map(|named| {
            let arguments = Arguments::from_named(Codec::MessagePack, named);
            match &args {
                Some(args) => arguments.and_positional(args, args),
                None => arguments,
            }
        });
        read_sealed(&mut record);
        if record.status != Status::Completed {
            record.result = None;
        }
        Ok(record)
    }
}

/// Fills arguments and labels from the sealed message, if the record does not repeat them.
fn read_sealed(record: &mut JobRecord) {
    if record.arguments.is_some() && !record.labels.is_empty() {
        return;
    }
    let sealed = record.message.as_ref().and_then(|message| Message::open(message).ok());
    if let Some(sealed) = sealed {
        record.arguments.get_or_insert(sealed.arguments);
        if record.labels.is_empty() {
            record.labels = sealed.labels;
        }
    }
}

struct Fields {
    count: usize,
    out: Writer,
}

impl Fields {
    fn key(&mut self, key: &str) -> &mut Writer {
        self.count += 1;
        self.out.str(key);
        &mut self.out
    }

    fn value<T: Serialize>(&mut self, key: &str, value: &T) {
        let mut bytes = Vec::new();
        // All values here are of aioq's own types, which have a MessagePack form.
        if Codec::MessagePack.encode_into(value, &mut bytes).is_ok() {
            self.key(key).raw(&bytes);
        }
    }
}

fn write_result(fields: &mut Fields, record: &JobRecord) {
    let failed = record.status.is_terminal() && record.status != Status::Completed;
    fields.key("is_err").bool(failed);
    fields.key("log").nil();
    match &record.result {
        Some(payload) => {
            let payload = payload.recoded(Codec::MessagePack);
            fields.key("return_value").raw(payload.as_bytes());
        }
        None => fields.key("return_value").nil(),
    }
    fields.key("execution_time").float(record.execution_time.as_secs_f64());
    labels::write_values(fields.key("labels"), &record.labels);
    match &record.error {
        Some(error) => fields.value("error", &Exception::of(error)),
        None => fields.key("error").nil(),
    }
}

fn write_job(fields: &mut Fields, record: &JobRecord) {
    fields.key("id").str(record.id.as_str());
    fields.key("task").str(&record.task);
    fields.key("queue").str(&record.queue);
    fields.key("status").str(record.status.as_str());
    fields.key("priority").int(record.priority.value().into());
    fields.key("attempt").int(record.attempt.into());
    fields.key("max_retries").int(record.max_retries.into());
    if record.starts > 0 {
        fields.key("starts").int(record.starts.into());
    }
    if record.solo > 0 {
        fields.key("solo").int(record.solo.into());
    }
    // The sealed message contains the arguments too. Large ones would not fit twice.
    let sealed = record.message.as_ref().and_then(|message| Message::open(message).ok());
    let repeated = sealed.is_some_and(|message| Some(&message.arguments) == record.arguments.as_ref());
    if let Some(arguments) = record.arguments.as_ref().filter(|_| !repeated) {
        let named = recoded(arguments.codec(), arguments.named());
        fields.key("kwargs").raw(&named);
        if arguments.has_positional() {
            let positional = recoded(arguments.codec(), arguments.positional());
            fields.key("args").raw(&positional);
        }
    }
    if let Some(worker_id) = &record.worker_id {
        fields.key("worker_id").str(worker_id);
    }
    if let Some(reason) = record.reason {
        fields.key("reason").str(reason.as_str());
    }
    if !record.errors.is_empty() {
        fields.value("errors", &record.errors);
    }
    if let Some(progress) = &record.progress {
        fields.value("progress", progress);
    }
    if !record.logs.is_empty() {
        fields.value("logs", &record.logs);
    }
    if !record.depends_on.is_empty() {
        fields.value("depends_on", &record.depends_on);
    }
    if record.on_parent_failure != OnParentFailure::Fail {
        fields.key("on_parent_failure").str(record.on_parent_failure.as_str());
    }
    if !record.delay.is_zero() {
        fields.key("delay").int(i64::try_from(record.delay.as_micros()).unwrap_or(i64::MAX));
    }
    if !record.takes.is_empty() {
        fields.value("takes", &record.takes);
    }
    if record.dead_lettered {
        fields.key("dead_lettered").bool(true);
    }
    if let Some(key) = &record.unique_key {
        fields.key("unique_key").str(key.as_str());
    }
    if record.awaited {
        fields.key("awaited").bool(true);
    }
    if let Some(message) = &record.message {
        fields.key("message").bin(message);
    }
    for (key, value) in &record.other {
        fields.key(key).raw(value);
    }
}

fn write_times(fields: &mut Fields, record: &JobRecord) {
    let times = [
        ("kicked_at", record.kicked_at),
        ("run_at", record.run_at),
        ("started_at", record.started_at),
        ("finished_at", record.finished_at),
    ];
    for (key, time) in times {
        if let Some(time) = time {
            fields.key(key).int(time.as_micros());
        }
    }
}

fn recoded(codec: Codec, bytes: &[u8]) -> Bytes {
    Payload::from_bytes(codec, Bytes::copy_from_slice(bytes)).recoded(Codec::MessagePack).as_bytes().clone()
}

fn read_field(record: &mut JobRecord, key: &str, raw: &Bytes) -> Result<()> {
    match key {
        "return_value" => record.result = Some(Payload::from_bytes(Codec::MessagePack, raw.clone())),
        "execution_time" => record.execution_time = seconds(decode(raw)?),
        "labels" => record.labels = read_labels(raw)?,
        "error" => record.error = decode::<Option<Exception>>(raw)?.map(|error| Box::new(error.into())),
        "id" => record.id = decode::<Name>(raw).and_then(bounded)?.as_str().into(),
        "task" => record.task = decode(raw).and_then(bounded)?,
        "queue" => record.queue = decode(raw).and_then(bounded)?,
        "status" => record.status = decode(raw)?,
        "priority" => record.priority = decode(raw)?,
        "attempt" => record.attempt = decode(raw)?,
        "max_retries" => record.max_retries = decode(raw)?,
        "starts" => record.starts = decode(raw)?,
        "solo" => record.solo = decode(raw)?,
        "worker_id" => record.worker_id = decode::<Option<Name>>(raw)?.map(bounded).transpose()?,
        "reason" => record.reason = decode(raw)?,
        "errors" => record.errors = decode(raw)?,
        "progress" => record.progress = decode(raw)?,
        "logs" => record.logs = decode(raw)?,
        "depends_on" => record.depends_on = decode(raw)?,
        "on_parent_failure" => record.on_parent_failure = decode(raw)?,
        "delay" => record.delay = std::time::Duration::from_micros(decode(raw)?),
        "takes" => record.takes = decode(raw)?,
        "dead_lettered" => record.dead_lettered = decode(raw)?,
        "unique_key" => record.unique_key = Some(UniqueKey::parse(&decode::<Name>(raw)?)?),
        "awaited" => record.awaited = decode(raw)?,
        "message" => record.message = Some(decode::<ByteBuf>(raw)?.into_vec().into()),
        "kicked_at" => record.kicked_at = Some(Timestamp::from_micros(decode(raw)?)),
        "run_at" => record.run_at = Some(Timestamp::from_micros(decode(raw)?)),
        "started_at" => record.started_at = Some(Timestamp::from_micros(decode(raw)?)),
        "finished_at" => record.finished_at = Some(Timestamp::from_micros(decode(raw)?)),
        // Fields of taskiq that aioq writes anew.
        "is_err" | "log" => {}
        other => record.other.push((other.into(), raw.clone())),
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(raw: &Bytes) -> Result<T> {
    msgpack::decode(raw)
}

/// Refuses a name longer than any valid one.
fn bounded(name: Name) -> Result<Name> {
    if name.len() <= MAX_TASK_NAME_BYTES {
        Ok(name)
    } else {
        Err(decode_error(format!("{} bytes, a name has at most {MAX_TASK_NAME_BYTES}", name.len())))
    }
}

fn seconds(seconds: f64) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn read_labels(raw: &Bytes) -> Result<Labels> {
    let Value::Map(entries) = decode(raw)? else { return Ok(Labels::new()) };
    let label = |value| match value {
        Value::Bool(value) => Label::Bool(value),
        Value::Int(number) => Label::Int(number),
        Value::Uint(number) => Label::Float(number as f64),
        Value::Float(number) => Label::Float(number),
        Value::Str(text) => Label::Str(text),
        Value::Bytes(bytes) => Label::Bytes(bytes),
        Value::Null | Value::Seq(_) | Value::Map(_) => Label::Null,
    };
    let named = |(name, value)| match name {
        Value::Str(name) => Some((name, label(value))),
        _ => None,
    };
    Ok(entries.into_iter().filter_map(named).collect())
}

/// An error in the form of taskiq's exceptions.
#[derive(Serialize, Deserialize)]
struct Exception {
    exc_type: String,
    exc_message: Vec<String>,
    exc_module: Option<String>,
    exc_cause: Option<Box<Exception>>,
    exc_context: Option<Box<Exception>>,
    exc_suppress_context: bool,
}

impl Exception {
    fn of(error: &JobError) -> Self {
        let plain = |message: &str| if message.is_empty() { Vec::new() } else { vec![message.to_owned()] };
        let cause = error
            .chain
            .iter()
            .rev()
            .fold(None, |cause, message| Some(Box::new(Self::new("Error", plain(message), None, cause))));
        Self::new(&error.exc_type, plain(&error.message), error.module.clone(), cause)
    }

    fn new(exc_type: &str, message: Vec<String>, module: Option<String>, cause: Option<Box<Self>>) -> Self {
        Self {
            exc_type: exc_type.to_owned(),
            exc_message: message,
            exc_module: module,
            exc_cause: cause,
            exc_context: None,
            exc_suppress_context: false,
        }
    }
}

impl From<Exception> for JobError {
    fn from(exception: Exception) -> Self {
        let mut error = Self::new(exception.exc_type, exception.exc_message.join(", "));
        error.module = exception.exc_module;
        let mut cause = exception.exc_cause;
        while let Some(inner) = cause.filter(|_| error.chain.len() < Self::MAX_CHAIN) {
            error.chain.push(inner.exc_message.join(", "));
            cause = inner.exc_cause;
        }
        error
    }
}
