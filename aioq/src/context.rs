//! The context of a running body: [`Context`], and the extractors of its parameters.

mod extract;
mod report;
mod scope;
mod waits;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

pub use self::extract::{FromContext, Need, State};
pub(crate) use self::report::Report;
pub(crate) use self::scope::RunScope;
pub(crate) use self::waits::{Placed, Waiting, lending, waits_elsewhere};
use crate::client::Client;
use crate::codec::{ArgsReader, Param, Payload};
use crate::error::{AfterFailure, Error, JobError, Reason, TaskError, TaskResult};
use crate::message::{JobId, Label, Message, Name};
use crate::run::RunState;
pub(crate) use crate::states::States;
use crate::store::Progress;
use crate::sync::Lock;
use crate::time::Timestamp;

/// One run of a job, as its body sees it. Cheap to clone.
///
/// A task asks for it with `#[inject] ctx: &Context`.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    message: Message,
    scope: Arc<RunScope>,
    state: Arc<RunState>,
    /// The async slot of this run, until the run moves to the blocking pool.
    slot: Lock<Option<OwnedSemaphorePermit>>,
    /// Number of pending waits for other jobs in the async body.
    waits: AtomicUsize,
    thread: Lock<waits::Thread>,
    report: Report,
}

impl Context {
    pub(crate) fn new(message: Message, scope: Arc<RunScope>, state: Arc<RunState>) -> Self {
        Self(Arc::new(Inner {
            message,
            scope,
            state,
            slot: Lock::default(),
            waits: AtomicUsize::new(0),
            thread: Lock::default(),
            report: Report::default(),
        }))
    }

    /// The id of the job.
    #[must_use]
    pub fn id(&self) -> &JobId {
        &self.0.message.id
    }

