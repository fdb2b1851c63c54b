//! The pieces of a job, each beside the least that the same could cost: `cargo bench -p aioq`.
//!
//! What no public function does alone is measured through the nearest one that does it: a dispatch,
//! for example, as a worker that empties a queue in memory, per job.

mod codec;
mod registry;
mod run;
mod settle;

/// Counts and allocations are told beside the times.
#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}
