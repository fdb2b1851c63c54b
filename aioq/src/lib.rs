//! Background tasks for async Rust: annotate a function, kick it, run the worker.
//!
//! ```standalone_crate
//! use aioq::prelude::*;
//!
//! #[task]
//! async fn add(a: i64, b: i64) -> i64 {
//!     a + b
//! }
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! let worker = App::new(Memory::new()).worker().await?;
//! let client = worker.client().clone();
//! let running = tokio::spawn(worker.run(std::future::pending()));
//!
//! let handle = client.kiq(add(2, 3)).await?;
//! assert_eq!(handle.result().await?, 5); // pushed by the worker, not polled
//! assert_eq!(add(2, 3).await, 5); // awaited directly, the body runs here
//! # running.abort();
//! # Ok::<(), aioq::Error>(()) }).unwrap();
//! ```
//!
//! Jobs are typed from the call to the result. They run in this process with nothing installed
//! ([`Memory`]), or on NATS JetStream in as many processes as you start
//! ([`aioq-nats`](https://docs.rs/aioq-nats)), with the same code.
//!
//! # Contents
//!
//! - [Tasks](#tasks), [calls and options](#calls-and-options), [results](#results),
//!   [retries](#retries)
//! - [State and extractors](#state-and-extractors), [middleware](#middleware)
//! - [Workers](#workers), [steering](#steering), [testing](#testing), [backends](#backends)
//! - [Features](#features), [guides](guide)
//!
//! # Tasks
//!
//! [`task`](macro@task) turns a function into a task. An `async fn` runs on the async threads of a
//! worker, a plain `fn` on a thread of its own, so it may block. The name of the function is three
//! things: a constructor of calls, a type that carries the task, and the body itself.
//!
//! ```
//! use aioq::prelude::*;
//! use aioq::tasks::Task;
//!
//! #[task(name = "text.count", queue = "text", timeout = "5s")]
//! fn count_words(text: &str) -> usize {
//!     text.split_whitespace().count()
//! }
//!
//! let call = count_words("to be or not to be"); // a value; nothing is sent yet
//! # let _ = call;
//! assert_eq!(count_words::NAME, "text.count"); // the task
//! assert_eq!(count_words::call("to be"), 2); // the body, for unit tests
//! ```
//!
//! More: [`guide::tasks`].
//!
//! # Calls and options
//!
//! A [`Call`](tasks::Call) is a task bound to its arguments. Options of the job are methods on it;
//! [`Client::kiq`] hands it to the broker, and returns when the broker has confirmed it.
//!
//! ```
//! use aioq::prelude::*;
//! use aioq::store::Status;
//!
//! #[task]
//! async fn remind(whom: &str) -> usize {
//!     whom.len()
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let client = Client::connect(Memory::new()).await?;
//! let call = remind("Ada").delay("1h").ttl("10m").label("team", "growth").id("remind-ada");
//! let handle = client.kiq(call).await?;
//! assert_eq!(handle.status().await?, Status::Scheduled);
//!
//! let again = client.kiq(remind("Ada").id("remind-ada")).await?;
//! assert!(again.existing()); // the id is taken: no second job
//! # Ok::<(), aioq::Error>(()) }).unwrap();
//! ```
//!
//! [`Client::kiq_all`] kicks many calls with one wait, [`Client::kiq_by_name`] kicks a task that
//! the program does not have, and after [`Client::install`] a call kicks itself:
//! `remind("Ada").kiq().await?`.
//!
//! # Results
//!
//! A [`TaskHandle`] knows the type of the result. A job that failed is an [`Error`] with a
//! [kind](ErrorKind) for programs and a sentence for people.
//!
//! ```standalone_crate
//! use aioq::prelude::*;
//! use aioq::ErrorKind;
//!
//! #[task]
//! async fn divide(a: i64, b: i64) -> Result<i64, String> {
//!     a.checked_div(b).ok_or_else(|| "division by zero".to_owned())
//! }
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! let client = App::new(Memory::new()).in_place().await?;
//! assert_eq!(client.kiq(divide(6, 3)).await?.result().await?, 2);
//!
//! let error = client.kiq(divide(6, 0)).await?.result().await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::JobFailed);
//! assert!(error.to_string().ends_with("division by zero"));
//! # Ok::<(), aioq::Error>(()) }).unwrap();
//! ```
//!
//! # Retries
//!
//! `retry(..)` says how often and when a failed attempt is followed by another. A retry waits in
//! the broker, and holds no slot of a worker. A body that returns [`TaskResult`] can overrule the
//! policy.
//!
//! ```
//! use aioq::prelude::*;
//!
//! #[task(retry(max = 5, backoff = "1s..5m", jitter))]
//! async fn fetch(url: &str) -> TaskResult<u16> {
//!     match url.split_once("://") {
//!         None => Err(TaskError::fatal("not a URL")),
//!         Some(("http", _)) => Err(TaskError::retry_in("1m", "busy")),
//!         Some(("later", _)) => Err(TaskError::snooze("1h")), // spends no attempt
//!         Some(_) => Ok(url.parse::<u16>()?), // `?`: the policy decides
//!     }
//! }
//! # let _ = fetch("");
//! ```
//!
//! # State and extractors
//!
//! `#[inject]` parameters do not travel: the worker supplies them. They are a state of the [`App`],
//! the [`Context`] of the run, or a type that implements [`FromContext`](context::FromContext).
//!
//! ```standalone_crate
//! use aioq::prelude::*;
//!
//! struct Greeting(&'static str);
//!
//! #[task]
//! async fn greet(name: &str, #[inject] greeting: &Greeting, #[inject] ctx: &Context) -> String {
//!     format!("{}, {name}! (attempt {})", greeting.0, ctx.attempt())
//! }
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! let client = App::new(Memory::new()).state(Greeting("Hello")).in_place().await?;
//! assert_eq!(client.kiq(greet("Ada")).await?.result().await?, "Hello, Ada! (attempt 1)");
//! # Ok::<(), aioq::Error>(()) }).unwrap();
//! ```
//!
//! # Middleware
//!
//! A [`Middleware`](middleware::Middleware) is code around each run and each kick. It sees the
//! [`Outcome`](middleware::Outcome) of a run, and may change it.
//!
//! ```
//! use aioq::prelude::*;
//! use aioq::async_trait;
//!
//! struct Timing;
//!
//! #[async_trait]
//! impl Middleware for Timing {
//!     async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
//!         let (task, start) = (ctx.task().to_owned(), std::time::Instant::now());
//!         let outcome = next.run(ctx).await;
//!         println!("{task}: {:?}", start.elapsed());
//!         outcome
//!     }
//! }
//!
//! let app = App::new(Memory::new()).middleware(Timing);
//! # let _ = app;
//! ```
//!
//! More about the last two: [`guide::state_and_middleware`].
//!
//! # Workers
//!
//! [`macro@main`] makes a binary out of the function that describes the app: `app worker` runs
//! jobs, and the other commands look at them. A [`Worker`] can also run inside a program, until a
//! future of yours ends.
//!
//! ```no_run
//! use aioq::prelude::*;
//! use aioq::worker::WorkerOptions;
//! use std::time::Duration;
//!
//! # #[cfg(feature = "cli")]
//! #[aioq::main]
//! fn app() -> App {
//!     App::new(Memory::new())
//!         .worker_options(WorkerOptions::new().concurrency(500).grace(Duration::from_secs(20)))
//! }
//! ```
//!
//! More: [`guide::deploy`].
//!
//! # Steering
//!
//! [`Client::jobs`], [`queues`](Client::queues), [`dead_letters`](Client::dead_letters),
//! [`workers`](Client::workers) and [`events`](Client::events) look at jobs and act on them, from
//! any process.
//!
//! ```
//! use aioq::prelude::*;
//! use aioq::jobs::JobFilter;
//! use aioq::store::Status;
//!
//! #[task(queue = "mail")]
//! async fn send(to: &str) -> usize {
//!     to.len()
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let client = Client::connect(Memory::new()).await?;
//! let handle = client.kiq(send("ada@example.com")).await?;
//!
//! client.queues().pause("mail").await?; // for all workers, at once
//! let waiting = JobFilter::new().queue("mail").status(Status::Pending);
//! let page = client.jobs().list(waiting, 50).await?;
//! assert_eq!(&page.jobs[0].id, handle.id());
//! assert!(handle.cancel().await?); // true: its body never starts
//! client.queues().resume("mail").await?;
//! # Ok::<(), aioq::Error>(()) }).unwrap();
//! ```
//!
//! More: [`guide::jobs`].
//!
//! # Testing
//!
//! A body is a function: `send::call("ada@example.com")`. [`App::in_place`] runs each job inside
//! its kick, and [`Worker::drain`] runs what is ready, when the test says so. With the feature
//! `testing`, delays follow tokio's paused clock.
//!
//! ```standalone_crate
//! use aioq::prelude::*;
//!
//! #[task]
//! async fn square(number: u64) -> u64 {
//!     number * number
//! }
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! let worker = App::new(Memory::new()).worker().await?;
//! let handle = worker.client().kiq(square(4)).await?;
//! assert!(!handle.is_ready().await?);
//! assert_eq!(worker.drain().await?.jobs, 1);
//! assert_eq!(handle.get_result().await?, 16);
//! # Ok::<(), aioq::Error>(()) }).unwrap();
//! ```
//!
//! # Backends
//!
//! A backend is three traits: [`Broker`](broker::Broker) moves messages,
//! [`JobStore`](store::JobStore) remembers jobs, [`KvStore`](store::KvStore) remembers shared
//! state. [`Memory`] is one, `aioq_nats::Nats` another, and [`guide::backend`] shows how to write
//! and prove your own.
//!
//! ```
//! use aioq::{Backend, Memory};
//!
//! let backend = Backend::from(Memory::new());
//! assert_eq!(backend.broker().info().name, "memory");
//! ```
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `cli` | yes | [`macro@main`] and the command line of the worker binary |
//! | `bench` | with `cli` | the module that the command `bench` measures with, for crates of backends |
//! | `testing` | no | the conformance suite for backends, jobs that look as if a worker had them, and virtual time |
//! | `fault-injection` | no | for tests of crashes: `AIOQ_FAULT=saved:3` ends a worker between two steps of a job, `ran:1:stop` freezes it there |
//!
//! A producer needs none of them: `default-features = false`.

