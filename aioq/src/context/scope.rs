//! Values that all runs of one worker share.

use std::sync::Arc;

use super::States;
use crate::client::Client;
use crate::message::Name;
use crate::run::{BlockingPool, OncePerMinute, Slots};

/// Values that all runs of one worker share.
#[derive(Clone)]
pub(crate) struct RunScope {
    pub(crate) client: Client,
    pub(crate) states: States,
    pub(crate) worker_id: Name,
    /// Threads of the blocking bodies.
    pub(crate) pool: Arc<BlockingPool>,
    /// Slots of the async bodies.
    pub(crate) slots: Arc<Slots>,
    /// Limits the warning that a waiting body keeps its slot or thread.
    pub(crate) kept: Arc<OncePerMinute>,
}

impl RunScope {
    /// A copy with its own allocation of the id, so that cores do not contend on one reference
    /// count.
    pub(crate) fn copied(&self) -> Self {
        Self { worker_id: Name::from(self.worker_id.as_str()), ..self.clone() }
    }
}
