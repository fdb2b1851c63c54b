//! Many processes that kick one unique key at once, while some of them and the workers are killed.

use std::path::Path;

use aioq_tests::rush::{Plan, Rush};

/// The program that can be a kicker.
const KICKER: &str = env!("CARGO_BIN_EXE_rush");

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_many_processes_kick_at_once_has_one_job_at_a_time() {
    let plan = Plan { kickers: 8, rounds: 30, workers: 2, seed: 7 };
    let figures = Rush::run(plan, Path::new(KICKER)).await;
    println!("{figures}");
    assert!(figures.is_clean(), "{figures}");
    assert!(figures.new > 3 && figures.killed_kickers > 3 && figures.killed_workers > 1, "{figures}");
}
