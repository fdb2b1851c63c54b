//! aioq (documentation is written at the end of the build-up; see the README).

mod codec;
mod error;
pub mod message;
mod time;

pub mod broker;
pub mod store;

mod backend;
mod call;
mod client;
mod context;
mod job;
mod kick;
mod middleware;
mod registry;
mod task;
mod worker;

pub use crate::backend::{Backend, BackendKind, OpenBackend, Settings};
pub use crate::call::Call;
pub use crate::client::{Client, ClientBuilder, DEFAULT_DEADLINE, DEFAULT_MAX_PAYLOAD_BYTES};
pub use crate::context::{Context, FromContext, State, States};
pub use crate::job::{Jobs, TaskHandle};
pub use crate::kick::{KickHook, KickNext, KickOptions};
pub use crate::middleware::{Middleware, Next, Outcome};
pub use crate::registry::Registry;
pub use crate::task::{AckMode, Backoff, Location, RetryPolicy, Task, TaskDef};
pub use crate::worker::{Summary, Worker, WorkerInfo, WorkerOptions};
pub use crate::codec::{Arguments, Codec, Payload};
pub use crate::error::{BoxError, Error, ErrorKind, JobError, Reason, Result, Steer, TaskError, TaskResult};
pub use crate::message::{
    DEFAULT_QUEUE, Envelope, IdGenerator, JobId, Label, Labels, Message, Priority, UuidV7,
};
#[doc(hidden)]
pub mod __private {
    pub use inventory;

    pub use crate::call::Call;
    pub use crate::codec::{ArgsEncoder, Arguments, ByteBuf, ByteSlice, Param, Payload, Str};
    pub use crate::context::{Context, FromContext, Need};
    pub use crate::error::{Result, TaskError, TaskResult};
    pub use crate::task::{
        AckMode, ConstLabel, Fallible, IsNotResult, Location, ResultProbe, RetryPolicy, RunHere, RunTask, Task,
        TaskDef, TaskOptions, assert_argument, assert_output, blocking_here, fallible, fallible_when,
    };
}

pub use async_trait::async_trait;

pub use crate::time::{IntoDuration, IntoTimestamp, Timestamp, parse_duration};
