//! What is known of one held job from outside: whether it has started, whether it is told to stop, whether its
//! body blocks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::control::{Marked, RunMark};
use crate::message::{Message, Name};
use crate::task::TaskDef;

/// A held job from outside.
#[derive(Default)]
pub(crate) struct RunState {
    state: AtomicU8,
    /// Whether the body is told to stop, for a reason from outside or because its time is up.
    cancelled: AtomicBool,
    cancel: Notify,
    /// Whether the worker ends, whatever it was told before.
    worker_ended: AtomicBool,
    /// Which run it is; set before it starts.
    run: OnceLock<Run>,
    /// The look at which its body was polled, while it is; 0 while it is not.
    polled_at: AtomicU64,
    /// The look at which it was polled last.
    left_at: AtomicU64,
    /// Whether its body has lent its slot.
    lent: AtomicBool,
    /// Whether it was said that it blocks.
    told: AtomicBool,
}

/// A run and what it is of.
struct Run {
    mark: RunMark,
    task: Name,
    queue: Name,
    is_blocking: bool,
}

/// The states without a reason to stop.
const WAITING: u8 = 0;
const STARTED: u8 = 1;

/// Why a job is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Why {
    /// The worker shuts down, and its patience is over.
    Shutdown = 2,
    /// It was stopped on demand while it ran.
    Aborted = 3,
    /// It was called off before it started.
    CalledOff = 4,
}

impl RunState {
    /// Starts the job, unless it was told to stop before, or `is_called_off` says that this very run was called off.
    ///
    /// Whoever calls jobs off notes them first and then calls off what is held, by its id alone. So if another run of
    /// the job was meant, this one is put back before the notes are looked at again: a note that comes after the look
    /// finds it waiting, and the start fails once more.
    pub(crate) fn start(
        &self,
        message: &Message,
        task: &TaskDef,
        mut is_called_off: impl FnMut() -> bool,
    ) -> Result<(), Why> {
        let _ = self.run.set(Run {
            mark: RunMark::of(message),
            task: task.shared_name(),
            queue: message.queue.clone(),
            is_blocking: task.is_blocking(),
        });
        loop {
            if is_called_off() {
                return Err(Why::CalledOff);
            }
            if self.move_on(WAITING, STARTED) {
                return Ok(());
            }
            if !self.move_on(Why::CalledOff as u8, WAITING) {
                return Err(self.why().unwrap_or(Why::Shutdown));
            }
        }
    }

    /// Calls it off if it has not started, and aborts it if it has and `abort` says so. Whether it has started.
    ///
    /// Which run a job is that has not started may not be known yet: it looks itself, before it starts.
    pub(crate) fn call_off(&self, marked: &Marked, abort: bool) -> bool {
        if self.move_on(WAITING, Why::CalledOff as u8) || self.why() == Some(Why::CalledOff) {
            return false;
        }
        let meant = self.run.get().is_none_or(|run| marked.covers_run(&run.mark));
        if meant && abort {
            self.stop(Why::Aborted);
        }
        meant
    }

    /// Tells it to stop, whether it has started or not. The first reason stays.
    pub(crate) fn stop(&self, why: Why) {
        if why == Why::Shutdown {
            self.worker_ended.store(true, Ordering::Release);
            self.cancel.notify_waiters();
        }
        // It may start between the two.
        while self.why().is_none() && !self.stop_from(STARTED, why) && !self.stop_from(WAITING, why) {}
    }

    fn stop_from(&self, from: u8, why: Why) -> bool {
        let first = self.move_on(from, why as u8);
        if first {
            self.cancel();
        }
        first
    }

    fn move_on(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Tells the body to stop.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.cancel.notify_waiters();
    }

    /// Whether the body is told to stop.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Resolves when the body is told to stop.
    pub(crate) async fn cancelled(&self) {
        // Made before the look, so that what happens after the look is heard.
        let told = self.cancel.notified();
        if !self.is_cancelled() {
            told.await;
        }
    }

