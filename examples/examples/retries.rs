//! After a failure: retries, errors that are final, and a body that decides.
//!
//! `cargo run --example retries`

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aioq::error::Reason;
use aioq::prelude::*;
use aioq::{BoxError, ErrorKind};
use tokio_util::sync::CancellationToken;

/// Without `retry(..)` a failure is final. With it, `max` counts the runs after the first.
#[task(retry(max = 3, backoff = "10ms..1s", jitter))]
async fn third_time_lucky(#[inject] ctx: &Context) -> Result<u32, String> {
    match ctx.attempt() {
        3 => Ok(3),
        attempt => Err(format!("attempt {attempt} was not lucky")),
    }
}

/// An error type of your own, as `thiserror` makes them.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the server is busy")]
    Busy,
    #[error("`{0}` is no address")]
    NoAddress(String),
}

impl SendError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// `when` looks at the typed error: a failure that is permanent is not tried again.
#[task(retry(max = 5, backoff = "10ms", when = SendError::is_transient))]
async fn send(to: &str, #[inject] ctx: &Context) -> Result<(), SendError> {
    match (to.contains('@'), ctx.attempt()) {
        (false, _) => Err(SendError::NoAddress(to.to_owned())),
        (true, 1) => Err(SendError::Busy),
        (true, _) => Ok(()),
    }
}

/// True if the file to import has arrived.
#[derive(Default)]
struct Arrived(AtomicBool);

/// A body that returns `TaskResult` decides on the next step. `?` turns any error into one that
/// follows `retry(..)`.
#[task(retry(max = 1))]
async fn import(text: &str, #[inject] arrived: &Arrived, #[inject] ctx: &Context) -> TaskResult<i64> {
    if !arrived.0.swap(true, Ordering::SeqCst) {
        // Not a failure: later, and no attempt is spent.
        return Err(TaskError::snooze("10ms"));
    }
    match (text, ctx.attempt()) {
        ("", _) => Err(TaskError::cancel("there is nothing to import")),
        ("busy", 1) => Err(TaskError::retry_in("10ms", "come back later")),
        ("busy", _) => Ok(0),
        (text, _) if text.len() > 8 => Err(TaskError::fatal("too long, however often it is tried")),
        (text, _) => Ok(text.parse::<i64>()?),
    }
}

/// A panic and a timeout are failures like any other.
#[task(timeout = "20ms", retry(max = 1, backoff = "10ms"))]
async fn stuck(#[inject] ctx: &Context) -> u32 {
    match ctx.attempt() {
        1 => std::future::pending().await,
        attempt => panic!("attempt {attempt} panics"),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let worker = App::new(Memory::new()).state(Arrived::default()).worker().await?;
    worker.client().install();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone().cancelled_owned()));

    // The record of the job keeps the failures of earlier attempts.
    let lucky = third_time_lucky().kiq().await?;
    assert_eq!(lucky.result().await?, 3);
    let record = lucky.record().await?;
    assert_eq!((record.attempt, record.errors.len()), (3, 2));
    assert_eq!(record.errors[0].error.message, "attempt 1 was not lucky");

    // A call may have fewer retries than its task, or more.
    let unlucky = third_time_lucky().retries(1).kiq().await?;
    let error = unlucky.result().await.err().ok_or("two attempts are not enough")?;
    assert_eq!(error.kind(), ErrorKind::JobFailed);
    assert!(error.to_string().ends_with("attempt 2 was not lucky"), "{error}");

    assert!(send("ada@example.com").kiq().await?.result().await.is_ok());
    let nowhere = send("ada").kiq().await?.wait().await?;
    assert_eq!(nowhere.attempt, 1, "not tried again");
    let error = nowhere.error.ok_or("it failed")?;
    assert_eq!((&*error.exc_type, &*error.message), ("SendError", "`ada` is no address"));

    let snoozed = import("42").kiq().await?.wait().await?;
    assert_eq!((snoozed.attempt, snoozed.errors.len()), (1, 0), "put off, but not failed");
    assert_eq!(import("busy").kiq().await?.result().await?, 0);
    let cancelled = import("").kiq().await?.result().await.err().ok_or("nothing to import")?;
    assert_eq!(cancelled.kind(), ErrorKind::Cancelled);
    let fatal = import("123456789").kiq().await?.wait().await?;
    assert_eq!((fatal.attempt, fatal.max_retries), (1, 1));
    let not_a_number = import("x").kiq().await?.wait().await?;
    assert_eq!((not_a_number.attempt, not_a_number.reason), (2, Some(Reason::Error)));

    let stuck = stuck().kiq().await?;
    assert!(stuck.result_within(Duration::from_secs(10)).await.is_err());
    let reasons: Vec<_> = stuck.record().await?.errors.iter().map(|failure| failure.reason).collect();
    assert_eq!(reasons, [Reason::Timeout, Reason::Panic]);

    stop.cancel();
    running.await??;
    Ok(())
}
