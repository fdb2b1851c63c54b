//! The description of a program: backend, tasks, state, middlewares.

#[cfg(feature = "cli")]
mod commands;
#[cfg(feature = "cli")]
mod exit;
mod in_place;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

#[cfg(feature = "cli")]
pub(crate) use self::commands::Commands;
#[cfg(feature = "cli")]
pub use self::exit::Exit;
use crate::backend::{BackendKind, OpenBackend, Settings};
use crate::client::{Client, ClientBuilder, ClientSettings, Handlers, KickHook, Lifecycle};
use crate::codec::Codec;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::message::IdGenerator;
use crate::middleware::{Hooked, Middleware};
use crate::registry::Registry;
use crate::registry::TaskDef;
use crate::states::States;
use crate::store::{RecordLevel, Retention};
use crate::worker::{Worker, WorkerOptions};

/// The description of a program: its backend, its tasks, their state, its middlewares.
///
/// An app is lazy: it connects and makes states only when it is asked for a client or a worker.
///
/// ```standalone_crate
/// use aioq::{App, Memory};
///
/// struct Greeting(&'static str);
///
/// #[aioq::task]
/// async fn greet(name: &str, #[inject] greeting: &Greeting) -> String {
///     format!("{}, {name}!", greeting.0)
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let worker = App::new(Memory::new()).state(Greeting("Hello")).worker().await?;
/// let handle = worker.client().kiq(greet("Ada")).await?;
/// worker.drain().await?;
/// assert_eq!(handle.get_result().await?, "Hello, Ada!");
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
#[must_use = "an app does nothing: ask it for a client or a worker"]
pub struct App {
    backend: Box<dyn OpenBackend>,
    tasks: Vec<TaskDef>,
    states: Vec<MakeState>,
    layers: Vec<Arc<dyn Middleware>>,
    /// Settings of its clients. Their hooks are those beside the middlewares.
    client: ClientSettings,
    on_worker_startup: Handlers,
    on_worker_shutdown: Handlers,
    options: WorkerOptions,
    #[cfg(feature = "cli")]
    pub(crate) commands: Commands,
}

type Put = Box<dyn FnOnce(&mut States) + Send>;
type MakeState = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<Put>> + Send>> + Send>;

impl App {
    /// Describes a program on this backend.
    pub fn new(backend: impl OpenBackend) -> Self {
        Self {
            backend: Box::new(backend),
            tasks: Vec::new(),
            states: Vec::new(),
            layers: Vec::new(),
            client: ClientSettings::default(),
            on_worker_startup: Handlers::default(),
            on_worker_shutdown: Handlers::default(),
            options: WorkerOptions::default(),
            #[cfg(feature = "cli")]
            commands: Commands::default(),
        }
    }

