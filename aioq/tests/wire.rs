//! The wire format against bytes of the real Python packages.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use aioq::error::JobError;
use aioq::message::{Arguments, Codec, Envelope, Label, Priority, Ties};
use aioq::store::{JobRecord, Status};
use aioq::{JobId, Message, Timestamp};
use bytes::Bytes;
use serde_json::{Value, json};

fn vectors(prefix: &str) -> Vec<(String, Value)> {
    let all: BTreeMap<String, Value> = serde_json::from_str(include_str!("vectors/taskiq.json")).unwrap();
    let found: Vec<_> = all.into_iter().filter(|(name, _)| name.starts_with(prefix)).collect();
    assert!(!found.is_empty(), "no vectors under {prefix}");
    found
}

fn bytes_of(vector: &Value) -> Bytes {
    let hex = vector["hex"].as_str().expect("a vector has bytes");
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>().into()
}

fn json_of(vector: &Value) -> Value {
    match &vector["json"] {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        other => other.clone(),
    }
}

/// The arguments in taskiq's form.
fn arguments(message: &Message) -> (Value, Value) {
    let value: Value = serde_json::from_str(&message.arguments.to_json()).unwrap();
    match value.get("kwargs") {
        Some(kwargs) => (value["args"].clone(), kwargs.clone()),
        None => (json!([]), value),
    }
}

