//! The state machine of jobs as a property: whatever clients and workers do, in whatever order,
//! every job goes the way of the [`model`].
//!
//! - [`op`]: what clients and workers do, drawn at random; a failure shrinks, and prints its
//!   operations.
//! - [`bodies`]: the task, whose bodies are held by the test and leave behind which of them ran.
//! - [`model`]: what a job may be after each operation.
//! - [`world`]: does the operations to the library, one at a time on a clock that is paused, and
//!   compares.
//! - [`race`]: several clients do them at once, on memory and on NATS, where what holds in every
//!   order is checked.

#![allow(clippy::unwrap_used)]

mod bodies;
mod look;
mod model;
mod op;
mod race;
mod worker;
mod world;

use aioq_tests::Bed;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::op::Op;

/// Number of cases, unless `PROPTEST_CASES` says otherwise.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { cases };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 1_000, ..default }
}

/// Tries a property on `cases` random inputs. Each runs by itself, so that a failure shrinks.
fn check<S: Strategy>(cases: u32, inputs: S, property: impl Fn(S::Value)) {
    let tried = TestRunner::new(config(cases)).run(&inputs, |input| {
        property(input);
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
}

#[test]
fn jobs_go_as_the_model_says() {
    check(300, vec(op::any_op(), 1..60), in_virtual_time);
}

/// Runs one sequence on a runtime of its own whose clock is paused: time passes only when nothing
/// else can.
fn in_virtual_time(ops: Vec<Op>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(world::run(&ops));
}

#[test]
fn in_memory_no_race_breaks_a_promise() {
    races(60, async || Bed::memory());
}

#[test]
fn on_nats_no_race_breaks_a_promise() {
    races(15, Bed::nats);
}

/// Lets clients race in `cases` random cases, each on a bed of its own.
fn races(cases: u32, bed: impl AsyncFn() -> Bed) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let clients = vec(vec(op::client_op(), 1..15), 2..4);
    let ends = vec(op::how(), 1..10);
    check(cases, (clients, ends), |(clients, ends)| {
        runtime.block_on(async { race::run(bed().await, clients, ends).await });
    });
}
