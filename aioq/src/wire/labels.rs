//! Labels in taskiq's form: strings, with a separate map of their types.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use smallvec::SmallVec;

use crate::codec::msgpack::Writer;
use crate::codec::{decode_error, json};
use crate::error::{Error, Result, excerpt};
use crate::message::{
    DEFAULT_QUEUE, JobId, Label, Labels, MAX_NAME_BYTES, MAX_SENT_PARENTS, Message, Priority, Tick, Ties,
    UniqueTie, is_reserved,
};
use crate::time::{MAX_SPAN, Timestamp};

/// Values of taskiq's `LabelType`.
pub(super) const INT: i64 = 2;
pub(super) const STR: i64 = 3;
pub(super) const FLOAT: i64 = 4;
pub(super) const BOOL: i64 = 5;
pub(super) const BYTES: i64 = 6;
const ANY: i64 = 1;

/// A label to be encoded.
pub(super) struct WireLabel<'a> {
    pub(super) name: &'a str,
    pub(super) text: Text<'a>,
    pub(super) kind: i64,
}

/// The text of a label, or the number to be written as text.
pub(super) enum Text<'a> {
    Str(Cow<'a, str>),
    Int(i64),
}

impl Text<'_> {
    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Self::Str(text) => writer.str(text),
            Self::Int(number) => writer.str(itoa::Buffer::new().format(*number)),
        }
    }

    pub(super) fn to_text(&self) -> Cow<'_, str> {
        match self {
            Self::Str(text) => Cow::Borrowed(text),
            Self::Int(number) => number.to_string().into(),
        }
    }
}

impl From<&'static str> for Text<'_> {
    fn from(text: &'static str) -> Self {
        Self::Str(text.into())
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Str(text.into())
    }
}

/// All labels of a message, aioq's own and the user's.
pub(super) fn of_message(message: &Message) -> SmallVec<[WireLabel<'_>; 8]> {
    let mut labels = SmallVec::new();
    let mut push = |name, text, kind| labels.push(WireLabel { name, text, kind });
    let int = Text::Int;
    if message.priority != Priority::default() {
        push("priority", int(message.priority.value().into()), INT);
    }
    if let Some(timeout) = message.timeout {
        push("timeout", float_text(timeout.as_secs_f64()).into(), FLOAT);
    }
    if let Some(max) = message.max_retries {
        push("retry_on_error", if max > 0 { "True" } else { "False" }.into(), BOOL);
        // taskiq counts attempts, aioq counts retries.
        push("max_retries", int(i64::from(max) + 1), INT);
    }
    if message.attempt > 1 {
        push("_retries", int(i64::from(message.attempt) - 1), INT);
    }
    for (name, time) in [
        ("kicked_at", message.kicked_at),
        ("run_at", message.run_at),
        ("expires_at", message.expires_at),
        ("first_failed_at", message.first_failed_at),
    ] {
        if let Some(time) = time {
            push(name, int(time.as_micros()), INT);
        }
    }
    if let Some(revision) = message.supersedes {
        push("supersedes", int(i64::try_from(revision).unwrap_or(i64::MAX)), INT);
    }
    if let Some(ties) = &message.ties {
        labels.extend(of_ties(ties));
    }
    if message.queue != DEFAULT_QUEUE {
        let text = Text::Str((&*message.queue).into());
        labels.push(WireLabel { name: "queue_name", text, kind: STR });
    }
    labels.extend(message.labels.iter().map(|(name, label)| WireLabel::of(name, label)));
    labels
}

/// The labels of the ties of a message.
fn of_ties(ties: &Ties) -> Vec<WireLabel<'_>> {
    let mut labels = Vec::new();
    let mut push = |name, text, kind| labels.push(WireLabel { name, text, kind });
    if let Some(tick) = &ties.tick {
        push("schedule_id", Text::Str((&*tick.schedule).into()), STR);
        if let Some(at) = tick.at {
            push("tick", Text::Int(at.as_micros()), INT);
        }
    }
    if let Some(unique) = &ties.unique {
        push("unique_key", unique.to_label().into(), STR);
    }
    if !ties.parents.is_empty() {
        let sent = &ties.parents[..ties.parents.len().min(MAX_SENT_PARENTS)];
        push("parents", json::to_string(sent).into(), STR);
    }
    if ties.awaited {
        push("awaited", "True".into(), BOOL);
    }
    labels.extend(ties.other.iter().map(|(name, label)| WireLabel::of(name, label)));
    labels
}

