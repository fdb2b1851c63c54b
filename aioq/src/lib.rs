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
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `cli` | yes | [`macro@main`] and the command line of the generated worker binary |
//! | `bench` | with `cli` | what the command `bench` measures with: [`mod@bench`] |
//! | `testing` | no | the conformance suite for backends, clocks that are apart, and timestamps that follow tokio's paused clock |
//! | `fault-injection` | no | for tests of crashes: `AIOQ_FAULT=saved:3` ends a worker between two steps of a job, `ran:1:stop` freezes it there |
//!
//! A producer needs neither: `default-features = false`.

// The generated code says `::aioq`, here too.
#[allow(unused_extern_crates)]
extern crate self as aioq;

// The layers, from the bottom up: a module uses only those above it.
mod error;
mod fault;
mod threads;
mod time;
pub use crate::error::{
    AfterFailure, BoxError, Error, ErrorKind, JobError, Reason, Result, TaskError, TaskResult,
};
pub use crate::time::{IntoDuration, IntoTimestamp, MAX_SPAN, Timestamp, parse_duration};

mod codec;
mod message;
pub use crate::codec::{Arguments, Codec, Payload};
pub use crate::message::{
    DEFAULT_QUEUE, Envelope, IdGenerator, JobId, Label, Labels, MAX_LABELS, MAX_NAME_BYTES,
    MAX_TASK_NAME_BYTES, Message, Name, Priority, UuidV7, check_queue_name,
};

pub mod broker;
pub mod store;
mod wire;

mod backend;
#[cfg(feature = "bench")]
pub mod bench;
mod memory;
pub use crate::backend::{Backend, BackendKind, OpenBackend, Settings};
pub use crate::memory::Memory;

mod client;
mod states;
mod task;
pub use crate::client::{
    Client, ClientBuilder, DEFAULT_DEADLINE, DEFAULT_MAX_PAYLOAD_BYTES, KickHook, KickNext, KickOptions,
    Lifecycle,
};
pub use crate::states::States;
pub use crate::task::{
    AckMode, Backoff, Call, Configured, Location, Plain, RetryPolicy, Task, TaskDef, TaskOptions, WorkerOnly,
};

mod bulk;
mod cancel;
mod dead_letters;
mod events;
mod jobs;
mod queues;
mod workers;
pub use crate::bulk::Bulk;
pub use crate::dead_letters::DeadLetters;
pub use crate::events::{Event, EventFilter, EventKind};
pub use crate::jobs::{Cursor, JobFilter, JobList, Jobs, JobsPage, TaskHandle};
pub use crate::queues::{QueueInfo, Queues};
pub use crate::store::{Counts, JobCounts};
pub use crate::workers::{WorkerInfo, Workers};

mod context;
mod registry;
mod run;
pub use crate::context::{Context, FromContext, Need, State};
pub use crate::registry::Registry;

mod middleware;
pub use crate::middleware::{Middleware, Next, Outcome};

mod worker;
pub use crate::worker::{Summary, Worker, WorkerOptions};

mod app;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "testing")]
pub mod testing;
pub use crate::app::App;
#[cfg(feature = "cli")]
pub use crate::cli::{ConnectionArgs, Exit};
/// The version of clap that commands of a program's own take their arguments from.
#[cfg(feature = "cli")]
pub use clap;

pub mod guide;

pub use aioq_macros::{main, task};
pub use async_trait::async_trait;

/// What most programs use.
pub mod prelude {
    pub use crate::{
        App, Client, Context, FromContext, Memory, Middleware, Next, Outcome, TaskError, TaskHandle,
        TaskResult, task,
    };
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
    pub use crate::task::{
        AckMode, ArgumentType, Call, ConstLabel, Fallible, IsNotResult, Location, OutputType, Plain,
        ResultProbe, RetryPolicy, RunHere, RunTask, Task, TaskDef, TaskOptions, WorkerOnly, argument_type,
        blocking_here, fallible, fallible_when, output_type,
    };
}
