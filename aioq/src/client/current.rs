//! The client of a bare `.kiq()`: the one in scope, or the installed one.

use std::future::Future;

use super::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::RwLock;

tokio::task_local! {
    static SCOPED: Client;
}

static INSTALLED: RwLock<Option<Client>> = RwLock::new(None);

impl Client {
    /// The client in scope, or else the installed one.
    ///
    /// # Errors
    /// [`NoClient`](ErrorKind::NoClient) if there is neither.
    pub fn current() -> Result<Self> {
        if let Ok(client) = SCOPED.try_with(Self::clone) {
            return Ok(client);
        }
        INSTALLED.read().clone().ok_or_else(|| {
            Error::new(
                ErrorKind::NoClient,
                "no client for `.kiq()`: install one with `client.install()`, scope one with `client.scope(..)`, \
                 or kick with `client.kiq(..)`",
            )
        })
    }

    /// Makes this the client of every `.kiq()` in the process without one in scope. The latest call
    /// wins.
    pub fn install(&self) {
        *INSTALLED.write() = Some(self.clone());
    }

    /// Runs a future in which `.kiq()` uses this client. Tasks that the future spawns are outside
    /// of the scope.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        SCOPED.scope(self.clone(), future)
    }

    /// Runs blocking code in which `.kiq_blocking()` uses this client.
    pub fn scope_blocking<T>(&self, body: impl FnOnce() -> T) -> T {
        SCOPED.sync_scope(self.clone(), body)
    }
}
