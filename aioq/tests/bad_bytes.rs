//! Invalid bytes: a message, a record or a value of any bytes is read or refused, without a panic,
//! without a hang, and without an allocation that a length in the bytes asks for.
//!
//! Inputs are damaged encodings: bits flipped, pieces removed, doubled or swapped with others,
//! lengths increased. `AIOQ_BAD_BYTES` sets the number of inputs of each test,
//! `AIOQ_BAD_BYTES_SEED` draws others.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aioq::error::{JobError, Reason};
use aioq::message::{Arguments, Codec, Label, Payload};
use aioq::store::{JobRecord, Progress, Status};
use aioq::{JobId, Message, Timestamp};
use bytes::Bytes;
use fastrand::Rng;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Default number of inputs of each test.
const INPUTS: usize = 50_000;

/// Peak allocation while reading, as a multiple of the input size plus a constant.
const PER_BYTE: u64 = 200;
const ANYWAY: u64 = 64 * 1024;
/// Capacity that serde reserves before it has seen the items of a collection, a few levels deep.
const COLLECTIONS: u64 = 4 * 1024 * 1024;

/// Time limit for reading a few kilobytes.
const HANG: Duration = Duration::from_secs(2);

/// Damages encodings, and passes each to `read`.
fn with_damaged(corpus: &[Bytes], anyway: u64, read: impl Fn(&Bytes)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let inputs = number("AIOQ_BAD_BYTES").unwrap_or(INPUTS as u64);
    let seed = number("AIOQ_BAD_BYTES_SEED").unwrap_or(1);
    println!("AIOQ_BAD_BYTES_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    for original in corpus {
        read(original);
    }
    for _ in 0..inputs {
        let input = damaged(corpus, &mut random);
        let start = std::time::Instant::now();
        let allocated = allocation_counter::measure(|| read(&input));
        let most = anyway + PER_BYTE * input.len() as u64;
        assert!(allocated.bytes_max <= most, "{} bytes for {input:?}", allocated.bytes_max);
        assert!(start.elapsed() < HANG, "{:?} for {input:?}", start.elapsed());
    }
}

fn damaged(corpus: &[Bytes], random: &mut Rng) -> Bytes {
    let mut bytes = random.choice(corpus).unwrap().to_vec();
    for _ in 0..random.usize(1..=4) {
        damage(&mut bytes, corpus, random);
    }
    bytes.into()
}

fn damage(bytes: &mut Vec<u8>, corpus: &[Bytes], random: &mut Rng) {
    let at = random.usize(..=bytes.len());
    let end = (at + random.usize(..16)).min(bytes.len());
    match random.u8(..8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.insert(at, random.u8(..)),
        3 => bytes
            .splice(at..at, std::iter::repeat_with(|| random.u8(..)).take(8).collect::<Vec<_>>())
            .for_each(drop),
        4 => {
            let other = random.choice(corpus).unwrap();
            let from = random.usize(..=other.len());
            let piece = other[from..(from + random.usize(..64)).min(other.len())].to_vec();
            bytes.splice(at..end, piece).for_each(drop);
        }
        // Headers of maps, arrays, strings and binaries with large lengths.
        5 => {
            let header =
                *random.choice([0xdd, 0xdf, 0xdb, 0xc6, 0xdc, 0xde, 0xda, 0x9f, 0x8f].iter()).unwrap();
            bytes.splice(at..at, [header, 0xff, 0xff, 0xff, 0xff]).for_each(drop);
        }
        // Deep nesting.
        6 => {
            let open = *random.choice([0x91, 0x81, b'[', b'{'].iter()).unwrap();
            bytes.splice(at..at, std::iter::repeat_n(open, random.usize(..2000))).for_each(drop);
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.u8(..8);
            }
        }
    }
}

