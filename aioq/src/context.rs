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

/// One run of a job, as its body sees it. Cheap to clone.
///
/// A task asks for it with `#[inject] ctx: &Context`.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    message: Message,
    scope: Arc<RunScope>,
    state: Arc<RunState>,
    /// The slot among the async jobs that this run holds, until it moves to the blocking pool.
    slot: Lock<Option<OwnedSemaphorePermit>>,
    /// Waits for other jobs that are pending in its async body.
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

    /// The job.
    #[must_use]
    pub fn id(&self) -> &JobId {
        &self.0.message.id
    }

    /// The name of its task.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.0.message.task
    }

    /// The queue it came from.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.0.message.queue
    }

    /// Which run of the job this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.message.attempt
    }

    /// A label of the job.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&Label> {
        self.0.message.labels.get(name)
    }

    /// The whole message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// The worker that runs it.
    #[must_use]
    pub fn worker_id(&self) -> &str {
        &self.0.scope.worker_id
    }

    pub(crate) fn worker_name(&self) -> &Name {
        &self.0.scope.worker_id
    }

    /// The client of that worker, to kick further jobs. Tasks that the body spawns do not inherit
    /// the scope of `.kiq()`, so they need this.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.scope.client
    }

    /// A state of the worker, as `.state(..)` put it there.
    ///
    /// # Errors
    /// A fatal error if there is none of that type. Tasks that `#[inject]` it are checked when the
    /// worker starts.
    pub fn state<T: Send + Sync + 'static>(&self) -> TaskResult<&T> {
        self.0.scope.states.get().ok_or_else(|| {
            let name = std::any::type_name::<T>();
            TaskError::fatal(format!("the worker has no state `{name}`: add `.state(..)` to the app"))
        })
    }

    /// Whether the run has been told to stop: its time is up, it was cancelled, or the worker ends.
    /// A blocking body looks now and then; an async one is simply dropped.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.state.is_interrupted()
    }

    /// Resolves when the run is told to stop.
    pub async fn cancelled(&self) {
        self.0.state.interrupted().await;
    }

    /// Says how far the body is: `done` of `total` units, and what it is at. Everybody who looks at
    /// the job sees it, at most half a second later; the latest word stays on the record.
    ///
    /// Cheap: it only remembers, and the worker writes now and then, and nothing for jobs that end
    /// within half a second but their last word. Workers that keep fewer than full
    /// [records](crate::store::RecordLevel) write only that. A note is cut at
    /// [`MAX_LOG_BYTES`](crate::store::JobRecord::MAX_LOG_BYTES).
    pub fn progress(&self, done: u64, total: u64, note: impl Into<Option<String>>) {
        self.0.report.progress(Progress { done, total, note: note.into() });
    }

    /// Adds a line to the log on the job's record, which keeps the latest of this attempt: at most
    /// [`JobRecord::MAX_LOGS`](crate::store::JobRecord::MAX_LOGS) lines.
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

    /// Encodes what the body returned.
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

    /// Moves the run from the async slots to the blocking pool, where it has a place as long as the
    /// guard lives.
    ///
    /// While it waits for a place it gives its slot back, as long as not too many wait already.
    /// `None` if the run was told to stop meanwhile.
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

    /// How long this attempt may take, if the call said so.
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
