//! Handlers that a program runs when its clients and workers start and end.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Client;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::states::States;

/// The client or worker that starts or ends, as its handlers get it. Cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    client: Client,
    states: States,
}

impl Lifecycle {
    pub(crate) fn new(client: Client, states: States) -> Self {
        Self { client, states }
    }

    /// The client that starts or ends, or the client of the worker that does.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A state of the worker, added with `.state(..)`. Clients have none.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.states.get()
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle").field("client", &self.client).field("states", &self.states).finish()
    }
}

type Handler = Arc<dyn Fn(Lifecycle) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// Handlers of one event, in the order in which they were added.
#[derive(Clone, Default)]
pub(crate) struct Handlers(Vec<Handler>);

impl Handlers {
    pub(crate) fn add<F, R, E>(&mut self, handler: F)
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let erase = move |lifecycle| -> BoxFuture<'static, _> {
            let running = handler(lifecycle);
            Box::pin(async { running.await.map_err(Into::into) })
        };
        self.0.push(Arc::new(erase));
    }

    /// Runs the handlers of a start. The first error ends the start.
    pub(crate) async fn start(&self, lifecycle: &Lifecycle) -> Result<()> {
        for handler in &self.0 {
            handler(lifecycle.clone()).await.map_err(|error| {
                Error::new(ErrorKind::Config, "a startup handler failed").with_source(error)
            })?;
        }
        Ok(())
    }

    /// Runs the handlers of an end, the last one first. An error is logged, and the next handler
    /// runs.
    pub(crate) async fn end(&self, lifecycle: &Lifecycle) {
        for handler in self.0.iter().rev() {
            if let Err(error) = handler(lifecycle.clone()).await {
                tracing::error!(%error, "a shutdown handler failed");
            }
        }
    }
}