fn vectors() -> Vec<Bytes> {
    let all: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(include_str!("vectors/taskiq.json")).unwrap();
    let hex = |vector: &serde_json::Value| {
        let hex = vector["hex"].as_str()?;
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        Some((0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>().into())
    };
    all.values().filter_map(hex).collect()
}

fn message(codec: Codec) -> Message {
    let arguments =
        Arguments::from_json(codec, r#"{"to":"ann@example.org","n":[1,2.5,null,{"deep":{"er":"x"}}]}"#);
    let mut message = Message::new("job-1".into(), "email.send", arguments.unwrap());
    message.labels.insert("team".to_owned(), Label::from("growth"));
    message.labels.insert("raw".to_owned(), Label::from(vec![0_u8, 255]));
    message.attempt = 3;
    message.timeout = Some(Duration::from_secs(30));
    message.kicked_at = Some(Timestamp::from_micros(1_772_366_400_123_456));
    message.run_at = message.kicked_at;
    message.expires_at = message.kicked_at;
    message.supersedes = Some(7);
    message
}

fn record(status: Status) -> Bytes {
    let message = message(Codec::MessagePack);
    let mut record = JobRecord::of(&message, status);
    let mut error = JobError::new("SendError", "the mailbox is full");
    error.chain = vec!["over quota".to_owned(), "disk full".to_owned()];
    record.error = Some(Box::new(error));
    record.reason = Some(Reason::Error);
    record.worker_id = Some("w-1".into());
    record.progress = Some(Box::new(Progress { done: 1, total: 2, note: Some("half".to_owned()) }));
    record.depends_on = vec![JobId::from("parent")];
    record.result = Some(Codec::MessagePack.encode(&("done", 42)).unwrap());
    record.message = Some(message.seal().body);
    record.to_bytes()
}

/// Messages whose labels, label types and names are many, large, doubled, or in another order.
fn labelled() -> Vec<Bytes> {
    let text = |length: usize| "x".repeat(length);
    let message = |task: &str, labels: &[(String, String)], types: &[(String, i64)]| {
        let object = |entries: Vec<String>| format!("{{{}}}", entries.join(","));
        let labels = object(labels.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect());
        let types = object(types.iter().map(|(name, kind)| format!("\"{name}\":{kind}")).collect());
        format!(
            r#"{{"task_id":"1","task_name":"{task}","labels":{labels},"labels_types":{types},"args":[],"kwargs":{{}}}}"#
        )
    };
    let label = |number: usize| format!("label-{number}");
    let names =
        |count: usize| (0..count).map(move |number| (label(number), "\"7\"".to_owned())).collect::<Vec<_>>();
    let kinds = |count: usize| (0..count).rev().map(move |number| (label(number), 2)).collect::<Vec<_>>();
    let one = |name: String, value: String| vec![(name, value)];
    let json = [
        message("t", &names(100), &kinds(100)),
        message("t", &names(100), &kinds(1)),
        message("t", &[names(2), names(2)].concat(), &[kinds(2), kinds(2)].concat()),
        message("t", &one(text(128), format!("\"{}\"", text(3_900))), &kinds(3)),
        message(&text(255), &one("deep".to_owned(), "[[[[{\"a\":null}]]]]".to_owned()), &[]),
    ];
    let packed = json.iter().map(|json| {
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        rmp_serde::to_vec_named(&value).unwrap().into()
    });
    packed.chain(json.iter().map(|json| json.clone().into_bytes().into())).collect()
}

#[test]
fn labels_and_names_without_bounds_are_refused() {
    let message = |task: &str, labels: serde_json::Value, types: serde_json::Value| {
        serde_json::json!({
            "task_id": "1", "task_name": task, "labels": labels, "labels_types": types, "args": [], "kwargs": {},
        })
    };
    let many = |count: usize| -> serde_json::Map<String, serde_json::Value> {
        (0..count).map(|number| (format!("label-{number}"), "7".into())).collect()
    };
    let kinds: HashMap<String, i64> = (0..75_000).map(|number| (format!("label-{number}"), 2)).collect();
    let large = "x".repeat(900_000);
    let empty = serde_json::json!({});
    for message in [
        message("t", many(75_000).into(), serde_json::to_value(&kinds).unwrap()),
        message("t", many(100).into(), serde_json::to_value(&kinds).unwrap()),
        message("t", serde_json::json!({large.as_str(): "7"}), empty.clone()),
        message(&large, empty.clone(), empty),
    ] {
        for body in [serde_json::to_vec(&message).unwrap(), rmp_serde::to_vec_named(&message).unwrap()] {
            let error = Message::open(&body.into()).unwrap_err().to_string();
            assert!(error.len() < 300, "{error}");
        }
    }
}

/// Total allocation while reading hostile bytes of that size.
fn allocated(bytes: Bytes) -> (u64, u64) {
    let taken = allocation_counter::measure(|| {
        if let Ok(message) = Message::open(&bytes) {
            let _ = message.arguments.to_json();
            let _ = message.arguments.decode::<BTreeMap<String, i64>>();
        }
        for codec in [Codec::MessagePack, Codec::Json] {
            let payload = Payload::from_bytes(codec, bytes.clone());
            let _ = payload.to_json();
            let _ = payload.decode::<serde_json::Value>();
            let _ = payload.decode::<Vec<Order>>();
        }
        let _ = JobRecord::from_bytes(&bytes);
    });
    (taken.count_total, taken.bytes_total)
}

#[test]
fn twice_the_bytes_take_twice_the_memory() {
    let skeleton = |kwargs: &dyn Fn(usize) -> Vec<u8>| {
        let head = b"\x85\xa7task_id\xa11\xa9task_name\xa1t\xa6labels\x80\xa4args\x90\xa6kwargs".to_vec();
        [2_000, 4_000].map(|size| Bytes::from([head.clone(), kwargs(size)].concat()))
    };
    let map = |size: usize| [vec![0xde], (size as u16).to_be_bytes().to_vec()].concat();
    // Arguments with equal and with different names, maps as keys, and nested values.
    let same = skeleton(&|size| [map(size), b"\xa1a\x01".repeat(size)].concat());
    let different = skeleton(&|size| {
        let entry = |number: usize| [&[0xa5][..], format!("{number:05}").as_bytes(), &[0x01]].concat();
        [map(size), (0..size).flat_map(entry).collect()].concat()
    });
    let keys = [2_000, 4_000]
        .map(|size| Bytes::from([map(size), b"\x81\x81\x01\x02\x03\x04".repeat(size)].concat()));
    let nested = [2_000, 4_000].map(|size| Bytes::from([vec![0x91; size], vec![0x01]].concat()));
    let brackets = [2_000, 4_000].map(|size| Bytes::from("[{\"a\":".repeat(size)));
    let orders = [2_000, 4_000].map(|size| Bytes::from(format!("[{}1]", "{\"id\":\"7\"},".repeat(size))));
    for [once, twice] in [same, different, keys, nested, brackets, orders] {
        let name = String::from_utf8_lossy(&once[..60.min(once.len())]).into_owned();
        let (once, twice) = (allocated(once), allocated(twice));
        // A little more than twice, because tables grow in steps.
        let is_linear = |once: u64, twice: u64| twice <= once * 5 / 2 + 2_000;
        assert!(is_linear(once.0, twice.0) && is_linear(once.1, twice.1), "{name}: {once:?}, then {twice:?}");
    }
}

fn corpus() -> Vec<Bytes> {
    let mut corpus = vectors();
    corpus.extend(labelled());
    corpus.extend([Codec::MessagePack, Codec::Json].map(|codec| message(codec).seal().body));
    corpus.extend(Status::ALL.map(record));
    corpus
}

#[test]
fn a_damaged_message_is_read_or_refused() {
    with_damaged(&corpus(), ANYWAY, |bytes| {
        if let Ok(message) = Message::open(bytes) {
            // A decoded value can be printed and sent on.
            let _ = message.arguments.to_json();
            Message::open(&message.seal().body).expect("what is sealed can be opened");
        }
    });
}

#[test]
fn a_damaged_record_is_read_or_refused() {
    with_damaged(&corpus(), ANYWAY, |bytes| {
        if let Ok(record) = JobRecord::from_bytes(bytes) {
            serde_json::to_string(&record).expect("a record can be shown");
            JobRecord::from_bytes(&record.to_bytes()).expect("what is written can be read");
        }
    });
}

/// Types of arguments and results.
#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct Order {
    id: u64,
    lines: Vec<Line>,
    note: Option<String>,
    tags: HashMap<String, i32>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
enum Line {
    Item { name: String, count: u8 },
    Discount(f64),
    Nothing,
}

fn read<T: DeserializeOwned>(payload: &Payload) {
    let _ = payload.decode::<T>();
}

#[test]
fn a_damaged_value_is_read_or_refused() {
    let order = serde_json::json!({
        "id": 7, "lines": [{"Item": {"name": "tea", "count": 2}}, {"Discount": 0.5}, "Nothing"],
        "note": null, "tags": {"a": 1, "b": -1},
    });
    let text = "x".repeat(300);
    let mut values: Vec<Bytes> = vectors();
    for codec in [Codec::MessagePack, Codec::Json] {
        values.push(codec.encode(&order).unwrap().as_bytes().clone());
        values.push(codec.encode(&(1, 2.5, text.as_str(), [true; 20])).unwrap().as_bytes().clone());
    }
    with_damaged(&values, COLLECTIONS, |bytes| {
        for codec in [Codec::MessagePack, Codec::Json] {
            let payload = Payload::from_bytes(codec, bytes.clone());
            read::<Order>(&payload);
            read::<serde_json::Value>(&payload);
            read::<Vec<u64>>(&payload);
            read::<(u8, String, Option<bool>)>(&payload);
            read::<HashMap<String, Vec<f32>>>(&payload);
            let _ = payload.to_json();
        }
    });
}
