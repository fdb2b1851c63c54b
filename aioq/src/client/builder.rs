//! Settings of a client: [`ClientBuilder`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::door::Door;
use super::{Client, Handlers, Inner, KickHook, Lifecycle};
use crate::backend::Backend;
use crate::codec::Codec;
use crate::error::{BoxError, Result};
use crate::message::{IdGenerator, UuidV7};
use crate::states::States;
use crate::store::{RecordLevel, Retention};
use crate::sync::Lock;
use crate::time::MAX_SPAN;

/// Default limit of arguments and of results: 1 MiB.
pub const DEFAULT_MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// Default deadline of a request.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// Room in a message for everything but the arguments: names, labels, headers.
const MESSAGE_OVERHEAD_BYTES: usize = 4 * 1024;

/// Settings of a client, apart from its backend.
#[derive(Clone)]
pub(crate) struct ClientSettings {
    pub(crate) hooks: Vec<Arc<dyn KickHook>>,
    pub(crate) codec: Codec,
    pub(crate) ids: Arc<dyn IdGenerator>,
    pub(crate) max_payload_bytes: usize,
    pub(crate) deadline: Duration,
    pub(crate) records: RecordLevel,
    pub(crate) retention: Retention,
    pub(crate) on_startup: Handlers,
    pub(crate) on_shutdown: Handlers,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            hooks: Vec::new(),
            codec: Codec::default(),
            ids: Arc::new(UuidV7),
            max_payload_bytes: DEFAULT_MAX_PAYLOAD_BYTES,
            deadline: DEFAULT_DEADLINE,
            records: RecordLevel::default(),
            retention: Retention::default(),
            on_startup: Handlers::default(),
            on_shutdown: Handlers::default(),
        }
    }
}

/// Sets up a [`Client`].
#[must_use = "call `connect`"]
pub struct ClientBuilder {
    backend: Backend,
    settings: ClientSettings,
}

impl ClientBuilder {
    pub(crate) fn new(backend: Backend, settings: ClientSettings) -> Self {
        Self { backend, settings }
    }

    /// Adds a hook around every kick, outside of the hooks added later.
    pub fn hook(mut self, hook: impl KickHook) -> Self {
        self.settings.hooks.push(Arc::new(hook));
        self
    }

    /// Encoding of messages and results. Every client reads both encodings.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.settings.codec = codec;
        self
    }

    /// Generator of job ids.
    pub fn id_generator(mut self, ids: impl IdGenerator) -> Self {
        self.settings.ids = Arc::new(ids);
        self
    }

    /// Limit of arguments and of results, in bytes; the broker's own limit holds as well.
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_payload_bytes = bytes;
        self
    }

    /// Deadline of a request; at most [`MAX_SPAN`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline.min(MAX_SPAN);
        self
    }

    /// Amount that is recorded of jobs, by the worker on this client.
    pub fn records(mut self, level: RecordLevel) -> Self {
        self.settings.records = level;
        self
    }

    /// Number and age of the records of ended jobs to keep, for the worker on this client and for
    /// the jobs that this client cancels.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.settings.retention = retention;
        self
    }

    /// Adds a handler that runs when the client has connected. An error ends the client.
    pub fn on_startup<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.settings.on_startup.add(handler);
        self
    }

    /// Adds a handler that runs before the client disconnects. An error is logged.
    pub fn on_shutdown<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.settings.on_shutdown.add(handler);
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(self) -> Result<Client> {
        let Self { mut backend, settings } = self;
        if settings.records == RecordLevel::None {
            backend = backend.without_jobs();
        }
        backend.startup().await?;
        // Read after the startup: a server announces its limit on connection.
        let info = backend.broker.info();
        let room = info.max_body_bytes.saturating_sub(MESSAGE_OVERHEAD_BYTES);
        let max_payload_bytes = settings.max_payload_bytes.min(room);
        let client = Client::from(Inner {
            door: Door::new(backend, &info, max_payload_bytes, settings.deadline, settings.retention),
            hooks: settings.hooks,
            codec: settings.codec,
            ids: settings.ids,
            records: settings.records,
            runtime: tokio::runtime::Handle::current(),
            on_shutdown: Lock::new(settings.on_shutdown),
            workers: super::RunningWorkers::default(),
            caches: super::Caches::default(),
        });
        let lifecycle = Lifecycle::new(client.clone(), States::default());
        if let Err(error) = settings.on_startup.start(&lifecycle).await {
            // The error of the handler is the one that matters.
            let _ = client.shutdown().await;
            return Err(error);
        }
        Ok(client)
    }
}
