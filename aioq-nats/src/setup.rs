//! Declares and restores the streams, the consumers and the list of queues.

pub(crate) mod ack_wait;
pub(crate) mod consumers;
pub(crate) mod queues;
pub(crate) mod restore;
pub(crate) mod streams;
