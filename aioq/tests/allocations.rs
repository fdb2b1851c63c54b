//! Allocations per job in memory, pinned so that a change that adds to them is seen.

#![allow(clippy::unwrap_used)]

use aioq::App;
use aioq::jobs::JobFilter;
use aioq::prelude::*;

#[task]
async fn noop(number: u64) {
    std::hint::black_box(number);
}

/// Number of counted jobs, after as many that fill the pools and tables.
const JOBS: u64 = 2_000;

fn kick(client: &Client, numbers: std::ops::Range<u64>) -> u64 {
    let kicks = async {
        for number in numbers {
            client.kiq(noop(number)).await.unwrap();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    allocation_counter::measure(|| runtime.block_on(kicks)).count_total
}

/// Allocations per job, rounded. Growing tables add to them now and then.
fn per_job(count: u64) -> u64 {
    (count as f64 / JOBS as f64).round() as u64
}

#[test]
fn a_kick_takes_three_allocations_and_a_run_eight() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let worker = runtime.block_on(App::new(Memory::new()).worker()).unwrap();
    let client = worker.client().clone();
    let mut counts = [(0, 0); 2];
    for (round, counts) in (0..).zip(&mut counts) {
        let kicks = kick(&client, round * JOBS..(round + 1) * JOBS);
        let runs = allocation_counter::measure(|| {
            runtime.block_on(worker.drain()).unwrap();
        });
        *counts = (kicks, runs.count_total);
    }
    let [_, (kicks, runs)] = counts;
    assert!(per_job(kicks) <= 3 && per_job(runs) <= 8, "{kicks} and {runs} of {JOBS} jobs");
}

/// A listed job of ten labels takes 46 allocations, 22 of them to decode its message.
#[test]
fn a_list_decodes_each_message_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(Client::connect(Memory::new())).unwrap();
    let kicks = async {
        for number in 0..JOBS {
            let mut call = noop(number).delay("1h");
            for label in 0..10 {
                call = call.label(format!("label {label}"), "value");
            }
            client.kiq(call).await.unwrap();
        }
    };
    runtime.block_on(kicks);
    let mut listed = 0;
    let counts = allocation_counter::measure(|| {
        let jobs = client.jobs();
        let list = jobs.list(JobFilter::new().task("noop"), JOBS as usize);
        listed = runtime.block_on(list).unwrap().jobs.len();
    });
    assert_eq!(listed, JOBS as usize);
    assert!(per_job(counts.count_total) <= 50, "{} of {JOBS} jobs", counts.count_total);
}
