//! Options of one kick: [`KickOptions`], and the same setters on [`Call`] and [`Flow`].

use std::time::Duration;

use super::flow::Flow;
use super::{Call, Configured, Task};
use crate::error::Error;
use crate::message::{JobId, Label, Labels, Name, OnParentFailure};
use crate::time::{IntoDuration, IntoTimestamp, Timestamp, check_span};

/// Options of a kick, beyond the task and its arguments.
///
/// An invalid value is remembered, and refused when the call is kicked.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct KickOptions(Option<Box<Chosen>>);

/// The options that were set.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    pub(super) queue: Option<Name>,
    pub(super) priority: Option<u8>,
    pub(super) due: Option<Due>,
    pub(super) ttl: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) retries: Option<u32>,
    pub(super) labels: Labels,
    pub(super) id: Option<JobId>,
    pub(super) unique_key: Option<String>,
    pub(super) unique_for: Option<Duration>,
    pub(super) parents: Vec<JobId>,
    pub(super) on_parent_failure: OnParentFailure,
    /// The error of the first invalid value.
    pub(super) invalid: Option<String>,
}

/// Earliest time of the first run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    In(Duration),
    At(Timestamp),
}

/// Declares each option once, for [`KickOptions`], [`Call`] and [`Flow`].
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) => $set:expr;)*) => {
        impl KickOptions {
            $(
                $(#[$doc])*
                pub fn $name(self, $($argument: $type),*) -> Self {
                    self.set($set)
                }
            )*
        }

        impl<T: Task, S> Call<T, S> {
            $(
                $(#[$doc])*
                pub fn $name(self, $($argument: $type),*) -> Call<T, Configured> {
                    self.with(|options| options.$name($($argument),*))
                }
            )*
        }

        impl<T: Task> Flow<T> {
            $(
                $(#[$doc])*
                pub fn $name(self, $($argument: $type),*) -> Self {
                    self.with(|options| options.$name($($argument),*))
                }
            )*
        }
    };
}

options! {
    /// Kicks to this queue instead of the task's own.
    queue(queue: impl Into<Name>) => |chosen| chosen.queue = Some(queue.into());

    /// Priority from 0 to 9, lower first; 5 unless the task has another one.
    priority(priority: u8) => |chosen| chosen.priority = Some(priority);

    /// Delays the first run: a [`Duration`] or text like `"5m"`, at most
    /// [`MAX_SPAN`](crate::time::MAX_SPAN), as all spans.
    delay(delay: impl IntoDuration) => |chosen| {
        chosen.due = chosen.checked_span("delay", delay).map(Due::In).or(chosen.due);
    };

    /// Delays the first run until then; at most [`MAX_SPAN`](crate::time::MAX_SPAN) ahead.
    at(time: impl IntoTimestamp) => |chosen| match time.into_timestamp() {
        Ok(time) => chosen.due = Some(Due::At(time)),
        Err(error) => chosen.refuse(&error),
    };

    /// Time after which a job that has not started expires, counted from when it was due.
    ttl(ttl: impl IntoDuration) => |chosen| chosen.ttl = chosen.checked_span("ttl", ttl).or(chosen.ttl);

    /// Time limit of one attempt.
    timeout(timeout: impl IntoDuration) => |chosen| {
        chosen.timeout = chosen.checked_span("timeout", timeout).or(chosen.timeout);
    };

    /// Number of retries after the first run. The task decides how long to wait between them.
    retries(max: u32) => |chosen| chosen.retries = Some(max);

    /// Adds a label, which the body, middlewares and tools can read.
    label(name: impl Into<String>, value: impl Into<Label>) => |chosen| {
        chosen.labels.insert(name.into(), value.into());
    };

    /// Kicks under an id of your choice. If a job of that id exists, nothing is added, and the
    /// handle is that job's ([`TaskHandle::existing`](crate::TaskHandle::existing)). The id is free
    /// again once that job's record is gone.
    id(id: impl Into<JobId>) => |chosen| chosen.id = Some(id.into());

    /// Kicks only if no unfinished job of the task has this key. If one has, nothing is added, and
    /// the handle is that job's ([`TaskHandle::existing`](crate::TaskHandle::existing)).
    unique_key(key: impl Into<String>) => |chosen| chosen.unique_key = Some(key.into());

    /// Time from the kick for which the job holds its unique key although it has completed. Without
    /// a key of the task or of [`unique_key`](Self::unique_key), the key is made of all arguments.
    unique_for(span: impl IntoDuration) => |chosen| {
        chosen.unique_for = chosen.checked_span("unique_for", span).or(chosen.unique_for);
    };

    /// Runs the job after these jobs have completed: a handle, or several. Adds to earlier ones, at
    /// most 10,000 in all. Until then the job is [`Blocked`](crate::store::Status::Blocked), a
    /// [`delay`](Self::delay) counts from then on, and [`ttl`](Self::ttl) from the kick.
    after(parents: impl IntoParents) => |chosen| chosen.parents.extend(parents.into_parents());

    /// [`after`](Self::after), by ids.
    after_ids(ids: impl IntoIterator<Item = impl Into<JobId>>) => |chosen| {
        chosen.parents.extend(ids.into_iter().map(Into::into));
    };

    /// What becomes of the job when a parent does not complete, or is not known. Without this it
    /// [fails](OnParentFailure::Fail).
    on_parent_failure(choice: OnParentFailure) => |chosen| chosen.on_parent_failure = choice;
}

/// Jobs that another job waits for: a handle, or several.
pub trait IntoParents {
    /// Their ids.
    fn into_parents(self) -> Vec<JobId>;
}

impl<P: IntoParents> IntoParents for Vec<P> {
    fn into_parents(self) -> Vec<JobId> {
        self.into_iter().flat_map(P::into_parents).collect()
    }
}

impl<P: IntoParents, const N: usize> IntoParents for [P; N] {
    fn into_parents(self) -> Vec<JobId> {
        self.into_iter().flat_map(P::into_parents).collect()
    }
}

impl KickOptions {
    /// No options: the task's own apply.
    pub const fn new() -> Self {
        Self(None)
    }

    /// True if the job runs although a parent has failed.
    pub(super) fn runs_after_failure(&self) -> bool {
        self.0.as_ref().is_some_and(|chosen| chosen.on_parent_failure == OnParentFailure::Run)
    }

    pub(super) fn chosen_id(&self) -> Option<&JobId> {
        self.0.as_ref()?.id.as_ref()
    }

    pub(super) fn has_unique_key(&self) -> bool {
        self.0.as_ref().is_some_and(|chosen| chosen.unique_key.is_some())
    }

    pub(super) fn into_chosen(self) -> Chosen {
        self.0.map_or_else(Chosen::default, |chosen| *chosen)
    }

    fn set(mut self, change: impl FnOnce(&mut Chosen)) -> Self {
        change(self.0.get_or_insert_default());
        self
    }
}

impl Chosen {
    /// The span, or `None` if it is invalid; the error is then remembered.
    fn checked_span(&mut self, name: &str, span: impl IntoDuration) -> Option<Duration> {
        let span = span.into_duration().and_then(|span| check_span(name, span));
        span.map_err(|error| self.refuse(&error)).ok()
    }

    fn refuse(&mut self, error: &Error) {
        self.invalid.get_or_insert_with(|| error.to_string());
    }
}
