//! The protocol of unique keys, searched: kicks, workers and a rerun by hand, in every order of
//! their requests, with crashes between two requests.
//!
//! - [`desk`]: each request of each actor waits here until the search lets it through.
//! - [`link`]: the backend of one actor, whose requests go to the desk.
//! - [`world`]: the actors, and what must hold at every step and at rest.
//! - [`search`]: takes every choice, or draws them at random.
//!
//! The actors are the clients and workers of the library, over a backend in memory.

#![allow(clippy::unwrap_used)]

mod desk;
mod link;
mod search;
mod world;

use crate::search::{exhaust, sample};
use crate::world::Setting;

/// Two kicks and a kicker that dies.
const CRASHED_KICK: Setting = Setting { kickers: 2, kick_crashes: 1, ..Setting::CALM };

#[test]
fn two_kicks_of_which_one_may_die_never_run_two_bodies() {
    exhaust(CRASHED_KICK, runs()).unwrap();
}

#[test]
fn two_kicks_and_a_worker_that_dies_never_run_two_bodies() {
    exhaust(Setting { kickers: 2, work_crashes: 1, ..Setting::CALM }, runs()).unwrap();
}

#[test]
fn three_kicks_crashes_and_a_rerun_never_run_two_bodies() {
    let all = Setting { kickers: 3, kick_crashes: 1, work_crashes: 1, rerun: true, ..Setting::CALM };
    sample(all, samples()).unwrap();
    sample(Setting { kickers: 2, ..all }, samples()).unwrap();
}

/// Without the mark of a kick that doubts a job, two jobs of a key run at once: so the search finds
/// what it looks for.
#[test]
fn a_takeover_without_a_mark_is_found() {
    let trace = exhaust(Setting { loses_marks: true, ..CRASHED_KICK }, u64::MAX).unwrap_err();
    assert!(trace.contains("two bodies"), "{trace}");
    println!("{trace}");
}

/// Number of runs of an exhaustive search, unless `AIOQ_MODEL_RUNS` says otherwise. All orders of
/// two kicks and a death take 7,000 runs.
fn runs() -> u64 {
    std::env::var("AIOQ_MODEL_RUNS").map_or(200, |number| number.parse().expect("a number"))
}

/// Number of random orders, unless `AIOQ_MODEL_SAMPLES` says otherwise.
fn samples() -> u64 {
    std::env::var("AIOQ_MODEL_SAMPLES").map_or(200, |number| number.parse().expect("a number"))
}
