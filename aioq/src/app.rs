//! The description of a program: backend, tasks, state, middlewares.

mod in_place;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::backend::{BackendKind, OpenBackend, Settings};
use crate::client::KickHook;
use crate::client::{Client, ClientBuilder};
use crate::client::{Handlers, Lifecycle};
use crate::codec::Codec;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::message::{IdGenerator, UuidV7};
use crate::middleware::{Hooked, Middleware};
use crate::registry::Registry;
use crate::states::States;
use crate::store::{RecordLevel, Retention};
use crate::task::TaskDef;
use crate::worker::{Worker, WorkerOptions};

/// The description of a program: where its jobs go, what its tasks need, what stands around them.
///
/// Everything in it is lazy: nothing connects and no state is made before a client or a worker is asked for.
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
#[must_use = "a description does nothing: ask it for a client or a worker"]
pub struct App {
    backend: Box<dyn OpenBackend>,
    tasks: Vec<TaskDef>,
    states: Vec<MakeState>,
    layers: Vec<Arc<dyn Middleware>>,
    hooks: Vec<Arc<dyn KickHook>>,
    codec: Codec,
    ids: Arc<dyn IdGenerator>,
    max_payload_bytes: Option<usize>,
    records: RecordLevel,
    retention: Retention,
    on_client_startup: Handlers,
    on_client_shutdown: Handlers,
    on_worker_startup: Handlers,
    on_worker_shutdown: Handlers,
    options: WorkerOptions,
    #[cfg(feature = "cli")]
    pub(crate) commands: crate::cli::Commands,
}

type Put = Box<dyn FnOnce(&mut States) + Send>;
type MakeState = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<Put>> + Send>> + Send>;

impl App {
    /// A program on this backend.
    pub fn new(backend: impl OpenBackend) -> Self {
        Self {
            backend: Box::new(backend),
            tasks: Vec::new(),
            states: Vec::new(),
            layers: Vec::new(),
            hooks: Vec::new(),
            codec: Codec::default(),
            ids: Arc::new(UuidV7),
            max_payload_bytes: None,
            records: RecordLevel::default(),
            retention: Retention::default(),
            on_client_startup: Handlers::default(),
            on_client_shutdown: Handlers::default(),
            on_worker_startup: Handlers::default(),
            on_worker_shutdown: Handlers::default(),
            options: WorkerOptions::default(),
            #[cfg(feature = "cli")]
            commands: crate::cli::Commands::default(),
        }
    }

