//! Longer texts.

#[doc = include_str!("guide/backend.md")]
pub mod backend {}
