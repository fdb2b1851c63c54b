//! Workers, producers and servers that die, freeze or vanish, as processes: every confirmed job
//! runs, and the ledger that the jobs write shows how often.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod bed;
mod debounce;
mod dependencies;
mod diamonds;
mod fencing;
mod flow;
mod ledger;
mod matrix;
mod outage;
mod points;
mod rush;
mod schedules;
mod states;
mod unique;
