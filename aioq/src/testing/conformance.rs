//! Conformance suite for backends: each guarantee of the three seams is a case, which fails if a
//! backend breaks it.
//!
//! The test file of a backend passes a factory; each case becomes a test of its own:
//!
//! ```
//! # mod tests {
//! use aioq::{Backend, Memory};
//!
//! aioq::conformance_suite!(async || Backend::from(Memory::new()));
//! # }
//! ```
//!
//! The factory returns a backend that is not started and shares nothing with earlier ones, because
//! cases run in parallel. A value that must live as long as the backend, such as a temporary
//! directory or a server, is returned with it: `(backend, guard)`, see [`Fixture`]. The test crate
//! needs tokio with `macros` and `rt-multi-thread`.
//!
//! Cases run in real time, with leases of one second, and wait up to [`PATIENCE`] for an event.
//! They are public functions, so that a backend that cannot pass one of them can still call the
//! others.

pub mod broker;
pub mod jobs;
mod kit;
pub mod kv;
pub mod lifecycle;
mod list;

use std::any::Any;
use std::fmt;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::time::timeout;

use crate::backend::Backend;

/// Time that a case waits for an event.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Time limit of a case.
const CASE_PATIENCE: Duration = Duration::from_secs(120);

/// A new backend, not started, and a value that must live as long as it.
///
/// ```
/// use aioq::testing::conformance::Fixture;
/// use aioq::{Backend, Memory};
///
/// let alone = Fixture::from(Backend::from(Memory::new()));
/// let guarded = Fixture::from((Backend::from(Memory::new()), "a temporary directory"));
/// ```
pub struct Fixture {
    backend: Backend,
    _guard: Box<dyn Any + Send>,
}

impl From<Backend> for Fixture {
    fn from(backend: Backend) -> Self {
        Self { backend, _guard: Box::new(()) }
    }
}

impl<G: Any + Send> From<(Backend, G)> for Fixture {
    fn from((backend, guard): (Backend, G)) -> Self {
        Self { backend, _guard: Box::new(guard) }
    }
}

/// A guarantee as a function, which panics if a backend breaks it.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    run: fn(Backend) -> LocalBoxFuture<'static, ()>,
}

impl Case {
    /// Module and function of the case: `broker::queues_are_separate`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the case.
    ///
    /// # Panics
    /// If the backend breaks the guarantee, or the case did not end.
    pub async fn run(&self, fixture: impl Into<Fixture>) {
        let fixture = fixture.into();
        let backend = &fixture.backend;
        // Lifecycle cases start the backend themselves.
        let starts_itself = self.name.starts_with("lifecycle::");
        if !starts_itself {
            kit::ok(backend.startup().await, "startup");
        }
        let ended = timeout(CASE_PATIENCE, (self.run)(backend.clone())).await;
        assert!(ended.is_ok(), "`{}` did not end within {CASE_PATIENCE:?}", self.name);
        if !starts_itself {
            kit::ok(backend.shutdown().await, "shutdown");
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// All cases, for callers other than [`conformance_suite!`](crate::conformance_suite).
#[must_use]
pub fn cases() -> Vec<Case> {
    list::cases()
}

/// Runs the case of that name.
///
/// # Panics
/// If the backend breaks the guarantee, or there is no such case.
pub async fn run(name: &str, fixture: impl Into<Fixture>) {
    let case = cases().into_iter().find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("there is no case `{name}`")).run(fixture).await;
}
