//! Proves a backend: every promise of the three seams as a case that fails where it is broken.
//!
//! A backend's test file names how to make a fresh one; each case becomes a test of its own:
//!
//! ```
//! # mod tests {
//! use aioq::{Backend, Memory};
//!
//! aioq::conformance_suite!(async || Backend::from(Memory::new()));
//! # }
//! ```
//!
//! The factory gives a backend that is not started yet and shares nothing with those it gave before: cases run
//! side by side. What has to live as long as the backend, a temporary directory or a server, goes along:
//! `(backend, guard)`, see [`Fixture`]. The test crate needs tokio with `macros` and `rt-multi-thread`.
//!
//! Cases keep real time: leases of one second, and patience of [`PATIENCE`] for what has to happen. They are
//! public functions, so that a backend which cannot pass one yet calls the others itself.

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

/// How long a case waits for what has to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long a case may take in all.
const CASE_PATIENCE: Duration = Duration::from_secs(120);

/// A fresh backend, not started, and what has to live as long.
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

/// One promise, as a function that panics where it is broken.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    run: fn(Backend) -> LocalBoxFuture<'static, ()>,
}

impl Case {
    /// The module and the function: `broker::queues_are_separate`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the case.
    ///
    /// # Panics
    /// If the promise is broken, or the case did not end.
    pub async fn run(&self, fixture: impl Into<Fixture>) {
        let fixture = fixture.into();
        let backend = &fixture.backend;
        // Cases of the life of a backend start it themselves.
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

/// All cases, for who runs them otherwise than by [`conformance_suite!`](crate::conformance_suite).
#[must_use]
pub fn cases() -> Vec<Case> {
    list::cases()
}

/// Runs the case of that name.
///
/// # Panics
/// If the promise is broken, or there is no such case.
pub async fn run(name: &str, fixture: impl Into<Fixture>) {
    let case = cases().into_iter().find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("there is no case `{name}`")).run(fixture).await;
}
