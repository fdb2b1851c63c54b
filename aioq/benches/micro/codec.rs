//! Messages and records: bytes and back.

use aioq::bench::{RawMessage, RawRecord, TEXT, now_us};
use aioq::message::{Arguments, Codec};
use aioq::store::JobRecord;
use aioq::tasks::TaskDef;
use aioq::{Message, TaskError};
use bytes::Bytes;
use divan::{Bencher, black_box};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Args {
    number: u64,
    text: String,
}

fn args() -> Args {
    Args { number: 7, text: TEXT.to_owned() }
}

fn arguments() -> Arguments {
    Arguments::from_map(Codec::default(), &args()).expect("plain data")
}

/// What the raw side encodes, too.
fn message() -> Message {
    let body = body();
    let message = Message::open(&body).expect("a message");
    assert_eq!(message.seal().body, body);
    message
}

fn body() -> Bytes {
    RawMessage::encoded(&RawMessage::new_id(), 7).into()
}

/// What the raw side encodes, too.
fn record() -> JobRecord {
    let bytes = raw_record();
    let record = JobRecord::from_bytes(&bytes).expect("a record");
    assert_eq!(record.to_bytes(), bytes);
    record
}

fn raw_record() -> Bytes {
    let body = body();
    let message = RawMessage::read(&body).expect("a message");
    RawRecord::encoded(&message, message.id(), now_us()).into()
}

#[divan::bench]
fn message_encode(bencher: Bencher<'_, '_>) {
    let message = message();
    bencher.bench_local(|| black_box(&message).seal());
}

#[divan::bench]
fn message_encode_raw(bencher: Bencher<'_, '_>) {
    let body = body();
    let message = RawMessage::read(&body).expect("a message");
    bencher.bench_local(|| rmp_serde::to_vec_named(black_box(&message)));
}

#[divan::bench]
fn message_decode(bencher: Bencher<'_, '_>) {
    let body = body();
    bencher.bench_local(|| Message::open(black_box(&body)));
}

#[divan::bench]
fn message_decode_raw(bencher: Bencher<'_, '_>) {
    let body = body();
    bencher.bench_local(|| RawMessage::read(black_box(&body)).map(|message| message.run()));
}

#[divan::bench]
fn record_encode(bencher: Bencher<'_, '_>) {
    let record = record();
    bencher.bench_local(|| black_box(&record).to_bytes());
}

#[divan::bench]
fn record_encode_raw(bencher: Bencher<'_, '_>) {
    let bytes = raw_record();
    let record: RawRecord<'_> = rmp_serde::from_slice(&bytes).expect("a record");
    bencher.bench_local(|| rmp_serde::to_vec_named(black_box(&record)));
}

#[divan::bench]
fn record_decode(bencher: Bencher<'_, '_>) {
    let bytes = raw_record();
    bencher.bench_local(|| JobRecord::from_bytes(black_box(&bytes)));
}

#[divan::bench]
fn record_decode_raw(bencher: Bencher<'_, '_>) {
    let bytes = raw_record();
    bencher.bench_local(|| rmp_serde::from_slice::<RawRecord<'_>>(black_box(&bytes)).map(drop));
}

/// The arguments of a call, as a worker reads them for an annotated function.
#[divan::bench]
fn arguments_decode(bencher: Bencher<'_, '_>) {
    let (task, arguments) = (TaskDef::of::<crate::run::noop>(), arguments());
    bencher.bench_local(|| task.check(black_box(&arguments)));
}

/// The same for a task that was made at run time.
#[divan::bench]
fn arguments_decode_dynamic(bencher: Bencher<'_, '_>) {
    let task = TaskDef::from_fn("dynamic", |_, Args { .. }| async { Ok::<_, TaskError>(()) });
    let arguments = arguments();
    bencher.bench_local(|| task.check(black_box(&arguments)));
}

#[divan::bench]
fn arguments_decode_raw(bencher: Bencher<'_, '_>) {
    #[derive(Deserialize)]
    struct Borrowed<'a> {
        number: u64,
        text: &'a str,
    }
    let bytes = rmp_serde::to_vec_named(&args()).expect("plain data");
    bencher.bench_local(|| {
        let Borrowed { number, text } = rmp_serde::from_slice(black_box(&bytes)).expect("arguments");
        black_box((number, text.len()))
    });
}
