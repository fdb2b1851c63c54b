//! The works without the framework: the limit that it is held against.

mod memory;
mod nats;
mod wire;

pub(crate) use self::memory::run as in_memory;
pub(crate) use self::nats::{delete_streams, run as on_nats};