    /// The name of the task.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.0.message.task
    }

    /// The queue that the job came from.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.0.message.queue
    }

    /// Number of this run of the job, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.message.attempt
    }

    /// A label of the job.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&Label> {
        self.0.message.labels.get(name)
    }

    /// Id of the schedule that the job was kicked for, if any.
    #[must_use]
    pub fn schedule(&self) -> Option<&str> {
        self.0.message.ties.as_ref()?.tick.as_ref().map(|tick| &*tick.schedule)
    }

    /// The tick of a schedule that the job runs for: its nominal time. `None` for any other job,
    /// and for one that was run by hand.
    #[must_use]
    pub fn tick(&self) -> Option<Timestamp> {
        self.0.message.ties.as_ref()?.tick.as_ref()?.at
    }

    /// The message of the job.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// The id of the worker that runs the job.
    #[must_use]
    pub fn worker_id(&self) -> &str {
        &self.0.scope.worker_id
    }

    pub(crate) fn worker_name(&self) -> &Name {
        &self.0.scope.worker_id
    }

    /// The client of the worker, to kick further jobs. Tokio tasks that the body spawns need it:
    /// they do not inherit the client of `.kiq()`.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.scope.client
    }

    /// A state of the worker, as added with `.state(..)`.
    ///
    /// # Errors
    /// A fatal error if the worker has no state of this type. Tasks that `#[inject]` a state are
    /// checked when the worker starts.
    pub fn state<T: Send + Sync + 'static>(&self) -> TaskResult<&T> {
        self.0.scope.states.get().ok_or_else(|| {
            let name = std::any::type_name::<T>();
            TaskError::fatal(format!("the worker has no state `{name}`: add `.state(..)` to the app"))
        })
    }

    /// True if the run was told to stop: its time is up, a client aborted it, or the worker ends. A
    /// blocking body must check this now and then. An async body is dropped.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.state.is_interrupted()
    }

    /// Resolves when the run is told to stop.
    pub async fn cancelled(&self) {
        self.0.state.interrupted().await;
    }

    /// Reports the progress of the body: `done` of `total` units, with a note. Readers of the job
    /// see it at most half a second later. The latest progress stays on the record.
    ///
    /// Cheap: the worker writes progress at most twice a second. A job that ends within half a
    /// second, and a worker that keeps less than full [records](crate::store::RecordLevel), write
    /// it once, at the end. A note is cut at
    /// [`MAX_LOG_BYTES`](crate::store::JobRecord::MAX_LOG_BYTES).
    pub fn progress(&self, done: u64, total: u64, note: impl Into<Option<String>>) {
        self.0.report.progress(Progress { done, total, note: note.into() });
    }

    /// Adds a line to the log on the record of the job. The record keeps the latest
    /// [`JobRecord::MAX_LOGS`](crate::store::JobRecord::MAX_LOGS) lines of this attempt.
    pub fn log(&self, line: impl Into<String>) {
        self.0.report.log(line.into());
    }

    pub(crate) fn report(&self) -> &Report {
        &self.0.report
    }

    pub(crate) fn interrupt(&self) {
        self.0.state.interrupt();
    }

    /// Reads the arguments by the parameters of the task.
    #[doc(hidden)]
    pub fn arguments(&self, params: &'static [Param]) -> TaskResult<ArgsReader<'_>> {
        self.0.message.arguments.reader(params)
    }

    /// Encodes the value that the body returned.
    #[doc(hidden)]
    pub fn output<T: Serialize + ?Sized>(&self, value: &T) -> TaskResult<Payload> {
        let client = self.client();
        let payload = client.codec().encode(value).map_err(|error| unencodable(&error))?;
        let (bytes, limit) = (payload.as_bytes().len(), client.max_payload_bytes());
        if bytes > limit {
            return Err(unstorable(format!("the result has {bytes} bytes, the limit is {limit}")));
        }
        Ok(payload)
    }

    /// Runs a blocking body on the blocking pool, in the scope of the worker's client.
    #[doc(hidden)]
    pub async fn blocking<F>(self, body: F) -> TaskResult<Payload>
    where
        F: FnOnce(&Self) -> TaskResult<Payload> + Send + 'static,
    {
        let span = tracing::Span::current();
        let in_scope = move || waits::on_thread(&self, || self.client().scope_blocking(|| body(&self)));
        match tokio::task::spawn_blocking(move || span.in_scope(in_scope)).await {
            Ok(result) => result,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(TaskError::new("the runtime shut down before the body ran")),
            },
        }
    }

    /// Moves the run from its async slot to a thread of the blocking pool, which it holds until the
    /// guard is dropped.
    ///
    /// A run that waits for a thread gives up its slot, unless too many runs wait already. `None`
    /// if the run was told to stop meanwhile.
    pub(crate) async fn enter_blocking(&self) -> Option<Placed<'_>> {
        let pool = &self.0.scope.pool;
        let place = match pool.try_acquire() {
            Some(place) => Some(place),
            None => {
                let waiting = pool.wait(self.queue());
                if waiting.needs_no_slot {
                    self.leave_slot();
                }
                tokio::select! {
                    biased;
                    () = self.0.state.interrupted() => None,
                    place = waiting.acquire() => place,
                }
            }
        };
        self.leave_slot();
        place.map(|place| self.place(place))
    }

    fn leave_slot(&self) {
        drop(self.take_slot());
    }

    /// The slot, if the run still holds it.
    pub(crate) fn take_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.0.slot.lock().take()
    }

    pub(crate) fn put_slot(&self, slot: Option<OwnedSemaphorePermit>) {
        *self.0.slot.lock() = slot;
    }

    /// Time limit of this attempt, if the message has one.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.0.message.timeout
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", self.id())
            .field("task", &self.task())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

fn unencodable(error: &Error) -> TaskError {
    let error = JobError::new("Unencodable", format!("the result: {error}"));
    TaskError::described(AfterFailure::Fatal, Reason::Unencodable, error)
}

fn unstorable(why: String) -> TaskError {
    TaskError::described(AfterFailure::Fatal, Reason::ResultTooLarge, JobError::new("ResultTooLarge", why))
}
