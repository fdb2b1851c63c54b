//! Guides: how to do something with aioq, from the beginning.
//!
//! | guide | about |
//! |---|---|
//! | [`getting_started`] | from an empty folder to jobs on NATS |
//! | [`tasks`] | names, parameters, results, failures and retries |
//! | [`unique`] | one job of a key at a time, and the newest of many kicks |
//! | [`flows`] | jobs that start when others have completed, with their results |
//! | [`schedules`] | jobs that run again and again: cron, periods, time zones, deploys |
//! | [`state_and_middleware`] | state, context, extractors, middlewares |
//! | [`jobs`] | jobs in operation: list, wait, cancel, abort, run again, forget |
//! | [`deploy`] | NATS, rights, containers, probes, rolling releases |
//! | [`guarantees`] | all promises, with the tests that prove them |
//! | [`benchmarks`] | figures, and how to measure your own |
//! | [`backend`] | a backend of your own |
//! | [`coming_from`] | Celery, Sidekiq, taskiq and apalis |

// The examples of some pages need `aioq-nats`, which depends on this crate: `aioq-examples`
// compiles those.

#[doc = include_str!("guide/backend.md")]
pub mod backend {}

#[doc = include_str!("guide/benchmarks.md")]
pub mod benchmarks {}

#[cfg_attr(not(doctest), doc = include_str!("guide/coming_from.md"))]
#[cfg_attr(doctest, doc = "Compiled by `aioq-examples`.")]
pub mod coming_from {}

#[doc = include_str!("guide/flows.md")]
pub mod flows {}

#[cfg_attr(not(doctest), doc = include_str!("guide/deploy.md"))]
#[cfg_attr(doctest, doc = "Compiled by `aioq-examples`.")]
pub mod deploy {}

#[cfg_attr(not(doctest), doc = include_str!("guide/getting_started.md"))]
#[cfg_attr(doctest, doc = "Compiled by `aioq-examples`.")]
pub mod getting_started {}

#[doc = include_str!("guide/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("guide/jobs.md")]
pub mod jobs {}

#[doc = include_str!("guide/schedules.md")]
pub mod schedules {}

#[doc = include_str!("guide/state_and_middleware.md")]
pub mod state_and_middleware {}

#[doc = include_str!("guide/tasks.md")]
pub mod tasks {}

#[doc = include_str!("guide/unique.md")]
pub mod unique {}