// The generated code says `::aioq`, here too.
#[allow(unused_extern_crates)]
extern crate self as aioq;

// The layers, from the bottom up: a module uses only those above it. A program that names one
// thing of a module finds it there; the root holds the names that nearly every program uses.
pub mod error;
mod fault;
mod process;
mod sync;
mod text;
pub mod time;
pub use crate::error::{BoxError, Error, ErrorKind, Result, TaskError, TaskResult};
pub use crate::time::Timestamp;

mod codec;
pub mod message;
pub use crate::message::{JobId, Message};

pub mod broker;
pub mod store;
mod wire;

pub mod backend;
#[cfg(feature = "bench")]
pub mod bench;
mod memory;
pub use crate::backend::Backend;
pub use crate::memory::Memory;

mod bulk;
pub mod client;
mod dependencies;
mod states;
mod task;
mod unique;
pub use crate::client::Client;

mod cancel;
pub mod dead_letters;
pub mod events;
pub mod jobs;
mod kiq;
pub mod queues;
pub mod workers;
pub use crate::jobs::TaskHandle;

pub mod context;
mod registry;
mod run;
pub mod schedules;
pub use crate::context::Context;

pub mod middleware;

pub mod worker;
pub use crate::worker::Worker;

mod app;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "testing")]
pub mod testing;
pub use crate::app::App;
#[cfg(feature = "cli")]
pub use crate::app::Exit;
#[cfg(feature = "cli")]
pub use crate::cli::ConnectionArgs;
/// The version of clap that commands of a program's own take their arguments from.
#[cfg(feature = "cli")]
pub use clap;

