//! Runs the tasks of `../tasks`; see `../producer` for how to try it.
//!
//! Rust leaves out a crate that nothing names, and with it the tasks in it: the worker would refuse
//! to start, and say so. `use .. as _` names it. A worker that takes anything else from the crate,
//! such as the type of a state, has named it already.

use aioq::{App, Memory};
// As for tasks, so for backends: named once, so that `--nats URL` works.
use aioq_nats as _;
use two_crates_tasks as _;

#[aioq::main]
fn app() -> App {
    App::new(Memory::new())
}