#[test]
fn messages_that_python_wrote_are_read() {
    for (name, vector) in vectors("message/") {
        let message = Message::open(&bytes_of(&vector)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = json_of(&vector);
        assert_eq!(message.id.as_str(), expected["task_id"], "{name}");
        assert_eq!(message.task.as_str(), expected["task_name"], "{name}");
        let (args, kwargs) = arguments(&message);
        assert_eq!(args, expected["args"], "{name}");
        assert_eq!(kwargs, expected["kwargs"], "{name}");
    }
}

#[test]
fn a_message_that_is_sent_again_reads_the_same() {
    for (name, vector) in vectors("message/") {
        let message = Message::open(&bytes_of(&vector)).unwrap();
        let Envelope { body, .. } = message.seal();
        assert_eq!(Message::open(&body).unwrap(), message, "{name}");
    }
}

#[test]
fn what_python_accepts_is_accepted_and_what_it_refuses_is_refused() {
    for (name, vector) in vectors("message_in/") {
        let opened = Message::open(&bytes_of(&vector));
        let accepted = vector["accepted"].as_bool().unwrap();
        assert_eq!(opened.is_ok(), accepted, "{name}: {opened:?}");
        if let (Ok(message), Some(labels)) = (opened, vector["parsed_labels"].as_object()) {
            for (label, repr) in labels {
                assert_eq!(
                    python_repr(&message.labels[label]),
                    repr.as_str().unwrap(),
                    "{name}: label {label}"
                );
            }
        }
    }
}

fn python_repr(label: &Label) -> String {
    match label {
        Label::Null => "None".to_owned(),
        Label::Bool(value) => if *value { "True" } else { "False" }.to_owned(),
        Label::Int(number) => number.to_string(),
        Label::Float(number) if number.is_nan() => "nan".to_owned(),
        Label::Float(number) if number.is_infinite() => "inf".to_owned(),
        Label::Float(number) => format!("{number:?}"),
        Label::Str(text) => format!("'{text}'"),
        Label::Bytes(bytes) => {
            let text: String = bytes
                .iter()
                .map(|byte| match byte {
                    0x20..=0x7e => char::from(*byte).to_string(),
                    byte => format!("\\x{byte:02x}"),
                })
                .collect();
            format!("b'{text}'")
        }
        other => panic!("a label that this test does not know: {other:?}"),
    }
}

#[test]
fn typed_labels_of_python_keep_their_types() {
    let (_, vector) = vectors("message/labels/proxy+msgpack").remove(0);
    let labels = Message::open(&bytes_of(&vector)).unwrap().labels;
    assert_eq!(labels["i"], Label::Int(5));
    assert_eq!(labels["s"], Label::Str("str".to_owned()));
    assert_eq!(labels["f"], Label::Float(1.5));
    assert_eq!(labels["t"], Label::Bool(true));
    assert_eq!(labels["fl"], Label::Bool(false));
    assert_eq!(labels["b"], Label::Bytes(b"\x00\xffab".to_vec()));
}

#[test]
fn retries_are_counted_so_that_both_languages_run_a_job_equally_often() {
    let (_, vector) = vectors("message/retry_enabled_first/proxy+msgpack").remove(0);
    let message = Message::open(&bytes_of(&vector)).unwrap();
    // 3 attempts for taskiq are 2 retries for aioq.
    assert_eq!((message.attempt, message.max_retries), (1, Some(2)));
    for (name, vector) in vectors("message/retry") {
        let message = Message::open(&bytes_of(&vector)).unwrap();
        let retries = json_of(&vector)["labels"]["_retries"].as_str().map_or(0, |text| text.parse().unwrap());
        assert_eq!(message.attempt, retries + 1, "{name}");
    }
}

#[test]
fn all_that_a_message_says_survives_the_wire_in_both_codecs() {
    for codec in [Codec::MessagePack, Codec::Json] {
        let arguments =
            Arguments::from_map(codec, &json!({"to": "ann", "n": 7, "deep": [{"x": null}]})).unwrap();
        let mut message = Message::new("order-1".into(), "email.send", arguments);
        message.queue = "e mail".into();
        message.priority = Priority::new(2).unwrap();
        message.attempt = 3;
        message.max_retries = Some(u32::MAX);
        message.timeout = Some(std::time::Duration::from_millis(1500));
        message.kicked_at = Some(Timestamp::from_micros(1));
        message.run_at = Some(Timestamp::from_micros(2));
        message.expires_at = Some(Timestamp::from_micros(i64::MAX));
        message.first_failed_at = Some(Timestamp::from_micros(3));
        message.supersedes = Some(42);
        message.labels.insert("team".to_owned(), "größe".into());
        message.labels.insert("raw".to_owned(), vec![0u8, 255].into());
        message.labels.insert("half".to_owned(), 0.5.into());
        assert_eq!(Message::open(&message.seal().body).unwrap(), message, "{codec:?}");
    }
}

#[test]
fn cut_short_or_garbled_bytes_are_refused_without_a_panic() {
    for (name, vector) in vectors("message/") {
        let whole = bytes_of(&vector);
        for end in 0..whole.len() {
            assert!(Message::open(&whole.slice(..end)).is_err(), "{name} cut at {end}");
        }
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut garbled = whole.to_vec();
                garbled[at] ^= flip;
                // Decoding must not panic, and a message that decodes must encode.
                if let Ok(message) = Message::open(&garbled.into()) {
                    let _ = message.seal();
                }
            }
        }
    }
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    // A map that claims 2^32 - 1 entries, a string of 4 GiB, an array nested ten thousand deep.
    let mut nested = vec![0x81, 0xa4];
    nested.extend_from_slice(b"args");
    nested.extend(std::iter::repeat_n(0x91, 10_000));
    for lie in [vec![0xdf, 0xff, 0xff, 0xff, 0xff], vec![0x81, 0xdb, 0xff, 0xff, 0xff, 0xff], nested] {
        assert!(Message::open(&lie.into()).is_err());
    }
}

/// Fields that taskiq's `TaskiqResult` requires.
fn assert_python_would_read(result: &Value) {
    for key in ["is_err", "log", "return_value", "execution_time", "labels", "error"] {
        assert!(result.get(key).is_some(), "{key} is missing in {result}");
    }
    assert!(
        result["is_err"].is_boolean() && result["execution_time"].is_number() && result["labels"].is_object()
    );
    let mut error = &result["error"];
    while !error.is_null() {
        assert!(error["exc_type"].is_string() && error["exc_message"].is_array());
        assert!(error["exc_module"].is_string() || error["exc_module"].is_null());
        error = &error["exc_cause"];
    }
}

