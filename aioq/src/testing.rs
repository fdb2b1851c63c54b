//! For tests: mocked jobs, clocks that are apart, and the conformance suite that proves a backend.

pub mod conformance;
mod mock;

pub use self::mock::{set_complete, set_in_progress};
pub use crate::time::TestClock;
