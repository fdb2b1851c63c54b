//! A task, a worker, a kick, a result.
//!
//! `cargo run --example quickstart`

use aioq::BoxError;
use aioq::prelude::*;
use tokio_util::sync::CancellationToken;

/// A task is a function with an attribute. Its arguments and its result travel, so they are serde
/// types.
#[task]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

/// A plain `fn` is a task too. It may block: it runs on threads that are there for that.
#[task(name = "text.count_words", priority = 7)]
fn count_words(text: &str) -> usize {
    text.split_whitespace().count()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Jobs stay in this process's memory, and a worker runs beside the rest of the program. With
    // another backend in the place of `Memory` the worker lives in another process, and nothing
    // else changes.
    let worker = App::new(Memory::new()).worker().await?;
    worker.client().install();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone().cancelled_owned()));

    // `add(1, 2)` is a call: it does nothing yet. `.kiq()` hands it over and returns a handle.
    let handle = add(1, 2).kiq().await?;
    // The result has the type that the function returns, and comes as soon as the worker has it.
    let sum: i64 = handle.result().await?;
    assert_eq!(sum, 3);

    // A call says what is special about this job.
    let urgent = count_words("to be or not to be").priority(0).timeout("5s").label("play", "Hamlet");
    assert_eq!(urgent.kiq().await?.result().await?, 6);

    // An id of your own makes a kick idempotent: the second one finds the job of the first.
    let first = add(40, 2).id("the-answer").kiq().await?;
    let second = add(40, 2).id("the-answer").kiq().await?;
    assert!(!first.existing() && second.existing());
    assert_eq!(second.result().await?, 42);

    // Awaited instead of kicked, the body runs right here, without a worker.
    assert_eq!(add(1, 2).await, 3);

    // The worker ends when this future does, and finishes the jobs that it has begun.
    stop.cancel();
    let summary = running.await??;
    assert_eq!(summary.jobs, 3);
    println!("{} jobs done", summary.jobs);
    Ok(())
}
