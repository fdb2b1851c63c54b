//! Every plug, pulled in every way, while jobs flow: the ledger tells what became of them.

use std::path::Path;

use aioq_tests::chaos::{Chaos, Means, Target};

/// The program that can be a producer.
const PRODUCER: &str = env!("CARGO_BIN_EXE_chaos");

/// Three times, with jobs in between; then everything that was promised has happened, once as far
/// as the store can tell.
async fn survives(target: Target, means: Means) {
    let mut chaos = Chaos::start(Path::new(PRODUCER)).await;
    for round in 0..3 {
        // Enough that all kinds of jobs are under way.
        chaos.until_ran(150).await;
        chaos.strike(target, means, round).await;
    }
    chaos.until_ran(50).await;
    let figures = chaos.end().await;
    println!("{figures}");
    assert!(figures.is_clean(), "{figures}");
    assert!(figures.confirmed > 400, "jobs flowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_told_to_end_lose_nothing() {
    survives(Target::Worker, Means::Term).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_lose_nothing() {
    survives(Target::Worker, Means::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_frozen_longer_than_their_leases_lose_nothing() {
    survives(Target::Worker, Means::Freeze).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_are_told_to_end_lose_nothing_that_was_confirmed() {
    survives(Target::Producer, Means::Term).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_are_killed_lose_nothing_that_was_confirmed() {
    survives(Target::Producer, Means::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_are_frozen_lose_nothing_that_was_confirmed() {
    survives(Target::Producer, Means::Freeze).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_told_to_end_lose_nothing() {
    survives(Target::Server, Means::Term).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_killed_lose_nothing() {
    survives(Target::Server, Means::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_frozen_lose_nothing() {
    survives(Target::Server, Means::Freeze).await;
}
