//! Worlds of jobs that wait for others: clients that kick them, call some of them off and rerun
//! others, and die in the middle of it, and workers that do, too.
//!
//! - [`graph`]: the jobs, and the clients that kick them.
//! - [`check`]: what must be true of them at rest.

mod check;
mod graph;

use std::time::Duration;

use aioq::store::Expect;
use aioq_tests::faults::{Broken, Fact};
use tokio::time::sleep;

use self::graph::{Graph, start_client};
use crate::crew::{Crew, MOST_SLOTS, Outcome, in_virtual_time};

/// Longer than a worker that died as it swept keeps others from it, and than any clock is ahead,
/// and then a few sweeps.
const SWEPT: Duration = Duration::from_secs(9 * 60);

/// Runs a seed of the worlds of jobs that wait for others.
pub(crate) fn simulate(seed: u64, broken: Option<Broken>) -> Outcome {
    in_virtual_time(seed, run(seed, broken))
}

async fn run(seed: u64, broken: Option<Broken>) -> Outcome {
    let random = fastrand::Rng::with_seed(seed.wrapping_mul(53) + 11);
    let draw_clocks = |random: &mut fastrand::Rng| *random.choice(&[1, 4_000, 120_000]).unwrap();
    let mut crew = Crew::new(seed, broken, random, draw_clocks).await;
    let graph = Graph::default();
    let mut clients = Vec::new();
    for number in 0..crew.random.usize(1..=3) {
        clients.push(start_client(&mut crew, &graph, number).await);
    }
    while clients.iter().any(|client| !client.is_finished()) {
        sleep(Duration::from_millis(crew.random.u64(..2_000))).await;
        if crew.random.u32(..8) == 0 {
            let number = crew.random.usize(..clients.len());
            crew.faults.journal().note(0, Fact::Note("a client dies".to_owned()));
            clients.swap_remove(number).abort();
        }
        crew.disturb().await;
    }
    crew.faults.end();
    crew.start_worker(MOST_SLOTS).await;
    // The next sweep looks at all edges, as the first one of a day does.
    crew.backend.kv().delete("lock.edges", Expect::Any).await.unwrap();
    sleep(SWEPT).await;
    crew.come_to_rest(&[]).await;
    let wrong = check::check(&graph, &crew).await;
    crew.outcome(wrong)
}
