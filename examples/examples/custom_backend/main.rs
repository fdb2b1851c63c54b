//! A backend of your own: aioq on `redb`, a database in one file inside the process.
//!
//! Read it in this order, which is also the order to write one in: `file.rs` (the database, and what every seam
//! needs), `kv.rs` (the smallest seam), `jobs.rs` (the same with records), `messages.rs` (what can happen to a
//! message), `broker.rs` (taking them in), `listener.rs` (handing them out), `backend.rs` (all together). The test
//! `tests/custom_backend.rs` proves it by the conformance suite.
//!
//! Run it with `cargo run --example custom_backend`.

#![allow(unreachable_pub, reason = "a program has no outside")]

mod backend;
mod broker;
mod file;
mod jobs;
mod kv;
mod listener;
mod messages;

use aioq::broker::{Demand, Expect, Subscription};
use aioq::{Arguments, Codec, Message};

#[tokio::main]
async fn main() -> aioq::Result<()> {
    let path = std::env::temp_dir().join(format!("aioq-custom-backend-{}.redb", std::process::id()));
    let backend = aioq::Backend::from(backend::Redb::new(&path));
    let broker = backend.broker();
    broker.startup().await?;

    let arguments = Arguments::from_json(Codec::MessagePack, r#"{"to": "ann@example.org"}"#)?;
    let message = Message::new("welcome-ann".into(), "email.send", arguments);
    broker.kick(message.seal(), Expect::Absent).await?;

    // The message is in the file: a broker that opens it later has it.
    broker.shutdown().await?;
    broker.startup().await?;

    let mut listener = broker.listen(Subscription::new(["default"])).await?;
    for delivery in listener.next(Demand { now: 1, prefetch: 0 }).await? {
        let received = Message::open(&delivery.body)?;
        assert_eq!(received, message);
        println!("{} with {}", received.task, received.arguments.to_json());
        delivery.receipt.ack().await?;
    }
    assert!(broker.find(&message.id).await?.is_none());
    broker.shutdown().await?;
    _ = std::fs::remove_file(path);
    Ok(())
}
