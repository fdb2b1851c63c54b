//! A flow: 20,000 rows are imported, and one mail is sent at the end.
//!
//! `cargo run --release --example flow`

use aioq::BoxError;
use aioq::error::JobError;
use aioq::flow::join;
use aioq::prelude::*;
use tokio_util::sync::CancellationToken;

const ROWS: u32 = 20_000;

/// Number of rows whose results one job counts. A job waits for at most 10,000 others.
const CHUNK: u32 = 1_000;

/// Imports one row. One in a thousand is broken.
#[task]
async fn import(row: u32) -> TaskResult<u32> {
    if row % 1_000 == 7 { Err(TaskError::fatal(format!("row {row} has no date"))) } else { Ok(row) }
}

/// Runs once all rows of a chunk have ended, whatever became of them.
#[task]
async fn count(rows: Vec<Result<u32, JobError>>) -> (usize, Vec<String>) {
    let errors: Vec<String> =
        rows.iter().filter_map(|row| Some(row.as_ref().err()?.message.clone())).collect();
    (rows.len() - errors.len(), errors)
}

#[task(retry(max = 5))]
async fn mail(counts: Vec<(usize, Vec<String>)>, to: &str) -> String {
    let imported: usize = counts.iter().map(|(imported, _)| imported).sum();
    let errors: Vec<&String> = counts.iter().flat_map(|(_, errors)| errors).collect();
    format!("to {to}: {imported} rows imported, {} not, the first: {}", errors.len(), errors[0])
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let worker = App::new(Memory::new()).worker().await?;
    let client = worker.client().clone();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone().cancelled_owned()));

    let chunk = |chunk: u32| {
        let rows: Vec<_> = (chunk * CHUNK..(chunk + 1) * CHUNK).map(import).collect();
        join(rows).then_settled(count)
    };
    let chunks: Vec<_> = (0..ROWS / CHUNK).map(chunk).collect();
    let handle = client.kiq_flow(join(chunks).then(mail::with("ada@example.org"))).await?;
    let sent = handle.result().await?;
    println!("{sent}");
    assert_eq!(sent, "to ada@example.org: 19980 rows imported, 20 not, the first: row 7 has no date");

    stop.cancel();
    running.await??;
    Ok(())
}