    /// Whether it is that run. One that was called off just before its start counts, too, until it is settled.
    pub(crate) fn runs(&self, run: &RunMark) -> bool {
        self.run.get().is_some_and(|own| own.mark == *run)
    }

    /// Why the job was told to stop from outside, if it was.
    pub(crate) fn why(&self) -> Option<Why> {
        let state = self.state.load(Ordering::Acquire);
        [Why::Shutdown, Why::Aborted, Why::CalledOff].into_iter().find(|why| *why as u8 == state)
    }

    /// Resolves when the job is told to stop from outside.
    pub(crate) async fn stopped(&self) -> Why {
        loop {
            // Made before the look, so that what happens after the look is heard.
            let told = self.cancel.notified();
            if let Some(why) = self.why() {
                return why;
            }
            // It may be the body's own timeout that is told.
            told.await;
        }
    }

    /// Resolves when the worker ends and waits no longer.
    pub(crate) async fn worker_ended(&self) {
        loop {
            let told = self.cancel.notified();
            if self.worker_ended.load(Ordering::Acquire) {
                return;
            }
            told.await;
        }
    }

    /// The body is polled, at that look.
    pub(crate) fn enter(&self, look: u64) {
        self.polled_at.store(look, Ordering::Relaxed);
    }

    /// The body was polled, at that look.
    pub(crate) fn leave(&self, look: u64) {
        self.polled_at.store(0, Ordering::Relaxed);
        self.left_at.store(look, Ordering::Relaxed);
    }

    /// Whether its body has lent its slot from now on.
    pub(crate) fn set_lent(&self, lent: bool) {
        self.lent.store(lent, Ordering::Relaxed);
    }

    /// The task and the queue of an async body that has its slot and has not been polled since that look; an error if it
    /// has been.
    pub(crate) fn idle_in_slot(&self, look: u64) -> Result<Option<(&str, &str)>, ()> {
        let Some(run) = self.run.get().filter(|run| !run.is_blocking) else { return Ok(None) };
        if self.polled_at.load(Ordering::Relaxed) != 0 || self.left_at.load(Ordering::Relaxed) >= look {
            return Err(());
        }
        let lent = self.lent.load(Ordering::Relaxed);
        Ok((!lent).then_some((run.task.as_str(), run.queue.as_str())))
    }

    /// The task whose body has been polled since that look or longer; said once.
    pub(crate) fn blocks_since(&self, look: u64) -> Option<&str> {
        let polled_at = self.polled_at.load(Ordering::Relaxed);
        let blocks = polled_at != 0 && polled_at <= look && !self.told.swap(true, Ordering::Relaxed);
        self.run.get().filter(|_| blocks).map(|run| run.task.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Arguments, Codec};
    use crate::context::Context;
    use crate::error::TaskError;
    use crate::store::{JobRecord, Status};
    use crate::time::Timestamp;

    fn kicked_at(micros: i64) -> Message {
        let arguments = Arguments::from_json(Codec::MessagePack, "{}").unwrap();
        let mut message = Message::new("job".into(), "noop", arguments);
        message.kicked_at = Some(Timestamp::from_micros(micros));
        message
    }

    #[test]
    fn a_job_that_another_one_of_its_id_was_called_off_for_does_not_start_once_it_is_called_off_itself() {
        let noop = TaskDef::from_fn("noop", |_: Context, (): ()| async { Ok::<_, TaskError>(()) });
        let (other, own) = (kicked_at(1), kicked_at(2));
        let marked = |message| Marked::new(&JobRecord::of(message, Status::Pending), Some(message), None);
        let state = RunState::default();
        assert!(!state.call_off(&marked(&other), false), "it has not started");
        let (mut looks, mut noted) = (0, false);
        let started = state.start(&own, &noop, || {
            looks += 1;
            let found = noted;
            // Just after the second look, a client notes the job, and is told that it has not started.
            if looks == 2 {
                noted = true;
                assert!(!state.call_off(&marked(&own), false), "it has not started");
            }
            found
        });
        assert_eq!((started, looks), (Err(Why::CalledOff), 3));
    }
}
