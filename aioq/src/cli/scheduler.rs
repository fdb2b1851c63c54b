//! The command `scheduler`: fires schedules until a signal, and runs no jobs.

use clap::Args;

use super::worker::run_until_signal;
use crate::app::{App, Exit};
use crate::error::BoxError;

#[derive(Args)]
pub(super) struct SchedulerArgs {}

pub(super) async fn run(app: App, SchedulerArgs {}: SchedulerArgs) -> Result<Exit, BoxError> {
    let options = app.options().clone().only_schedules();
    run_until_signal(app.worker_options(options)).await
}