impl<'a> WireLabel<'a> {
    fn of(name: &'a str, label: &'a Label) -> Self {
        let (text, kind) = match label {
            Label::Null => ("None".into(), ANY),
            Label::Bool(true) => ("True".into(), BOOL),
            Label::Bool(false) => ("False".into(), BOOL),
            Label::Int(number) => (Text::Int(*number), INT),
            Label::Float(number) => (float_text(*number).into(), FLOAT),
            Label::Str(text) => (Text::Str(text.into()), STR),
            Label::Bytes(bytes) => (BASE64.encode(bytes).into(), BYTES),
        };
        Self { name, text, kind }
    }
}

/// Refuses a name that is too long, before any error quotes it.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() <= MAX_NAME_BYTES {
        Ok(())
    } else {
        Err(decode_error(format!(
            "the name of a label has {} bytes, at most {MAX_NAME_BYTES} are read",
            name.len()
        )))
    }
}

/// A decoded label without its type.
#[derive(Clone, Debug)]
pub(super) enum RawLabel<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Cow<'a, str>),
}

/// Stores a label: aioq's own in its field, any other in `labels`.
pub(super) fn read(message: &mut Message, name: &str, raw: RawLabel<'_>, kind: Option<i64>) -> Result<()> {
    let placed = typed(raw, kind).and_then(|label| place(message, name, label));
    placed.map_err(|why| bad(name, &why))
}

/// Stores a whole number, if its name is one of aioq's own. Returns true if it is.
pub(super) fn read_number(message: &mut Message, name: &[u8], number: i64) -> Result<bool> {
    let placed = place_number(message, name, number);
    placed.map_err(|why| bad(&String::from_utf8_lossy(name), &why))
}

