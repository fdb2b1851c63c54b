//! aioq (documentation is written at the end of the build-up; see the README).

mod codec;
mod error;
pub mod message;
mod time;

pub mod broker;
pub mod store;

mod backend;
mod memory;

pub mod guide;

#[cfg(feature = "testing")]
pub mod testing;

pub use crate::backend::{Backend, BackendKind, OpenBackend, Settings};
pub use crate::codec::{Arguments, Codec, Payload};
pub use crate::error::{BoxError, Error, ErrorKind, JobError, Reason, Result, Steer, TaskError, TaskResult};
pub use crate::memory::Memory;
pub use crate::message::{
    DEFAULT_QUEUE, Envelope, IdGenerator, JobId, Label, Labels, Message, Priority, UuidV7,
};
#[doc(hidden)]
pub mod __private {
    pub use inventory;
}

pub use crate::time::{IntoDuration, IntoTimestamp, Timestamp, parse_duration};