    /// Adds a value that tasks get with `#[inject]` as `&T`. One value per type; the last one wins.
    pub fn state<T: Send + Sync + 'static>(self, state: T) -> Self {
        self.state_with(async || state)
    }

    /// Adds a value that `make` creates when a worker starts.
    pub fn state_with<T, F, R>(self, make: F) -> Self
    where
        T: Send + Sync + 'static,
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output = T> + Send + 'static,
    {
        self.try_state_with(move || async { Ok::<T, BoxError>(make().await) })
    }

    /// Adds a value that `make` creates when a worker starts. If `make` fails, the worker does not
    /// start.
    pub fn try_state_with<T, E, F, R>(mut self, make: F) -> Self
    where
        T: Send + Sync + 'static,
        E: Into<BoxError>,
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output = Result<T, E>> + Send + 'static,
    {
        let make = || async {
            let made = make().await.map_err(|error| {
                let name = std::any::type_name::<T>();
                Error::new(ErrorKind::Config, format!("could not make the state `{name}`")).with_source(error)
            });
            made.map(|state| Box::new(|states: &mut States| states.insert(state)) as Put)
        };
        self.states.push(Box::new(|| Box::pin(make())));
        self
    }

    /// Adds a middleware around every run and every kick, outside of the middlewares added later.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.layers.push(Arc::new(middleware));
        self
    }

    /// Adds a hook around every kick, inside of the middlewares.
    pub fn hook(mut self, hook: impl KickHook) -> Self {
        self.client.hooks.push(Arc::new(hook));
        self
    }

    /// Registers a task that is not an annotated function; see [`TaskDef::from_fn`].
    pub fn task(mut self, task: TaskDef) -> Self {
        self.tasks.push(task);
        self
    }

    /// Encoding of messages and results. Every program reads both encodings.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.client.codec = codec;
        self
    }

    /// Generator of job ids.
    pub fn id_generator(mut self, ids: impl IdGenerator) -> Self {
        self.client.ids = Arc::new(ids);
        self
    }

    /// Limit of arguments and of results, in bytes; the broker's own limit holds as well.
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.client.max_payload_bytes = bytes;
        self
    }

    /// Amount that its workers record of jobs.
    pub fn records(mut self, level: RecordLevel) -> Self {
        self.client.records = level;
        self
    }

    /// Number and age of the records of ended jobs to keep.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.client.retention = retention;
        self
    }

    /// Adds a handler that runs when a worker starts, after its states were made and before it
    /// takes a job. An error ends the worker.
    pub fn on_worker_startup<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.on_worker_startup.add(handler);
        self
    }

    /// Adds a handler that runs after the last job of a worker; the handler added last runs first.
    /// An error is logged.
    pub fn on_worker_shutdown<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.on_worker_shutdown.add(handler);
        self
    }

    /// Adds a handler that runs when a client has connected, also the client of a worker. An error
    /// ends the client.
    pub fn on_client_startup<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.client.on_startup.add(handler);
        self
    }

    /// Adds a handler that runs before a client disconnects. An error is logged.
    pub fn on_client_shutdown<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.client.on_shutdown.add(handler);
        self
    }

    /// Options of its workers.
    pub fn worker_options(mut self, options: WorkerOptions) -> Self {
        self.options = options;
        self
    }

    /// The current options of its workers.
    pub fn options(&self) -> &WorkerOptions {
        &self.options
    }

    /// Applies connection settings from outside the code. A URL of another kind of backend replaces
    /// the backend, if that kind is linked into the program.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for settings that the backend does not support, or a URL of a
    /// kind that is not linked into the program.
    pub fn configure(mut self, settings: &Settings) -> Result<Self> {
        if let Some(url) = &settings.url {
            let scheme = url.split_once("://").map_or(url.as_str(), |(scheme, _)| scheme);
            // `tls` and `ws` URLs are of NATS servers, too.
            let scheme = if matches!(scheme, "tls" | "ws" | "wss") { "nats" } else { scheme };
            if self.backend.scheme() != Some(scheme) {
                match BackendKind::find(scheme) {
                    Some(backend) => self.backend = backend,
                    None if url.contains("://") => return Err(not_linked(scheme)),
                    None => {}
                }
            }
        }
        self.backend.configure(settings)?;
        Ok(self)
    }

    /// Takes the backend out of the app.
    #[cfg(feature = "cli")]
    pub(crate) fn into_backend(self) -> Box<dyn OpenBackend> {
        self.backend
    }

    /// The tasks of the program.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if two tasks have the same name.
    pub fn registry(&self) -> Result<Registry> {
        self.tasks.iter().cloned().try_fold(Registry::linked()?, Registry::with)
    }

    /// Connects a client, with the hooks of this program.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn client(&self) -> Result<Client> {
        self.client_builder().connect().await
    }

    fn client_builder(&self) -> ClientBuilder {
        let mut settings = self.client.clone();
        let layers = self.layers.iter().map(|layer| Arc::new(Hooked(Arc::clone(layer))) as Arc<dyn KickHook>);
        settings.hooks = layers.chain(settings.hooks).collect();
        ClientBuilder::new(self.backend.open(), settings)
    }

    /// Connects, makes the states, and checks that each task of the worker's queues has its states.
    /// A task of another queue may still be kicked to one of these with `.queue(..)`; without its
    /// state, it fails with an error that names the state.
    ///
    /// # Errors
    /// - As [`Client::connect`].
    /// - [`Config`](ErrorKind::Config): no tasks are linked, two have the same name, one lacks a
    ///   state, or a state could not be made.
    pub async fn worker(self) -> Result<Worker> {
        // First the checks that need no server.
        let registry = self.registry()?;
        let client = self.client().await?;
        let worker = self.worker_with(client, registry).await?;
        worker.check_states()?;
        Ok(worker)
    }

    async fn worker_with(self, client: Client, registry: Registry) -> Result<Worker> {
        let mut states = States::default();
        for make in self.states {
            make().await?(&mut states);
        }
        let mut worker = Worker::new(client, registry, states, self.layers, self.options)?;
        worker.set_handlers(self.on_worker_startup, self.on_worker_shutdown);
        Ok(worker)
    }

    /// A client that runs jobs in place: when a kick returns, the job has ended, and so have the
    /// jobs that it kicked in turn. For tests and for programs without a worker (taskiq's
    /// `await_inplace`).
    ///
    /// Delayed jobs stay in the queue. Only tasks that are kicked need their states; without a
    /// state, they fail with an error that names it.
    ///
    /// # Errors
    /// As [`worker`](Self::worker), except for missing states.
    pub async fn in_place(self) -> Result<Client> {
        let builder = self.client_builder();
        let registry = self.registry()?;
        let client = self.client().await?;
        let worker = self.worker_with(client, registry).await?;
        builder.hook(in_place::InPlace::new(worker)).connect().await
    }
}

/// Error for a URL of a backend that is not linked. The linker drops a dependency whose crate no
/// code names.
fn not_linked(scheme: &str) -> Error {
    let hint = match scheme {
        "nats" => "add `use aioq_nats as _;` beside `fn app`, and aioq-nats to the dependencies",
        _ => "add a `use` of its crate beside `fn app`, as in `use aioq_nats as _;`",
    };
    let message = format!("no backend for `{scheme}` URLs is linked into this program: {hint}");
    Error::new(ErrorKind::Config, message)
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("options", &self.options).finish_non_exhaustive()
    }
}
