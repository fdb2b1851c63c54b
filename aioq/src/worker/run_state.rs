//! What is known of one held job from outside: whether it has started, whether it is told to stop, whether its
//! body blocks.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::control::{Marked, RunMark};
use crate::message::Message;
use crate::task::TaskDef;

/// A held job from outside.
#[derive(Default)]
pub(super) struct RunState {
    token: CancellationToken,
    state: AtomicU8,
    /// Which run it is, and of which task; set before it starts.
    run: OnceLock<(RunMark, Arc<TaskDef>)>,
    /// The look at which its body was polled, while it is; 0 while it is not.
    polled_at: AtomicU64,
    /// Whether it was said that it blocks.
    told: AtomicBool,
}

/// The states without a reason to stop.
const WAITING: u8 = 0;
const STARTED: u8 = 1;

/// Why a job is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Why {
    /// The worker shuts down, and its patience is over.
    Shutdown = 2,
    /// It was stopped on demand while it ran.
    Aborted = 3,
    /// It was called off before it started.
    CalledOff = 4,
}

impl RunState {
    /// Starts the job, unless it was told to stop before.
    pub(super) fn start(&self, message: &Message, task: &Arc<TaskDef>) -> Result<(), Why> {
        // Set once: a job that is started again after all is the same.
        let _ = self.run.set((RunMark::of(message), Arc::clone(task)));
        match self.move_on(WAITING, STARTED) {
            true => Ok(()),
            false => Err(self.why().unwrap_or(Why::Shutdown)),
        }
    }

    /// Starts a job that another one of its id was called off for.
    pub(super) fn start_after_all(&self) -> Result<(), Why> {
        match self.move_on(Why::CalledOff as u8, STARTED) {
            true => Ok(()),
            false => Err(self.why().unwrap_or(Why::Shutdown)),
        }
    }

    /// Calls it off if it has not started, and aborts it if it has and `abort` says so. Whether it has started.
    ///
    /// Which run a job is that has not started may not be known yet: it looks itself, before it starts.
    pub(super) fn call_off(&self, marked: &Marked, abort: bool) -> bool {
        if self.move_on(WAITING, Why::CalledOff as u8) || self.why() == Some(Why::CalledOff) {
            return false;
        }
        let meant = self.run.get().is_none_or(|(run, _)| marked.covers_run(run));
        if meant && abort {
            self.stop(Why::Aborted);
        }
        meant
    }

    /// Tells it to stop, whether it has started or not. The first reason stays.
    pub(super) fn stop(&self, why: Why) {
        // It may start between the two.
        while self.why().is_none() && !self.stop_from(STARTED, why) && !self.stop_from(WAITING, why) {}
    }

    fn stop_from(&self, from: u8, why: Why) -> bool {
        let first = self.move_on(from, why as u8);
        if first {
            self.token.cancel();
        }
        first
    }

    fn move_on(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// What the body sees.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Why the job was told to stop from outside, if it was.
    pub(super) fn why(&self) -> Option<Why> {
        let state = self.state.load(Ordering::Acquire);
        [Why::Shutdown, Why::Aborted, Why::CalledOff].into_iter().find(|why| *why as u8 == state)
    }

    /// Resolves when the job is told to stop from outside.
    pub(super) async fn stopped(&self) -> Why {
        self.token.cancelled().await;
        match self.why() {
            Some(why) => why,
            // The body's own timeout fired the token: the run ends by itself.
            None => std::future::pending().await,
        }
    }

    /// The body is polled, at that look.
    pub(super) fn enter(&self, look: u64) {
        self.polled_at.store(look, Ordering::Relaxed);
    }

    /// The body was polled.
    pub(super) fn leave(&self) {
        self.polled_at.store(0, Ordering::Relaxed);
    }

    /// The task whose body has been polled since that look or longer; said once.
    pub(super) fn blocks_since(&self, look: u64) -> Option<&str> {
        let polled_at = self.polled_at.load(Ordering::Relaxed);
        let blocks = polled_at != 0 && polled_at <= look && !self.told.swap(true, Ordering::Relaxed);
        self.run.get().filter(|_| blocks).map(|(_, task)| task.name())
    }
}
