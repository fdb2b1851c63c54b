//! A delivery whose message is not settled yet.

use std::time::Duration;

use bytes::Bytes;

use crate::broker::{Delivery, Replaced};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Envelope, JobId};
use crate::time::Timestamp;

/// A delivery whose message is not settled yet. Only `settle` can settle it.
#[derive(Clone, Copy)]
pub(in crate::worker) struct Unsettled<'a>(&'a Delivery);

impl<'a> Unsettled<'a> {
    pub(in crate::worker) fn new(delivery: &'a Delivery) -> Self {
        Self(delivery)
    }

    pub(in crate::worker) fn id(self) -> &'a JobId {
        &self.0.id
    }

    pub(in crate::worker::attempt) fn body(self) -> &'a Bytes {
        &self.0.body
    }

    pub(in crate::worker::attempt) fn deliveries(self) -> u32 {
        self.0.deliveries
    }

    pub(in crate::worker::attempt) fn ack_wait(self) -> Duration {
        self.0.receipt.ack_wait()
    }

    pub(in crate::worker::attempt) fn ready_since(self) -> Option<Timestamp> {
        self.0.receipt.ready_since()
    }

    pub(in crate::worker::attempt) fn holder_unheard(self) -> Option<Duration> {
        self.0.receipt.holder_unheard()
    }

    /// True if the broker has no newer message of the job, and this one was not removed.
    pub(in crate::worker::attempt) async fn is_newest(self) -> Result<bool> {
        self.0.receipt.is_newest().await
    }

    /// Guards a write that expects no record: an absent record must not mean that the job has
    /// ended.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if the message is not the newest of its job any more.
    pub(in crate::worker::attempt) async fn check_is_newest(self) -> Result<()> {
        if self.is_newest().await? { Ok(()) } else { Err(not_newest()) }
    }

    pub(super) async fn ack(self) -> Result<()> {
        self.0.receipt.ack().await
    }

    pub(super) async fn release(self, delay: Duration) -> Result<()> {
        self.0.receipt.release(delay).await
    }

    pub(super) async fn replace(self, next: Envelope) -> Result<Replaced> {
        self.0.receipt.replace(next).await
    }
}

pub(super) fn not_newest() -> Error {
    Error::new(ErrorKind::Conflict, "the message is not the newest of its job any more")
}
