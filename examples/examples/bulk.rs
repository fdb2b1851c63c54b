//! Many jobs at once: one flush, one fate per call, results as they come.
//!
//! `cargo run --release --example bulk`

use std::time::Instant;

use aioq::prelude::*;
use aioq::{BoxError, ErrorKind};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio_util::sync::CancellationToken;

#[task]
async fn square(number: u64) -> u64 {
    number * number
}

#[task]
async fn length(text: &str) -> usize {
    text.len()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let worker = App::new(Memory::new()).max_payload_bytes(1000).worker().await?;
    let client = worker.client().clone();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone().cancelled_owned()));

    // `kiq_all` waits for all confirmations together, not for one after the other.
    const JOBS: u64 = 10_000;
    let start = Instant::now();
    let handles = client.kiq_all((0..JOBS).map(square)).await;
    let handles = handles.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!("{JOBS} kicks: {:?}", start.elapsed());

    // Results in the order in which the jobs end ..
    let mut ending: FuturesUnordered<_> = handles.iter().map(TaskHandle::result).collect();
    let mut sum: u64 = 0;
    while let Some(result) = ending.next().await {
        sum += result?;
    }
    assert_eq!(sum, (0..JOBS).map(|number| number * number).sum::<u64>());
    println!("{JOBS} jobs: {:?}", start.elapsed());

    // .. or in the order of the calls.
    for (number, handle) in (0..JOBS).zip(&handles) {
        assert_eq!(handle.get_result().await?, number * number);
    }

    // Each call has its own fate, in order: one that cannot be sent does not keep the others back.
    let texts = ["short", &"long".repeat(1000), "short again"];
    let fates = client.kiq_all(texts.map(length)).await;
    assert_eq!(fates[1].as_ref().err().map(|error| error.kind()), Some(ErrorKind::TooLarge));
    for (text, handle) in texts.iter().zip(&fates) {
        if let Ok(handle) = handle {
            assert_eq!(handle.result().await?, text.len());
        }
    }

    // Options belong to each call.
    let calls = (0..3).map(|number| square(number).priority(number as u8).label("batch", "third"));
    for handle in client.kiq_all(calls).await {
        let handle = handle?;
        handle.result().await?;
        assert_eq!(handle.record().await?.labels["batch"], "third".into());
    }

    stop.cancel();
    running.await??;
    Ok(())
}
