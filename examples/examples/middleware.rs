//! Middlewares: code around every run and every kick.
//!
//! `cargo run --example middleware`

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aioq::client::{KickNext, Sent};
use aioq::prelude::*;
use aioq::{BoxError, Message, async_trait};

#[task]
async fn divide(a: i64, b: i64) -> Result<i64, String> {
    a.checked_div(b).ok_or_else(|| "division by zero".to_owned())
}

/// Counts outcomes by task. A middleware that is a cheap handle can be asked later.
#[derive(Clone, Default)]
struct Outcomes(Arc<Mutex<BTreeMap<(String, &'static str), u32>>>);

#[async_trait]
impl Middleware for Outcomes {
    async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
        let task = ctx.task().to_owned();
        // Everything further in: the next middleware, or the body.
        let outcome = next.run(ctx).await;
        let name = match &outcome {
            Outcome::Done(_) => "done",
            Outcome::Failed(_) => "failed",
            _ => "other",
        };
        if let Ok(mut counts) = self.0.lock() {
            *counts.entry((task, name)).or_default() += 1;
        }
        outcome
    }
}

/// Does not let a job run outside of its tenant: a middleware that does not call `next` skips the
/// body.
struct OnlyFor(&'static str);

#[async_trait]
impl Middleware for OnlyFor {
    async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
        match ctx.label("tenant").and_then(|label| label.as_str()) {
            Some(tenant) if tenant == self.0 => next.run(ctx).await,
            other => Outcome::Failed(TaskError::fatal(format!("this worker is not for {other:?}"))),
        }
    }
}

/// Around the kick: labels every message that has none, and refuses some.
struct Stamp;

#[async_trait]
impl Middleware for Stamp {
    async fn kick(&self, mut message: Message, next: KickNext<'_>) -> aioq::Result<Sent> {
        if message.labels.contains_key("forbidden") {
            return Err(aioq::Error::new(aioq::ErrorKind::InvalidArgument, "forbidden"));
        }
        message.labels.entry("tenant".to_owned()).or_insert("acme".into());
        next.run(message).await
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let outcomes = Outcomes::default();
    // The first one is the outermost: `Outcomes` sees what `OnlyFor` refuses.
    let app =
        App::new(Memory::new()).middleware(outcomes.clone()).middleware(OnlyFor("acme")).middleware(Stamp);
    let worker = app.worker().await?;
    let client = worker.client().clone();

    let stamped = client.kiq(divide(6, 3)).await?;
    let by_zero = client.kiq(divide(6, 0)).await?;
    let elsewhere = client.kiq(divide(6, 3).label("tenant", "umbrella")).await?;
    let refused = client.kiq(divide(6, 3).label("forbidden", true)).await;
    assert_eq!(refused.err().map(|error| error.kind()), Some(aioq::ErrorKind::InvalidArgument));
    worker.drain().await?;

    assert_eq!(stamped.get_result().await?, 2);
    assert!(by_zero.get_result().await.is_err());
    let error = elsewhere.get_result().await.err().ok_or("the worker is not for umbrella")?;
    assert!(error.to_string().ends_with("not for Some(\"umbrella\")"), "{error}");

    let counts = outcomes.0.lock().map_err(|_| "poisoned")?;
    let count = |name| counts.get(&("divide".to_owned(), name)).copied();
    assert_eq!((count("done"), count("failed"), count("other")), (Some(1), Some(2), None));
    println!("{counts:?}");
    Ok(())
}
