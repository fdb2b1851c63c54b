//! The protocol of unique keys.

mod world;

use self::world::{Setting, World};
use crate::link::Mistake;
use crate::search::{exhaust, runs, sample, samples};

/// Two kicks and a kicker that dies.
const CRASHED_KICK: Setting = Setting { kickers: 2, kick_crashes: 1, ..Setting::CALM };

#[test]
fn two_kicks_of_which_one_may_die_never_run_two_bodies() {
    exhaust::<World>(CRASHED_KICK, runs()).unwrap();
}

#[test]
fn two_kicks_and_a_worker_that_dies_never_run_two_bodies() {
    exhaust::<World>(Setting { kickers: 2, work_crashes: 1, ..Setting::CALM }, runs()).unwrap();
}

#[test]
fn three_kicks_crashes_and_a_rerun_never_run_two_bodies() {
    let all = Setting { kickers: 3, kick_crashes: 1, work_crashes: 1, rerun: true, ..Setting::CALM };
    sample::<World>(all, samples()).unwrap();
    sample::<World>(Setting { kickers: 2, ..all }, samples()).unwrap();
}

/// Without the mark of a kick that doubts a job, two jobs of a key run at once: so the search finds
/// what it looks for.
#[test]
fn a_takeover_without_a_mark_is_found() {
    let trace =
        exhaust::<World>(Setting { mistake: Some(Mistake::MarkLost), ..CRASHED_KICK }, u64::MAX).unwrap_err();
    assert!(trace.contains("two bodies"), "{trace}");
    println!("{trace}");
}
