//! The protocol of dependencies: one job after one to three parents.

mod world;

use self::world::{Setting, World};
use crate::link::Mistake;
use crate::search::{exhaust, runs, sample, samples};

const ONE_PARENT: Setting = Setting { parents: 1, ..Setting::CALM };

/// A parent that may fail, and is run again by hand.
const FAILING: Setting = Setting { failing: 1, parent_reruns: 1, ..Setting::CALM };

#[test]
fn a_job_runs_once_after_its_parents() {
    exhaust::<World>(ONE_PARENT, runs()).unwrap();
    exhaust::<World>(Setting::CALM, runs()).unwrap();
}

#[test]
fn a_worker_that_dies_leaves_nobody_waiting() {
    exhaust::<World>(Setting { work_crashes: 1, ..ONE_PARENT }, runs()).unwrap();
    sample::<World>(Setting { parents: 3, work_crashes: 2, ..Setting::CALM }, samples()).unwrap();
}

#[test]
fn a_kicker_that_dies_leaves_the_job_to_the_sweep() {
    let dying = Setting { kick_crashes: 1, ..Setting::CALM };
    exhaust::<World>(Setting { parents: 1, ..dying }, runs()).unwrap();
    sample::<World>(Setting { parents: 3, work_crashes: 1, ..dying }, samples()).unwrap();
}

#[test]
fn a_failed_parent_that_completes_later_brings_the_job_back_to_life() {
    exhaust::<World>(Setting { parents: 1, ..FAILING }, runs()).unwrap();
    sample::<World>(Setting { failing: 2, parent_reruns: 2, work_crashes: 1, ..FAILING }, samples()).unwrap();
}

#[test]
fn crashes_and_reruns_of_parents_and_job_leave_nobody_waiting() {
    let all = Setting { kick_crashes: 1, work_crashes: 1, rerun_crashes: 1, child_rerun: true, ..FAILING };
    sample::<World>(all, samples()).unwrap();
    sample::<World>(Setting { parents: 3, failing: 2, parent_reruns: 2, ..all }, samples()).unwrap();
}

/// A job that is kicked although its record does not say so: a late end of a parent fails it while
/// it runs.
#[test]
fn a_kick_without_its_announcement_is_found() {
    let mistaken = Setting { mistake: Some(Mistake::ReleaseLost), work_crashes: 1, ..FAILING };
    let trace = sample::<World>(mistaken, MANY).unwrap_err();
    assert!(trace.contains("its parents have completed, and it is failed"), "{trace}");
    println!("{trace}");
}

/// A rerun by hand whose end nobody is told of.
#[test]
fn a_rerun_that_is_not_awaited_is_found() {
    let mistaken = Setting { mistake: Some(Mistake::RerunNotAwaited), ..FAILING };
    let trace = sample::<World>(mistaken, MANY).unwrap_err();
    assert!(trace.contains("its parents have completed, and it is failed"), "{trace}");
    println!("{trace}");
}

/// Random orders in which a mistake must be found.
const MANY: u64 = 20_000;
