//! Streams, consumers and the list of queues: declared, checked and restored.

pub(crate) mod ack_wait;
pub(crate) mod consumers;
pub(crate) mod queues;
pub(crate) mod restore;
pub(crate) mod streams;
