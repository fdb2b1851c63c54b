//! Bytes that nobody meant: whatever arrives as a message, a record or a value is read or refused, without a
//! panic, without a hang, and without allocating what a length in the bytes claims.
//!
//! Real encodings are damaged: bits flipped, pieces cut out, doubled, swapped with those of others, lengths blown
//! up. `AIOQ_BAD_BYTES` sets the number of inputs of each test, `AIOQ_BAD_BYTES_SEED` draws others.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aioq::store::{JobRecord, Progress, Status};
use aioq::{Arguments, Codec, JobError, JobId, Label, Message, Payload, Reason, Timestamp};
use bytes::Bytes;
use fastrand::Rng;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Inputs of each test, unless the environment says otherwise.
const INPUTS: usize = 50_000;

/// What reading may allocate, at its peak: so many times the input, and a little.
const PER_BYTE: u64 = 200;
const ANYWAY: u64 = 64 * 1024;
/// What serde itself makes room for before it has seen the parts of a collection, and that a few deep.
const COLLECTIONS: u64 = 4 * 1024 * 1024;

/// Reading a few kilobytes never takes so long.
const HANG: Duration = Duration::from_secs(2);

/// Damages encodings, and hands each to `read`.
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
        // Headers of maps, arrays, strings and binaries that claim much.
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

fn corpus() -> Vec<Bytes> {
    let mut corpus = vectors();
    corpus.extend([Codec::MessagePack, Codec::Json].map(|codec| message(codec).seal().body));
    corpus.extend(Status::ALL.map(record));
    corpus
}

#[test]
fn a_damaged_message_is_read_or_refused() {
    with_damaged(&corpus(), ANYWAY, |bytes| {
        if let Ok(message) = Message::open(bytes) {
            // What was read can be shown, and sent on.
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

/// What a task may take as an argument, or return.
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
