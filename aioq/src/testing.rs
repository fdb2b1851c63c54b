//! For tests: the conformance suite that proves a backend.

pub mod conformance;
