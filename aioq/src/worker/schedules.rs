//! The scheduler of a worker.

use std::sync::Arc;

use super::Shared;
use super::run::{AbortOnDrop, spawn_beside};
use crate::error::Result;
use crate::schedules::Scheduler;

/// Writes the schedules of the tasks, and fires schedules until the guard is dropped. Bodies that
/// block their threads delay no tick.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config): a schedule in the code cannot be. The errors of the
/// backend.
pub(super) async fn keep(shared: &Arc<Shared>) -> Result<Option<AbortOnDrop>> {
    if !shared.options.schedules || shared.options.burst {
        return Ok(None);
    }
    let client = &shared.scope.client;
    let scheduler = Scheduler::new(client, &shared.registry, shared.scope.worker_id.clone())?;
    scheduler.reconcile().await?;
    Ok(Some(spawn_beside(shared, scheduler.run())))
}
