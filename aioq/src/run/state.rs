//! The state of one held job: started or not, told to stop or not, polled or not.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::cancel::{RunId, Target};
use crate::message::{Message, Name};

/// The state of one held job, shared by its body, its lease and the cancel protocol.
#[derive(Default)]
pub(crate) struct RunState {
    /// [`WAITING`], [`STARTED`], or a [`StopReason`].
    state: AtomicU8,
    /// True once the body is told to stop: for a [`StopReason`], or because its time is up.
    interrupted: AtomicBool,
    interrupt: Notify,
    /// True once the worker ends, whatever the job was told before.
    worker_ended: AtomicBool,
    /// The run; set just before it starts.
    run: OnceLock<Run>,
    /// Number of the watchdog's scan at which the current poll of the body began; 0 between polls.
    polled_since: AtomicU64,
    /// Number of the watchdog's scan at which the last poll ended.
    last_polled: AtomicU64,
    /// True while the body lends its slot.
    lent: AtomicBool,
    /// True once the log has said that the body blocks its thread.
    reported: AtomicBool,
}

/// A run, and the task and the queue of its job.
struct Run {
    id: RunId,
    task: Name,
    queue: Name,
    is_blocking: bool,
}

/// The states without a reason to stop.
const WAITING: u8 = 0;
const STARTED: u8 = 1;

/// The reason why a job is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StopReason {
    /// The worker shuts down, and the grace period is over.
    Shutdown = 2,
    /// A client aborted the job while it ran.
    Aborted = 3,
    /// A client cancelled the job before it started.
    Cancelled = 4,
}

impl RunState {
    /// Starts the job, unless it was told to stop before, or `is_cancelled` says that a client has
    /// cancelled this very run.
    ///
    /// A cancel request is noted first, and then applied to the held jobs by id alone. If it meant
    /// another run of the job, this run is put back to [`WAITING`] before the notes are read again.
    /// A note that is added after that finds the run waiting, and the start fails once more.
    pub(crate) fn start(
        &self,
        message: &Message,
        task: Name,
        is_blocking: bool,
        mut is_cancelled: impl FnMut() -> bool,
    ) -> Result<(), StopReason> {
        let _ = self.run.set(Run { id: RunId::of(message), task, queue: message.queue.clone(), is_blocking });
        loop {
            if is_cancelled() {
                return Err(StopReason::Cancelled);
            }
            if self.transition(WAITING, STARTED) {
                return Ok(());
            }
            if !self.transition(StopReason::Cancelled as u8, WAITING) {
                return Err(self.stop_reason().unwrap_or(StopReason::Shutdown));
            }
        }
    }

    /// Applies a cancel request: a job that has not started is cancelled, one that has is aborted
    /// if `abort` is set. True if it has started.
    ///
    /// A job that has not started may not know yet which run it is. It reads the noted requests
    /// itself before it starts.
    pub(crate) fn apply_cancel(&self, target: &Target, abort: bool) -> bool {
        let cancelled = StopReason::Cancelled;
        if self.transition(WAITING, cancelled as u8) || self.stop_reason() == Some(cancelled) {
            return false;
        }
        let is_meant = self.run.get().is_none_or(|run| target.matches_run(&run.id));
        if is_meant && abort {
            self.stop(StopReason::Aborted);
        }
        is_meant
    }

    /// Tells the job to stop, whether it has started or not. The first reason stays.
    pub(crate) fn stop(&self, reason: StopReason) {
        if reason == StopReason::Shutdown {
            self.worker_ended.store(true, Ordering::Release);
            self.interrupt.notify_waiters();
        }
        // The job may start between the two tries.
        while self.stop_reason().is_none()
            && !self.stop_from(STARTED, reason)
            && !self.stop_from(WAITING, reason)
        {}
    }

    fn stop_from(&self, from: u8, reason: StopReason) -> bool {
        let is_first = self.transition(from, reason as u8);
        if is_first {
            self.interrupt();
        }
        is_first
    }

