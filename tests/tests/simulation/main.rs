//! Workers and clients in worlds where everything goes wrong that may, each drawn from a seed, in
//! virtual time.
//!
//! - [`bodies`]: the task; what its jobs do is drawn at random.
//! - [`clients`]: clients that kick, cancel, abort and retry jobs.
//! - [`workers`]: a worker.
//! - [`crew`]: workers that come, go, crash and freeze, until everything is at rest.
//! - [`world`]: runs a seed of clients and workers.
//! - [`check`]: what must be true of everything that happened.
//! - [`keys`]: kickers of unique and debounced jobs that freeze and die, in worlds of their own.
//! - [`dependencies`]: jobs that wait for others, in worlds of their own.
//! - [`schedules`]: schedules and their ticks, in worlds of their own.
//! - [`found`]: what seeds have brought to light, each by itself.
//!
//! `AIOQ_SIM_SEEDS=100000` runs this number of seeds, `AIOQ_SIM_SEED=42` this one, with its
//! journal.

#![allow(clippy::unwrap_used)]

mod bodies;
mod check;
mod clients;
mod crew;
mod dependencies;
mod found;
mod keys;
mod schedules;
mod workers;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use aioq_tests::faults::Broken;

use crate::crew::Outcome;
use crate::world::simulate;

/// Number of seeds, unless `AIOQ_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 1_500;
const SEEDS_OF_KEYS: u64 = 300;
const SEEDS_OF_BURSTS: u64 = 150;
const SEEDS_OF_DEPENDENCIES: u64 = 150;
const SEEDS_OF_SCHEDULES: u64 = 150;
/// Number of seeds within which a mistake is noticed.
const SEEDS_OF_MISTAKES: u64 = 1_000;

#[test]
fn thousands_of_seeds_keep_every_promise() {
    run_seeds(SEEDS, simulate);
}

#[test]
fn thousands_of_seeds_keep_every_promise_of_unique_keys() {
    run_seeds(SEEDS_OF_KEYS, keys::simulate);
}

#[test]
fn thousands_of_seeds_keep_every_promise_of_debounced_jobs() {
    run_seeds(SEEDS_OF_BURSTS, keys::simulate_bursts);
}

#[test]
fn thousands_of_seeds_keep_every_promise_of_dependencies() {
    run_seeds(SEEDS_OF_DEPENDENCIES, dependencies::simulate);
}

#[test]
fn thousands_of_seeds_keep_every_promise_of_schedules() {
    run_seeds(SEEDS_OF_SCHEDULES, schedules::simulate);
}

/// Number of seeds after which a long run says how far it is.
const PROGRESS: u64 = 5_000;

/// Runs a seed, with a promise broken.
type Simulate = fn(u64, Option<Broken>) -> Outcome;

/// Runs this number of seeds, unless the environment says otherwise.
fn run_seeds(seeds: u64, simulate: Simulate) {
    if let Some(seed) = from_env("AIOQ_SIM_SEED") {
        let outcome = simulate(seed, None);
        outcome.journal.lines().iter().for_each(|line| println!("{line}"));
        report(seed, &outcome);
        return;
    }
    let (next, seeds) = (AtomicU64::new(0), from_env("AIOQ_SIM_SEEDS").unwrap_or(seeds));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds)
                {
                    report(seed, &simulate(seed, None));
                    if seed % PROGRESS == PROGRESS - 1 {
                        println!("{} seeds", seed + 1);
                    }
                }
            });
        }
    });
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn report(seed: u64, outcome: &Outcome) {
    if outcome.wrong.is_empty() {
        return;
    }
    let lines: Vec<String> = outcome.journal.lines().iter().map(ToString::to_string).collect();
    panic!(
        "seed {seed}\n{}\nwhat is wrong with seed {seed}:\n{}",
        lines.join("\n"),
        outcome.wrong.join("\n")
    );
}

#[test]
fn a_seed_is_the_same_world_each_time() {
    // Not those of schedules: their ticks depend on the time of day.
    for simulate in [simulate, keys::simulate, keys::simulate_bursts, dependencies::simulate] {
        for seed in 0..12 {
            let hash = || simulate(seed, None).journal.hash();
            assert_eq!(hash(), hash(), "seed {seed}");
        }
    }
}

#[test]
fn a_broken_promise_is_noticed() {
    for broken in [Broken::Kicks, Broken::Expectations, Broken::Records, Broken::Removals] {
        is_noticed(broken, simulate);
    }
}

#[test]
fn a_broken_promise_of_unique_keys_is_noticed() {
    for broken in [Broken::Marks, Broken::Takeovers, Broken::Entries] {
        is_noticed(broken, keys::simulate);
    }
}

#[test]
fn a_broken_promise_of_debounced_jobs_is_noticed() {
    for broken in [Broken::Entries, Broken::Freeing] {
        is_noticed(broken, keys::simulate_bursts);
    }
}

#[test]
fn a_broken_promise_of_dependencies_is_noticed() {
    for broken in [Broken::Records, Broken::Expectations, Broken::Kicks] {
        is_noticed(broken, dependencies::simulate);
    }
}

#[test]
fn a_broken_promise_of_schedules_is_noticed() {
    for broken in [Broken::Fences, Broken::Entries, Broken::Kicks] {
        is_noticed(broken, schedules::simulate);
    }
}

/// One of these seeds shows the mistake.
fn is_noticed(broken: Broken, simulate: Simulate) {
    let noticed = (0..SEEDS_OF_MISTAKES).find(|seed| !simulate(*seed, Some(broken)).wrong.is_empty());
    assert!(noticed.is_some(), "{broken:?} is not noticed");
    println!("{broken:?} is noticed with seed {noticed:?}");
}
