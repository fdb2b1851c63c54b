//! Progress of long work, on a terminal.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::out::{self, complain};

/// Time before the progress of some work is shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Interval between the moves of a spinner.
const TICK: Duration = Duration::from_millis(100);

/// Bar on standard error, if that is a terminal and the work takes long.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::hidden());
        Self { bar, started: Instant::now() }
    }

    /// Counts `done` more units as done.
    pub(super) fn add(&self, done: usize) {
        if self.bar.is_hidden() && !out::is_json() && self.started.elapsed() >= PATIENCE {
            // Without a terminal the bar stays hidden.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(done as u64);
    }

    /// Writes an error above the bar.
    pub(super) fn complain(&self, text: &str) {
        self.bar.suspend(|| complain(text));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Runs work of unknown size, with a spinner if it takes long.
pub(super) async fn during<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
        return done;
    }
    if out::is_json() {
        return work.await;
    }
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(TICK);
    let done = work.await;
    spinner.finish_and_clear();
    done
}
