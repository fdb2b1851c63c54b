//! Benchmarks of this workspace: the command `bench` that every worker binary has, and what needs
//! more than one backend can give.
//!
//! ```text
//! cargo run --release -p aioq-tests --bin bench                                    # everything
//! cargo run --release -p aioq-tests --bin bench -- bench drain --memory --jobs 200000
//! cargo run --release -p aioq-tests --bin bench -- bench both --nats nats://127.0.0.1:4222
//! cargo run --release -p aioq-tests --bin bench -- ladder
//! ```
//!
//! | command | measured |
//! |---|---|
//! | bench | kick, bulk, drain, both, latency, idle, beside the raw programs: see `aioq::guide::benchmarks` |
//! | look | a page of 50, counts, a cancel, an abort, a clean of 10,000, among 100,000 records |
//! | grow | the cost of a job among 10,000 to 1,000,000: each should cost the same |
//! | many-queues | many queues and tasks against one of each |
//! | queued | the memory that a waiting job takes |
//! | unique | kicks of unique jobs, free and refused, beside plain ones; the memory of held keys |
//! | flow | jobs that wait for others: a chain, many children of one job, many parents of one |
//! | delays | many delayed jobs: memory, a restart, a page, a cancel, and how late those start that fall due at once |
//! | ticks | many schedules: how late their bodies start, and what idle ones cost |
//! | cpu | async jobs beside CPU-bound ones in the same worker: their latency, and how busy the processors are |
//! | ladder | what each promise costs: acknowledged, results, full records; synced writes, three replicas |
//! | seed | nothing: it fills a queue for workers elsewhere |
//!
//! Lines of JSON go to standard output, tables to standard error. `--memory` and `--nats URL`
//! choose where; unless they do, it is in memory and on a server that is started for it.

mod all;
mod cpu;
mod delays;
mod flow;
mod grow;
mod jobs;
mod ladder;
mod look;
mod many_queues;
mod place;
mod queued;
mod report;
mod seed;
mod ticks;
mod unique;

use aioq::bench::Tally;
use aioq::{App, Memory};

#[aioq::main]
fn app() -> App {
    if std::env::var_os("RUST_LOG").is_none() {
        // A span for each job would be measured, too. The command line leaves an existing
        // subscriber alone.
        let _ = tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::new());
    }
    App::new(Memory::new())
        // For `worker`, which runs what `seed` has kicked.
        .state(Tally::of(usize::MAX))
        .command("look", "Look at jobs and steer them, among 100,000 records", look::run)
        .command("grow", "The cost of a job among more and more", grow::run)
        .command("many-queues", "Many queues and tasks against one of each", many_queues::run)
        .command("queued", "The memory that a waiting job takes", queued::run)
        .command("unique", "Kicks of unique jobs, and the memory of held keys", unique::run)
        .command("flow", "Jobs that wait for others", flow::run)
        .command("delays", "Many delayed jobs", delays::run)
        .command("ticks", "Many schedules", ticks::run)
        .command("cpu", "CPU-bound jobs beside async ones", cpu::run)
        .command("ladder", "What each promise costs, on servers of its own", ladder::run)
        .command("seed", "Fill the queue `bench`, for workers elsewhere", seed::run)
        .default_command("Measure everything, in memory and on a server of its own", all::run)
}
