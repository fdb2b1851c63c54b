//! The conformance suite over the memory backend.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "testing")]

use aioq::{Backend, Memory};

aioq::conformance_suite!(async || Backend::from(Memory::new()));
