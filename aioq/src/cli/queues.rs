//! `pause` and `resume`: whether a queue is worked off.

use clap::Args;

use super::{Exit, eprint_line};
use crate::app::App;
use crate::error::BoxError;

#[derive(Args)]
pub(super) struct QueueArgs {
    /// The queue
    queue: String,
}

/// Pauses a queue.
pub(super) async fn pause(app: &App, args: QueueArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    client.queues().pause(&args.queue).await?;
    client.shutdown().await?;
    Ok(Exit::Done)
}

/// Resumes a queue; one that was not paused is refused.
pub(super) async fn resume(app: &App, args: QueueArgs) -> Result<Exit, BoxError> {
    let client = app.client().await?;
    let was_paused = client.queues().resume(&args.queue).await?;
    client.shutdown().await?;
    if !was_paused {
        eprint_line(&format!("error: the queue `{}` is not paused", args.queue));
        return Ok(Exit::Failed);
    }
    Ok(Exit::Done)
}