fn place_number(message: &mut Message, name: &[u8], number: i64) -> Result<bool, String> {
    match name {
        b"priority" => message.priority = priority(number),
        b"max_retries" => {
            let retries = number.saturating_sub(1).max(0);
            message.max_retries = Some(u32::try_from(retries).unwrap_or(u32::MAX));
        }
        b"_retries" => message.attempt = count(number)?.saturating_add(1),
        b"kicked_at" => message.kicked_at = Some(Timestamp::from_micros(number)),
        b"run_at" => message.run_at = Some(Timestamp::from_micros(number)),
        b"expires_at" => message.expires_at = Some(Timestamp::from_micros(number)),
        b"first_failed_at" => message.first_failed_at = Some(Timestamp::from_micros(number)),
        b"tick" => tick(message).at = Some(Timestamp::from_micros(number)),
        b"supersedes" => message.supersedes = Some(u64::try_from(number).map_err(|_| "negative")?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn place(message: &mut Message, name: &str, label: Label) -> Result<(), String> {
    match name {
        "queue_name" => message.queue = text(label)?.into(),
        "timeout" => message.timeout = Some(seconds(&label)?),
        "retry_on_error" => match label {
            // No retries, whatever number another label gives.
            Label::Bool(false) => drop(message.labels.insert(NO_RETRY.to_owned(), label)),
            Label::Bool(true) => {}
            _ => return Err("expected true or false".to_owned()),
        },
        "priority" | "max_retries" | "_retries" | "kicked_at" | "run_at" | "expires_at"
        | "first_failed_at" | "supersedes" | "tick" => {
            place_number(message, name.as_bytes(), whole(&label)?)?;
        }
        "schedule_id" => tick(message).schedule = text(label)?.into(),
        "unique_key" => {
            let unique = UniqueTie::of_label(&text(label)?).map_err(|error| error.to_string())?;
            message.ties_mut().unique = Some(unique);
        }
        "parents" => message.ties_mut().parents = parents(&label)?,
        "awaited" => message.ties_mut().awaited = label == Label::Bool(true),
        name if is_reserved(name) => message.ties_mut().other.push((name.to_owned(), label)),
        _ => drop(message.labels.insert(name.to_owned(), label)),
    }
    Ok(())
}

/// The tick of a message, which two labels tell.
fn tick(message: &mut Message) -> &mut Tick {
    let none = || Tick { schedule: "".into(), at: None };
    message.ties_mut().tick.get_or_insert_with(none)
}

/// Name under which [`place`] keeps `retry_on_error = False` until all labels are read.
const NO_RETRY: &str = "retry_on_error";

/// Applies labels that depend on each other.
pub(super) fn finish(message: &mut Message) {
    if message.labels.remove(NO_RETRY).is_some() {
        message.max_retries = Some(0);
    }
}

/// The label of that type, as taskiq's `parse_label` reads it.
fn typed(raw: RawLabel<'_>, kind: Option<i64>) -> Result<Label, String> {
    let Some(kind) = kind else { return Ok(untyped(raw)) };
    match (kind, raw) {
        (ANY | STR, raw) => Ok(untyped(raw)),
        (INT, RawLabel::Str(text)) => int(&text).map(Label::Int),
        (INT, RawLabel::Float(number)) => Ok(Label::Int(number as i64)),
        (INT, RawLabel::Bool(value)) => Ok(Label::Int(value.into())),
        (FLOAT, RawLabel::Str(text)) => float(&text).map(Label::Float),
        (FLOAT, RawLabel::Int(number)) => Ok(Label::Float(number as f64)),
        // Only `true`, in any case, is true.
        (BOOL, RawLabel::Str(text)) => Ok(Label::Bool(text.eq_ignore_ascii_case("true"))),
        (BYTES, RawLabel::Str(text)) => {
            BASE64.decode(&*text).map(Label::Bytes).map_err(|error| error.to_string())
        }
        (INT | FLOAT | BOOL | BYTES, raw) => Ok(untyped(raw)),
        (other, _) => Err(format!("unknown label type {other}")),
    }
}

fn untyped(raw: RawLabel<'_>) -> Label {
    match raw {
        RawLabel::Null => Label::Null,
        RawLabel::Bool(value) => Label::Bool(value),
        RawLabel::Int(number) => Label::Int(number),
        RawLabel::Float(number) => Label::Float(number),
        RawLabel::Str(text) => Label::Str(text.into_owned()),
    }
}

/// Reads a whole number in plain digits.
pub(super) fn digits(text: &[u8]) -> Option<i64> {
    // At most 18 digits, so that it cannot overflow.
    let plain = (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    plain.then(|| text.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

/// Reads a number like Python's `int(text)`: with spaces around it and underscores between digits.
fn int(text: &str) -> Result<i64, String> {
    let trimmed = text.trim();
    let plain =
        if trimmed.contains('_') { Cow::Owned(trimmed.replace('_', "")) } else { Cow::Borrowed(trimmed) };
    plain.parse().map_err(|_| format!("invalid whole number `{}`", excerpt(text)))
}

fn float(text: &str) -> Result<f64, String> {
    text.trim().replace('_', "").parse().map_err(|_| format!("invalid number `{}`", excerpt(text)))
}

fn parents(label: &Label) -> Result<Vec<JobId>, String> {
    let ids = label.as_str().ok_or("expected a list of ids")?;
    let mut parents: Vec<JobId> = json::decode(ids.as_bytes()).map_err(|error| error.to_string())?;
    parents.truncate(MAX_SENT_PARENTS);
    parents.iter().try_for_each(JobId::check).map_err(|error| error.to_string())?;
    Ok(parents)
}

fn text(label: Label) -> Result<String, String> {
    match label {
        Label::Str(text) if (1..=crate::message::MAX_NAME_BYTES).contains(&text.len()) => Ok(text),
        _ => Err("expected text of 1 to 128 bytes".to_owned()),
    }
}

fn whole(label: &Label) -> Result<i64, String> {
    match label {
        Label::Int(number) => Ok(*number),
        // Labels without types come from producers that write strings.
        Label::Str(text) => int(text),
        Label::Float(number) if number.fract() == 0.0 => Ok(*number as i64),
        _ => Err("expected a whole number".to_owned()),
    }
}

fn count(number: i64) -> Result<u32, String> {
    u32::try_from(number).map_err(|_| format!("{number} is out of range"))
}

fn seconds(label: &Label) -> Result<Duration, String> {
    let seconds = match label {
        Label::Float(seconds) => *seconds,
        Label::Int(seconds) => *seconds as f64,
        Label::Str(text) => float(text)?,
        _ => return Err("expected seconds".to_owned()),
    };
    let span =
        Duration::try_from_secs_f64(seconds).map_err(|_| format!("invalid duration of {seconds} seconds"))?;
    Ok(span.min(MAX_SPAN))
}

/// The nearest priority to a number of another framework.
fn priority(value: i64) -> Priority {
    let value = u8::try_from(value.clamp(0, Priority::LOWEST.value().into())).unwrap_or_default();
    Priority::new(value).unwrap_or_default()
}

fn bad(name: &str, why: &str) -> Error {
    decode_error(format!("label `{name}`: {why}"))
}

/// The form in which Python prints it: `1.0`, not `1`.
fn float_text(number: f64) -> String {
    match number {
        number if number.is_nan() => "nan".to_owned(),
        number if number.is_infinite() => if number > 0.0 { "inf" } else { "-inf" }.to_owned(),
        number => format!("{number:?}"),
    }
}

/// Writes the labels of a record: values, not strings.
pub(super) fn write_values(writer: &mut Writer, labels: &Labels) {
    writer.map(labels.len());
    for (name, label) in labels {
        writer.str(name);
        match label {
            Label::Null => writer.nil(),
            Label::Bool(value) => writer.bool(*value),
            Label::Int(number) => writer.int(*number),
            Label::Float(number) => writer.float(*number),
            Label::Str(text) => writer.str(text),
            Label::Bytes(bytes) => writer.bin(bytes),
        }
    }
}
