//! Unique jobs: one job of a key at a time, windows, and the newest of many kicks.
//!
//! `cargo run --example unique`

use aioq::BoxError;
use aioq::prelude::*;
use tokio_util::sync::CancellationToken;

/// One unfinished job for each document.
#[task(unique(by = doc))]
async fn index(doc: u32, why: &str) -> String {
    format!("{doc} {why}")
}

/// One success for each customer in an hour.
#[task(unique(by = customer, within = "1h"))]
async fn remind(customer: &str) -> usize {
    customer.len()
}

/// The newest text, a moment after the last change.
#[task(unique(by = doc, debounce = "50ms", max = "1s"))]
async fn publish(doc: u32, text: &str) -> String {
    format!("{doc} {text}")
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let worker = App::new(Memory::new()).worker().await?;
    let client = worker.client().clone();

    // No worker runs yet: the second kick gets the first job.
    let first = client.kiq(index(7, "was created")).await?;
    let second = client.kiq(index(7, "was changed")).await?;
    assert!(second.existing() && second.id() == first.id());
    assert!(!client.kiq(index(8, "was created")).await?.existing(), "another document");

    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone().cancelled_owned()));
    assert_eq!(second.result().await?, "7 was created");
    let third = client.kiq(index(7, "was changed")).await?;
    assert!(!third.existing(), "the first job has ended");
    assert_eq!(third.result().await?, "7 was changed");

    // The window holds the key of a completed job.
    let reminded = client.kiq(remind("ada")).await?;
    assert_eq!(reminded.result().await?, 3);
    assert_eq!(client.kiq(remind("ada")).await?.id(), reminded.id());

    // Any call takes a key of its own.
    let key = "end of month";
    let call = remind("bob").unique_key(key);
    assert_eq!(client.kiq(call).await?.id(), client.kiq(remind("cy").unique_key(key)).await?.id());

    // Of many changes, the newest is published, once.
    let draft = client.kiq(publish(7, "draft")).await?;
    let revised = client.kiq(publish(7, "revised")).await?;
    assert_eq!(draft.id(), revised.id());
    assert_eq!(draft.result().await?, "7 revised");

    stop.cancel();
    running.await??;
    Ok(())
}
