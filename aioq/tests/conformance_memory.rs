//! The memory backend keeps every promise of the three seams.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "testing")]

use aioq::{Backend, Memory};

aioq::conformance_suite!(async || Backend::from(Memory::new()));
