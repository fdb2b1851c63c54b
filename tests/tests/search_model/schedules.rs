//! The protocol of a tick: schedulers that fire it, and the worker that runs its job.

mod world;

use self::world::{Setting, World};
use crate::link::Mistake;
use crate::search::{exhaust, runs, sample, samples};

/// Two schedulers, and a record of the job that is forgotten at any moment.
const FORGETFUL: Setting = Setting { forget: 1, ..Setting::CALM };

#[test]
fn two_schedulers_run_a_tick_once() {
    exhaust::<World>(Setting::CALM, runs()).unwrap();
    exhaust::<World>(FORGETFUL, runs()).unwrap();
}

#[test]
fn schedulers_that_die_lose_no_tick() {
    exhaust::<World>(Setting { deaths: 1, ..FORGETFUL }, runs()).unwrap();
    sample::<World>(Setting { schedulers: 3, deaths: 2, ..FORGETFUL }, samples()).unwrap();
}

#[test]
fn a_pause_and_dying_workers_run_no_tick_twice() {
    let paused = Setting { schedulers: 3, deaths: 1, pause: true, ..FORGETFUL };
    sample::<World>(paused, samples()).unwrap();
    sample::<World>(Setting { work_crashes: 1, deaths: 2, forget: 0, ..paused }, samples()).unwrap();
    sample::<World>(Setting { work_crashes: 1, deaths: 2, ..paused }, samples()).unwrap();
}

/// Without the question of the worker a late kick runs the tick once more.
#[test]
fn a_worker_that_does_not_ask_is_found() {
    let mistaken = Setting { mistake: Some(Mistake::TickNotAsked), ..FORGETFUL };
    let trace = exhaust::<World>(mistaken, u64::MAX).unwrap_err();
    assert!(trace.contains("the tick has run 2 times"), "{trace}");
    println!("{trace}");
}
