//! The memory backend keeps every promise of the three seams.
#![cfg(feature = "testing")]

use aioq::{Backend, Memory};

aioq::conformance_suite!(async || Backend::from(Memory::new()));