    /// Lends this value to tasks that `#[inject]` a `&T`. One of each type; the latest counts.
    pub fn state<T: Send + Sync + 'static>(self, state: T) -> Self {
        self.state_with(async || state)
    }

    /// Lends the value that this makes, when a worker starts and only then.
    pub fn state_with<T, F, R>(self, make: F) -> Self
    where
        T: Send + Sync + 'static,
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output = T> + Send + 'static,
    {
        self.try_state_with(move || async { Ok::<T, BoxError>(make().await) })
    }

    /// The same for what can fail; the worker then does not start.
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
                Error::new(ErrorKind::Config, format!("state `{name}` could not be made")).with_source(error)
            });
            made.map(|state| Box::new(|states: &mut States| states.insert(state)) as Put)
        };
        self.states.push(Box::new(|| Box::pin(make())));
        self
    }

    /// Stands around every run and every kick, outside of those added later.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.layers.push(Arc::new(middleware));
        self
    }

    /// Stands around every kick, inside of the middlewares.
    pub fn hook(mut self, hook: impl KickHook) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Registers a task that is no annotated function; see [`TaskDef::from_fn`].
    pub fn task(mut self, task: TaskDef) -> Self {
        self.tasks.push(task);
        self
    }

    /// Writes messages and results this way; both ways are read.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Draws ids this way.
    pub fn id_generator(mut self, ids: impl IdGenerator) -> Self {
        self.ids = Arc::new(ids);
        self
    }

    /// The largest arguments and results, in bytes; the broker's own limit holds as well.
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.max_payload_bytes = Some(bytes);
        self
    }

    /// How much its workers write down of jobs.
    pub fn records(mut self, level: RecordLevel) -> Self {
        self.records = level;
        self
    }

    /// How much is kept of jobs that have ended.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Does this when a worker begins to run, with its states made, before it takes a job. An error ends it.
    pub fn on_worker_startup<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.on_worker_startup.add(handler);
        self
    }

    /// Does this when a worker has ended, after its last job; the handler added last runs first. An error is logged.
    pub fn on_worker_shutdown<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.on_worker_shutdown.add(handler);
        self
    }

    /// Does this when a client has connected, also that of a worker. An error keeps it from being used.
    pub fn on_client_startup<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.on_client_startup.add(handler);
        self
    }

    /// Does this before a client disconnects. An error is logged.
    pub fn on_client_shutdown<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.on_client_shutdown.add(handler);
        self
    }

    /// How its workers work.
    pub fn worker_options(mut self, options: WorkerOptions) -> Self {
        self.options = options;
        self
    }

    /// How its workers work, as said so far.
    pub fn options(&self) -> &WorkerOptions {
        &self.options
    }

    /// Takes over connection settings from outside the code. A URL of another kind of backend replaces the
    /// backend, if that kind is linked into the program.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for settings that the backend cannot honour, or a URL of a kind that is not
    /// linked into the program.
    pub fn configure(mut self, settings: &Settings) -> Result<Self> {
        if let Some(url) = &settings.url {
            let scheme = url.split_once("://").map_or(url.as_str(), |(scheme, _)| scheme);
            // Other ways to reach a server of NATS, or to be told that there is none.
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

    /// The backend alone.
    #[cfg(feature = "cli")]
    pub(crate) fn into_backend(self) -> Box<dyn OpenBackend> {
        self.backend
    }

    /// The tasks that the program knows.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if two have one name.
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
        let mut builder = Client::builder(self.backend.open()).codec(self.codec);
        builder = builder.handlers(self.on_client_startup.clone(), self.on_client_shutdown.clone());
        builder = builder.records(self.records).retention(self.retention.clone());
        let ids = Arc::clone(&self.ids);
        builder = builder.id_generator(move || ids.next_id());
        if let Some(bytes) = self.max_payload_bytes {
            builder = builder.max_payload_bytes(bytes);
        }
        for layer in &self.layers {
            builder = builder.hook(Hooked(Arc::clone(layer)));
        }
        for hook in &self.hooks {
            builder = builder.shared_hook(Arc::clone(hook));
        }
        builder
    }

    /// Connects, makes the states, and checks that every task of the queues that it consumes has what it needs. A task of
    /// another queue that is kicked to one of these, with `.queue(..)`, and lacks its state fails with an error that
    /// names the state.
    ///
    /// # Errors
    /// - As [`Client::connect`].
    /// - [`Config`](ErrorKind::Config): no tasks are linked, two have one name, one lacks its state, or a state
    ///   could not be made.
    pub async fn worker(self) -> Result<Worker> {
        // What needs no server is checked first.
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

    /// A client whose kicks run at once, in place: when a kick returns, the job has ended, with all that it
    /// kicked in turn. For tests and for programs that need no worker (taskiq's `await_inplace`).
    ///
    /// Delayed jobs stay in the queue. Only tasks that are kicked need their states: one without fails with an error
    /// that names the state.
    ///
    /// # Errors
    /// As [`worker`](Self::worker), but for states.
    pub async fn in_place(self) -> Result<Client> {
        let builder = self.client_builder();
        let registry = self.registry()?;
        let client = self.client().await?;
        let worker = self.worker_with(client, registry).await?;
        builder.hook(in_place::InPlace::new(worker)).connect().await
    }
}

/// The error for a URL of a kind of backend that is not here. A crate that nothing names is left out of a program by
/// the linker, also if it is among the dependencies.
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
