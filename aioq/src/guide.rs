//! Guides: how to do something with aioq, from the beginning.

#[doc = include_str!("guide/backend.md")]
pub mod backend {}

#[doc = include_str!("guide/benchmarks.md")]
pub mod benchmarks {}

#[doc = include_str!("guide/deploy.md")]
pub mod deploy {}

#[doc = include_str!("guide/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("guide/jobs.md")]
pub mod jobs {}

#[doc = include_str!("guide/tasks.md")]
pub mod tasks {}
