//! Schedules: in the code and at run time, and what a cron expression means.
//!
//! `cargo run --example schedules`

use std::sync::atomic::{AtomicU32, Ordering};

use aioq::BoxError;
use aioq::prelude::*;
use aioq::schedules::{Missed, Put, Schedule, ScheduleFilter};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Beats(AtomicU32);

/// In the code: the worker writes it when it starts.
#[task(every = "1s", overlap = "skip")]
async fn beat(#[inject] beats: &Beats, #[inject] ctx: &Context) {
    beats.0.fetch_add(1, Ordering::Relaxed);
    println!("beat for {:?}", ctx.tick());
}

#[task]
async fn invoice(customer: u64) -> u64 {
    customer
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let worker = App::new(Memory::new()).state(Beats::default()).worker().await?;
    let client = worker.client().clone();
    let schedules = client.schedules();

    // At run time, with the options of any call.
    let monthly = || Schedule::cron("0 6 1 * *").tz("Europe/Paris").missed(Missed::Once);
    let put = schedules.put("invoices-42", monthly(), invoice(42).ttl("1d")).await?;
    assert_eq!(put, Put::Created);
    let again = schedules.put("invoices-42", monthly(), invoice(42).ttl("1d")).await?;
    assert_eq!(again, Put::Same, "a program may put it each time it starts");
    println!("next: {:?}", schedules.get("invoices-42").await?.next(3));

    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone().cancelled_owned()));

    // Besides its ticks.
    assert_eq!(schedules.run("invoices-42").await?.wait().await?.task, "invoice");

    // Two ticks of the schedule in the code.
    while schedules.get("beat").await.map_or(0, |view| view.counts.fired) < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(schedules.pause("beat").await?);
    for view in schedules.list(ScheduleFilter::new()).await? {
        println!("{}: {} is {}, {:?}", view.id, view.when, view.state.as_str(), view.counts);
    }

    // A date that never comes is refused with words.
    let never = schedules.put("never", Schedule::cron("0 0 30 2 *"), invoice(1)).await;
    assert!(never.is_err_and(|error| error.to_string().ends_with("never comes")));

    stop.cancel();
    running.await??;
    Ok(())
}