    fn transition(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Tells the body to stop.
    pub(crate) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Release);
        self.interrupt.notify_waiters();
    }

    /// True once the body is told to stop.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Resolves when the body is told to stop.
    pub(crate) async fn interrupted(&self) {
        // Created before the check, so that a notification after the check is received.
        let notified = self.interrupt.notified();
        if !self.is_interrupted() {
            notified.await;
        }
    }

    /// True if this is the given run. A run that was cancelled just before its start counts until
    /// it is settled.
    pub(crate) fn runs(&self, run: &RunId) -> bool {
        self.run.get().is_some_and(|own| own.id == *run)
    }

    /// The reason why the job was told to stop from outside.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        let state = self.state.load(Ordering::Acquire);
        let reasons = [StopReason::Shutdown, StopReason::Aborted, StopReason::Cancelled];
        reasons.into_iter().find(|reason| *reason as u8 == state)
    }

    /// Resolves when the job is told to stop from outside.
    pub(crate) async fn stopped(&self) -> StopReason {
        loop {
            // Created before the check, so that a notification after the check is received.
            let notified = self.interrupt.notified();
            if let Some(reason) = self.stop_reason() {
                return reason;
            }
            // A timeout of the body notifies too, and gives no reason.
            notified.await;
        }
    }

    /// Resolves when the worker ends and waits no longer.
    pub(crate) async fn worker_ended(&self) {
        loop {
            let notified = self.interrupt.notified();
            if self.worker_ended.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }

    /// Records that a poll of the body begins, with the number of the watchdog's current scan.
    pub(crate) fn poll_began(&self, scan: u64) {
        self.polled_since.store(scan, Ordering::Relaxed);
    }

    /// Records that a poll of the body has ended.
    pub(crate) fn poll_ended(&self, scan: u64) {
        self.polled_since.store(0, Ordering::Relaxed);
        self.last_polled.store(scan, Ordering::Relaxed);
    }

    /// Records if the body lends its slot.
    pub(crate) fn set_lent(&self, lent: bool) {
        self.lent.store(lent, Ordering::Relaxed);
    }

    /// The task and the queue of an async body that keeps its slot and was not polled since `scan`;
    /// an error if it was polled.
    pub(crate) fn idle_in_slot(&self, scan: u64) -> Result<Option<(&str, &str)>, ()> {
        let Some(run) = self.run.get().filter(|run| !run.is_blocking) else { return Ok(None) };
        if self.polled_since.load(Ordering::Relaxed) != 0 || self.last_polled.load(Ordering::Relaxed) >= scan
        {
            return Err(());
        }
        let lent = self.lent.load(Ordering::Relaxed);
        Ok((!lent).then_some((run.task.as_str(), run.queue.as_str())))
    }

    /// The task whose body has been in one poll since `scan` or longer; reported once.
    pub(crate) fn blocks_since(&self, scan: u64) -> Option<&str> {
        let polled_since = self.polled_since.load(Ordering::Relaxed);
        let blocks =
            polled_since != 0 && polled_since <= scan && !self.reported.swap(true, Ordering::Relaxed);
        self.run.get().filter(|_| blocks).map(|run| run.task.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Arguments, Codec};
    use crate::store::{JobRecord, Status};
    use crate::time::Timestamp;

    fn kicked_at(micros: i64) -> Message {
        let arguments = Arguments::from_json(Codec::MessagePack, "{}").unwrap();
        let mut message = Message::new("job".into(), "noop", arguments);
        message.kicked_at = Some(Timestamp::from_micros(micros));
        message
    }

    #[test]
    fn a_job_does_not_start_once_it_is_cancelled_itself_after_an_earlier_run_of_its_id_was() {
        let (other, own) = (kicked_at(1), kicked_at(2));
        let target = |message| Target::new(&JobRecord::of(message, Status::Pending), Some(message), None);
        let state = RunState::default();
        assert!(!state.apply_cancel(&target(&other), false), "it has not started");
        let (mut looks, mut noted) = (0, false);
        let started = state.start(&own, "noop".into(), false, || {
            looks += 1;
            let found = noted;
            // Just after the second look, a client notes the job, and is told that it has not
            // started.
            if looks == 2 {
                noted = true;
                assert!(!state.apply_cancel(&target(&own), false), "it has not started");
            }
            found
        });
        assert_eq!((started, looks), (Err(StopReason::Cancelled), 3));
    }
}