fn record(status: Status) -> JobRecord {
    let arguments = Arguments::from_map(Codec::Json, &json!({"a": 1})).unwrap();
    let mut message = Message::new("7".into(), "add", arguments);
    message.labels.insert("team".to_owned(), "growth".into());
    let mut record = JobRecord::of(&message, status);
    record.finished_at = Some(Timestamp::from_micros(5));
    record
}

#[test]
fn a_completed_record_is_a_taskiq_result() {
    let mut completed = record(Status::Completed);
    completed.result = Some(Codec::Json.encode(&json!({"sum": 3})).unwrap());
    completed.execution_time = std::time::Duration::from_millis(120);
    let result: Value = rmp_serde::from_slice(&completed.to_bytes()).unwrap();
    assert_python_would_read(&result);
    assert_eq!(result["is_err"], false);
    assert_eq!(result["return_value"], json!({"sum": 3}));
    assert_eq!(result["execution_time"], 0.12);
    assert_eq!(result["labels"], json!({"team": "growth"}));
}

#[test]
fn a_failed_record_is_a_taskiq_result_with_an_exception() {
    let error = aioq::TaskError::new("x".parse::<i64>().unwrap_err());
    let mut failed = record(Status::Failed);
    failed.error = Some(Box::new(error.job_error().clone()));
    let result: Value = rmp_serde::from_slice(&failed.to_bytes()).unwrap();
    assert_python_would_read(&result);
    assert_eq!(result["is_err"], true);
    assert_eq!(result["error"]["exc_type"], "ParseIntError");
    assert_eq!(result["error"]["exc_message"], json!(["invalid digit found in string"]));
}

#[test]
fn a_record_survives_its_encoding() {
    for status in Status::ALL {
        let mut record = record(status);
        record.result = (status == Status::Completed).then(|| Codec::MessagePack.encode(&[1, 2]).unwrap());
        record.error = Some(Box::new(JobError::new("SendError", "no route")));
        record.reason = Some(aioq::error::Reason::Error);
        record.depends_on = vec!["a".into(), "b".into()];
        record.starts = 2;
        record.solo = 1;
        record.dead_lettered = true;
        record.message = Some(Bytes::from_static(&[0, 159, 146, 150]));
        let back = JobRecord::from_bytes(&record.to_bytes()).unwrap();
        // Arguments come back as MessagePack, from either codec.
        assert_eq!(back.arguments.as_ref().unwrap().to_json(), record.arguments.as_ref().unwrap().to_json());
        record.arguments = back.arguments.clone();
        assert_eq!(back, record);
    }
}

#[test]
fn fields_of_a_newer_version_are_passed_over() {
    let mut value: Value = rmp_serde::from_slice(&record(Status::Completed).to_bytes()).unwrap();
    value["from_the_future"] = json!({"deep": [1, 2]});
    let bytes = rmp_serde::to_vec_named(&value).unwrap();
    assert_eq!(JobRecord::from_bytes(&bytes.into()).unwrap().status, Status::Completed);
}

#[test]
fn integers_beyond_64_bits_and_bytes_travel_untouched() {
    let body = Bytes::from_static(
        br#"{"task_id":"1","task_name":"t","labels":{},"args":[],"kwargs":{"n":340282366920938463463374607431768211455}}"#,
    );
    let message = Message::open(&body).unwrap();
    let sent = message.seal().body;
    assert!(std::str::from_utf8(&sent).unwrap().contains("340282366920938463463374607431768211455"));
}

