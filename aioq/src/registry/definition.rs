//! The worker's definition of a task.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RunTask;
use crate::codec::{Arguments, Param, Payload};
use crate::context::{Context, Need};
use crate::error::{TaskError, TaskResult};
use crate::message::Name;
use crate::task::TaskOptions;

/// The worker's definition of a task, type erased. Cheap to clone.
#[derive(Clone)]
pub struct TaskDef {
    name: Name,
    pub(crate) options: TaskOptions,
    location: Option<Location>,
    params: Option<&'static [Param]>,
    needs: &'static [Need],
    blocking: bool,
    check: fn(&Arguments) -> TaskResult<()>,
    run: Run,
    /// Its index in the registry.
    number: usize,
}

type RunFuture = Pin<Box<dyn Future<Output = TaskResult<Payload>> + Send>>;

#[derive(Clone)]
enum Run {
    Static(fn(Context) -> RunFuture),
    Dynamic(Arc<dyn Fn(Context) -> RunFuture + Send + Sync>),
}

impl TaskDef {
    /// The definition of an annotated function.
    #[must_use]
    pub const fn of<T: RunTask>() -> Self {
        Self {
            name: Name::from_static(T::NAME),
            options: T::OPTIONS,
            location: Some(T::LOCATION),
            params: Some(T::PARAMS),
            needs: T::NEEDS,
            blocking: T::BLOCKING,
            check: T::check,
            run: Run::Static(run_boxed::<T>),
            number: 0,
        }
    }

    /// A task made at run time from a name and a function of the context and the arguments, which
    /// are any type that is read from a map. Arguments that a struct has no field for are refused.
    /// By position they are read in the order of the fields; some by position and others by name
    /// are refused.
    ///
    /// ```
    /// use aioq::tasks::TaskDef;
    /// use aioq::{Context, TaskError};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Add { a: i64, b: i64 }
    ///
    /// let add = TaskDef::from_fn("add", |_ctx: Context, Add { a, b }| async move {
    ///     Ok::<_, TaskError>(a + b)
    /// });
    /// assert_eq!(add.name(), "add");
    /// ```
    pub fn from_fn<A, F, R, T, E>(name: impl Into<Name>, body: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        F: Fn(Context, A) -> R + Send + Sync + Clone + 'static,
        R: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize,
        E: Into<TaskError>,
    {
        let run = move |ctx: Context| -> RunFuture {
            let args = ctx.message().arguments.decode::<A>();
            let body = body.clone();
            Box::pin(async move {
                let output = body(ctx.clone(), args?).await.map_err(Into::into)?;
                ctx.output(&output)
            })
        };
        Self {
            name: name.into(),
            options: TaskOptions::new(),
            location: None,
            params: None,
            needs: &[],
            blocking: false,
            check: |arguments| arguments.decode::<A>().map(drop),
            run: Run::Dynamic(Arc::new(run)),
            number: 0,
        }
    }

    /// Replaces the options.
    #[must_use]
    pub fn with_options(mut self, options: TaskOptions) -> Self {
        self.options = options;
        self
    }

    /// The name that messages carry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> Name {
        self.name.clone()
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn set_number(&mut self, number: usize) {
        self.number = number;
    }

    /// Options of the task.
    #[must_use]
    pub fn options(&self) -> &TaskOptions {
        &self.options
    }

    /// Place of its definition; `None` for a task made at run time.
    #[must_use]
    pub fn location(&self) -> Option<Location> {
        self.location
    }

    /// Parameters whose arguments are in the message; `None` for a task made at run time.
    #[must_use]
    pub fn params(&self) -> Option<&'static [Param]> {
        self.params
    }

    /// True if its body runs on the blocking pool.
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.blocking
    }

    /// Queue of its kicks.
    #[must_use]
    pub fn queue(&self) -> &'static str {
        self.options.queue
    }

    pub(crate) fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// Decodes arguments and drops them.
    ///
    /// # Errors
    /// A fatal error that names the argument.
    pub fn check(&self, arguments: &Arguments) -> TaskResult<()> {
        (self.check)(arguments)
    }

    pub(crate) fn run(&self, ctx: Context) -> RunFuture {
        match &self.run {
            Run::Static(run) => run(ctx),
            Run::Dynamic(run) => run(ctx),
        }
    }
}

fn run_boxed<T: RunTask>(ctx: Context) -> RunFuture {
    Box::pin(T::run(ctx))
}

impl fmt::Debug for TaskDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskDef")
            .field("name", &self.name)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// A place in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    file: &'static str,
    line: u32,
}

impl Location {
    /// The place at `file:line`.
    #[must_use]
    pub const fn new(file: &'static str, line: u32) -> Self {
        Self { file, line }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
