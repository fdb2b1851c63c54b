//! How far long work is, on a terminal.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::out::{self, complain};

/// Work that takes less shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a spinner moves.
const TICK: Duration = Duration::from_millis(100);

/// A bar on standard error, if that is a terminal and the work takes long.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::hidden());
        Self { bar, started: Instant::now() }
    }

    /// So much more is done.
    pub(super) fn add(&self, done: usize) {
        if self.bar.is_hidden() && !out::is_json() && self.started.elapsed() >= PATIENCE {
            // Which stays hidden where there is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(done as u64);
    }

    /// Tells what went wrong, above the bar.
    pub(super) fn complain(&self, text: &str) {
        self.bar.suspend(|| complain(text));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Does work of unknown size, with a spinner while it takes long.
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