#[test]
fn not_a_number_in_json_is_refused_as_undecodable() {
    let body = Bytes::from_static(br#"{"task_id":"1","task_name":"t","labels":{},"args":[NaN],"kwargs":{}}"#);
    assert_eq!(Message::open(&body).unwrap_err().kind(), aioq::ErrorKind::Decode);
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
enum Shape {
    Unit,
    Newtype(i8),
    Tuple(u8, String),
    Struct { width: f32 },
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Everything {
    bytes: Vec<u8>,
    no_bytes: Vec<u8>,
    flags: Vec<bool>,
    small: Vec<i8>,
    no_names: Vec<String>,
    shapes: Vec<Shape>,
    nested: Option<Option<u64>>,
    largest: u64,
    smallest: i64,
    letter: char,
    address: std::net::IpAddr,
    by_number: BTreeMap<u32, String>,
    pair: (u8, u8),
    array: [u8; 3],
    unit: (),
    wide: i128,
}

#[test]
fn values_of_all_kinds_survive_both_codecs() {
    let value = Everything {
        bytes: vec![0, 127, 255],
        no_bytes: Vec::new(),
        flags: vec![true, false],
        small: vec![-1, 0, 1],
        no_names: Vec::new(),
        shapes: vec![
            Shape::Unit,
            Shape::Newtype(-5),
            Shape::Tuple(7, "x".to_owned()),
            Shape::Struct { width: 0.5 },
        ],
        nested: Some(Some(1)),
        largest: u64::MAX,
        smallest: i64::MIN,
        letter: 'ä',
        address: "::1".parse().unwrap(),
        by_number: BTreeMap::from([(1, "one".to_owned())]),
        pair: (1, 2),
        array: [1, 2, 3],
        unit: (),
        wide: 7,
    };
    for codec in [Codec::MessagePack, Codec::Json] {
        assert_eq!(codec.encode(&value).unwrap().decode::<Everything>().unwrap(), value, "{codec:?}");
    }
    let packed: Value = serde_json::from_str(&Codec::MessagePack.encode(&value).unwrap().to_json()).unwrap();
    let json: Value = serde_json::from_str(&Codec::Json.encode(&value).unwrap().to_json()).unwrap();
    assert_eq!(packed["shapes"], json["shapes"], "structs are maps in both");
    assert_eq!(packed["address"], json["address"], "text forms are used in both");
}

#[test]
fn casts_that_lose_nothing_are_made_and_others_are_not() {
    for codec in [Codec::MessagePack, Codec::Json] {
        let cast = |value: Value| codec.encode(&value).unwrap();
        assert_eq!(cast(json!("5")).decode::<i64>().unwrap(), 5);
        assert_eq!(cast(json!(" 5 ")).decode::<u8>().unwrap(), 5);
        assert_eq!(cast(json!(5.0)).decode::<u8>().unwrap(), 5);
        assert_eq!(cast(json!(5)).decode::<f64>().unwrap(), 5.0);
        assert_eq!(cast(json!("0.5")).decode::<f64>().unwrap(), 0.5);
        assert!(cast(json!("True")).decode::<bool>().unwrap());
        assert_eq!(cast(json!({"a": ["1", 2]})).decode::<BTreeMap<String, Vec<i64>>>().unwrap()["a"], [1, 2]);
        assert!(cast(json!(5.5)).decode::<i64>().is_err());
        assert!(cast(json!("five")).decode::<i64>().is_err());
        assert!(cast(json!(300)).decode::<u8>().is_err());
        assert!(cast(json!(5)).decode::<String>().is_err());
    }
}

#[test]
fn a_message_carries_the_first_hundred_parents() {
    let ids = |count: usize| -> Vec<JobId> {
        (0..count).map(|n| format!("01a21e5363f6767882ff0212a7a{n:05}").into()).collect()
    };
    for count in [1, 2, 100, 10_000] {
        let mut ties = Ties::default();
        (ties.parents, ties.awaited) = (ids(count), true);
        let mut message = Message::new("child".into(), "task", Arguments::default());
        message.ties = Some(Box::new(ties));
        let opened = Message::open(&message.seal().body).unwrap().ties.unwrap();
        assert_eq!((opened.parents, opened.awaited), (ids(count.min(100)), true));
    }
}
