//! What all runs of one worker share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::States;
use crate::client::Client;
use crate::message::Name;

/// What all runs of one worker share.
pub(crate) struct RunScope {
    pub(crate) client: Client,
    pub(crate) states: States,
    pub(crate) worker_id: Name,
    /// Places in the blocking pool.
    pub(crate) blocking: Arc<Semaphore>,
    /// Places to wait for the pool without keeping a slot from an async job.
    pub(crate) waiting: Arc<Semaphore>,
}
