//! The seams in memory, without a worker: a message in, out, its record written on its condition,
//! acked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use aioq::bench::RawMessage;
use aioq::broker::{Demand, Expect as Kick, Listener, Subscription};
use aioq::message::Envelope;
use aioq::store::{Expect, JobRecord, Status};
use aioq::{Backend, JobId, Memory};
use bytes::Bytes;
use divan::Bencher;
use tokio::runtime::Runtime;

const ONE: Demand = Demand { now: 1, prefetch: 0 };

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn started() -> (Backend, Box<dyn Listener>) {
    let backend = Backend::from(Memory::new());
    backend.broker().startup().await.expect("memory starts");
    backend.jobs().expect("a store").startup().await.expect("memory starts");
    let listener = backend.broker().listen(Subscription::new(["micro"])).await.expect("memory listens");
    (backend, listener)
}

fn envelope() -> Envelope {
    let id = RawMessage::new_id();
    let body = RawMessage::encoded(&id, 7);
    Envelope::new(JobId::from(id), "micro", body)
}

/// In and out, acked.
#[divan::bench]
fn kick_take_ack(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let (backend, mut listener) = runtime.block_on(started());
    bencher.with_inputs(envelope).bench_local_values(|envelope| {
        runtime.block_on(async {
            backend.broker().kick(envelope, Kick::Absent).await.expect("a kick");
            let mut taken = listener.next(ONE).await.expect("a delivery");
            taken.remove(0).receipt.ack().await.expect("an ack");
        });
    });
}

/// With a record on the condition that there is none.
#[divan::bench]
fn kick_take_record_ack(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let (backend, mut listener) = runtime.block_on(started());
    let jobs = backend.jobs().expect("a store");
    let inputs = || {
        let envelope = envelope();
        let record = JobRecord::unreadable(envelope.id.clone(), "micro", Status::Completed);
        (envelope, Arc::new(record))
    };
    bencher.with_inputs(inputs).bench_local_values(|(envelope, record)| {
        runtime.block_on(async {
            backend.broker().kick(envelope, Kick::Absent).await.expect("a kick");
            let mut taken = listener.next(ONE).await.expect("a delivery");
            jobs.put(record, Expect::Absent, None).await.expect("a record");
            taken.remove(0).receipt.ack().await.expect("an ack");
        });
    });
}

/// A queue and two maps behind locks: the least that remembers as much.
#[divan::bench]
fn kick_take_record_ack_raw(bencher: Bencher<'_, '_>) {
    let queue = Mutex::new(VecDeque::<(String, Bytes)>::new());
    let held = Mutex::new(HashMap::<String, Bytes>::new());
    let records = Mutex::new(HashMap::<String, Bytes>::new());
    let inputs = || {
        let id = RawMessage::new_id();
        let body = Bytes::from(RawMessage::encoded(&id, 7));
        (id, body)
    };
    bencher.with_inputs(inputs).bench_local_values(|(id, body)| {
        queue.lock().expect("no panic").push_back((id, body));
        let (id, body) = queue.lock().expect("no panic").pop_front().expect("one waits");
        held.lock().expect("no panic").insert(id.clone(), body.clone());
        records.lock().expect("no panic").entry(id.clone()).or_insert(body);
        held.lock().expect("no panic").remove(&id)
    });
}
