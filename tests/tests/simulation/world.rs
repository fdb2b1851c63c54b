//! Worlds of clients that kick, cancel, abort, rerun and remove jobs.

use std::time::Duration;

use aioq_tests::faults::Broken;
use tokio::time::sleep;

use crate::check::check;
use crate::clients::{Asked, Producer};
use crate::crew::{Crew, Outcome, in_virtual_time};

/// Largest distance of a worker's clock from the others, in milliseconds.
const CLOCKS_APART: u64 = 4_000;

/// Runs a seed.
pub(crate) fn simulate(seed: u64, broken: Option<Broken>) -> Outcome {
    in_virtual_time(seed, run(seed, broken))
}

async fn run(seed: u64, broken: Option<Broken>) -> Outcome {
    let random = fastrand::Rng::with_seed(seed.wrapping_mul(31) + 7);
    let draw_clocks =
        |random: &mut fastrand::Rng| if random.bool() { 1 } else { random.u64(1..CLOCKS_APART) };
    let mut crew = Crew::new(seed, broken, random, draw_clocks).await;
    let asked = Asked::default();
    let mut producers = Vec::new();
    for number in 0..crew.random.usize(1..=3) {
        let producer = Producer::new(number, &crew.faults, &crew.backend, &asked, crew.random.fork()).await;
        producers.push(tokio::spawn(producer.work(crew.random.usize(4..16))));
    }
    while producers.iter().any(|producer| !producer.is_finished()) {
        sleep(Duration::from_millis(crew.random.u64(..3_000))).await;
        crew.disturb().await;
    }
    for producer in producers {
        producer.await.unwrap();
    }
    let jobs = asked.jobs();
    crew.come_to_rest(&jobs.keys().cloned().collect::<Vec<_>>()).await;
    let mut records = Vec::new();
    for id in jobs.keys() {
        records.push((id.clone(), crew.client.jobs().get(id).await.ok()));
    }
    let wrong = check(&jobs, &records, &crew.stage.runs(), crew.faults.journal());
    crew.outcome(wrong)
}
