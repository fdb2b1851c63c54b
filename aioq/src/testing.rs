//! Tools for tests: mocked jobs, clocks of several machines, and the conformance suite for
//! backends.

pub mod conformance;
mod mock;

pub use self::mock::{set_complete, set_in_progress};
pub use crate::time::TestClock;