pub mod guide;

pub use aioq_macros::{main, task};
pub use async_trait::async_trait;

/// Calls of tasks, their options, and the registry of tasks.
pub mod tasks {
    pub use crate::message::OnParentFailure;
    pub use crate::registry::{Location, Registry, TaskDef};
    pub use crate::task::{
        AckMode, Backoff, Call, Configured, IntoParents, KickOptions, Plain, RetryPolicy, ScheduleOptions,
        Task, TaskOptions, UniqueOptions, WorkerOnly,
    };
}

/// Flows: jobs that take the results of others. See [`guide::flows`].
pub mod flow {
    pub use crate::task::flow::{Flow, IntoFlow, Join, Parents, Rest, Shared, Takes, TakesFirst, join};
}

/// The names that most programs use: `use aioq::prelude::*`.
pub mod prelude {
    pub use crate::context::FromContext;
    pub use crate::jobs::{JobFilter, TaskHandle};
    pub use crate::middleware::{Middleware, Next, Outcome};
    pub use crate::store::Status;
    pub use crate::{App, Client, Context, Memory, TaskError, TaskResult, task};
}

#[doc(hidden)]
pub mod __private {
    //! What the code that the attributes generate refers to, and what aioq's own backends need.

    pub use inventory;

    #[cfg(feature = "cli")]
    pub use crate::cli::main;
    pub use crate::codec::{ArgsEncoder, ArgsReader, Arguments, ByteBuf, ByteSlice, Param, Payload, Str};
    pub use crate::context::{Context, FromContext, Need};
    pub use crate::error::{Result, TaskError, TaskResult};
    pub use crate::fault::{Fault, point};
    pub use crate::registry::{Location, OutputType, RunTask, TaskDef, output_type};
    pub use crate::task::flow::{AwaitableFlow, Branches, Rest, Step, TakesFirst};
    pub use crate::task::{
        AckMode, ArgumentType, Call, ConstLabel, Fallible, IsNotResult, Missed, Overlap, Plain, ResultProbe,
        RetryPolicy, RunHere, ScheduleOptions, Task, TaskOptions, UniqueOptions, WorkerOnly, argument_type,
        blocking_here, fallible, fallible_when,
    };
    pub use crate::text::{bytes, count, names, rounded_span, span};
}
