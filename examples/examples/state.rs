//! Beside the arguments of a task: state of the worker, the context of the run, and extractors.
//!
//! `cargo run --example state`

use std::collections::HashMap;
use std::sync::Mutex;

use aioq::context::State;
use aioq::prelude::*;
use aioq::{BoxError, ErrorKind};

/// State: made once per worker, lent to every job.
struct Rates {
    euros: HashMap<&'static str, f64>,
}

impl Rates {
    async fn load() -> Result<Self, std::io::Error> {
        // A real program would ask a database.
        Ok(Self { euros: HashMap::from([("USD", 0.9), ("GBP", 1.2)]) })
    }
}

/// State that changes brings its own lock.
#[derive(Default)]
struct Ledger {
    lines: Mutex<Vec<String>>,
}

/// `#[inject]` parameters come from the worker. They do not travel, and producers do not see them.
#[task]
async fn convert(amount: f64, currency: &str, #[inject] rates: &Rates) -> Result<f64, String> {
    let rate = rates.euros.get(currency).ok_or_else(|| format!("no rate for {currency}"))?;
    Ok(amount * rate)
}

/// An extractor is made anew for each run. This one reads a label, and takes a state.
struct Customer {
    name: String,
    ledger: State<Ledger>,
}

impl FromContext for Customer {
    async fn from_context(ctx: &Context) -> TaskResult<Self> {
        let name = ctx.label("customer").and_then(|label| label.as_str());
        let name = name.ok_or_else(|| TaskError::fatal("the job has no label `customer`"))?.to_owned();
        Ok(Self { name, ledger: State::from_context(ctx).await? })
    }
}

/// The context knows which job this is, and kicks further ones.
#[task]
async fn charge(dollars: f64, #[inject] customer: Customer, #[inject] ctx: &Context) -> TaskResult<String> {
    let conversion = ctx.client().kiq(convert(dollars, "USD")).await?;
    let line = format!("{} pays {dollars} USD, attempt {}", customer.name, ctx.attempt());
    customer.ledger.lines.lock().map_err(|_| "the ledger is poisoned")?.push(line);
    Ok(conversion.id().to_string())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A worker that lacks what its tasks need does not start, and says what is missing.
    let refused = App::new(Memory::new()).state(Ledger::default()).worker().await;
    let refused = refused.err().ok_or("the state is missing")?;
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(refused.to_string().contains("needs state `Rates`"), "{refused}");

    // State is made when a worker starts: a program that only kicks, or prints its help, makes
    // none.
    let app = App::new(Memory::new()).try_state_with(Rates::load).state(Ledger::default());
    let worker = app.worker().await?;
    let client = worker.client().clone();

    let converted = client.kiq(convert(10.0, "GBP")).await?;
    let unknown = client.kiq(convert(10.0, "XXX")).await?;
    let charged = client.kiq(charge(100.0).label("customer", "Ada")).await?;
    let nameless = client.kiq(charge(100.0)).await?;
    worker.drain().await?;

    assert_eq!(converted.get_result().await?, 12.0);
    let error = unknown.get_result().await.err().ok_or("there is no such currency")?;
    assert!(error.to_string().ends_with("no rate for XXX"), "{error}");
    // The job that the job kicked.
    let conversion = client.handle::<f64>(charged.get_result().await?).await?;
    assert_eq!(conversion.get_result().await?, 90.0);
    let error = nameless.get_result().await.err().ok_or("there is no customer")?;
    assert!(error.to_string().contains("no label `customer`"), "{error}");

    // In a unit test nothing is injected: `call` is the body with all its parameters.
    let rates = Rates::load().await?;
    assert_eq!(convert::call(10.0, "USD", &rates).await?, 9.0);
    Ok(())
}
