//! What all runs of one worker share.

use std::sync::Arc;

use super::States;
use crate::client::Client;
use crate::message::Name;
use crate::run::{BlockingPool, OncePerMinute, Slots};

/// What all runs of one worker share.
#[derive(Clone)]
pub(crate) struct RunScope {
    pub(crate) client: Client,
    pub(crate) states: States,
    pub(crate) worker_id: Name,
    /// Where blocking bodies run.
    pub(crate) pool: Arc<BlockingPool>,
    /// Of its async bodies.
    pub(crate) slots: Arc<Slots>,
    /// When it was last said that a body keeps what it would lend.
    pub(crate) kept: Arc<OncePerMinute>,
}

impl RunScope {
    /// The same, with an id of its own allocation.
    pub(crate) fn copied(&self) -> Self {
        Self { worker_id: Name::from(self.worker_id.as_str()), ..self.clone() }
    }
}
