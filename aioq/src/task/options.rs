//! Options of a task, as set by its attribute.

use std::time::Duration;

use super::{RetryPolicy, ScheduleOptions};
use crate::message::{DEFAULT_QUEUE, Label};
use crate::store::Status;

/// Options of a task: `#[task(..)]` as a constant.
#[derive(Clone, Copy, Debug)]
pub struct TaskOptions {
    pub(crate) queue: &'static str,
    pub(crate) priority: u8,
    pub(crate) timeout: Option<Duration>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) ack: AckMode,
    pub(crate) labels: &'static [(&'static str, ConstLabel)],
    pub(crate) aliases: &'static [&'static str],
    pub(crate) keep: Option<Duration>,
    pub(crate) keep_failed: Option<Duration>,
    pub(crate) unique: Option<UniqueOptions>,
    pub(crate) schedule: Option<ScheduleOptions>,
}

impl TaskOptions {
    /// Defaults: the queue `default`, priority 5, no retries, no limits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            queue: DEFAULT_QUEUE,
            priority: 5,
            timeout: None,
            ttl: None,
            retry: RetryPolicy::never(),
            ack: AckMode::OnSave,
            labels: &[],
            aliases: &[],
            keep: None,
            keep_failed: None,
            unique: None,
            schedule: None,
        }
    }

    /// Queue of its kicks.
    #[must_use]
    pub const fn queue(mut self, queue: &'static str) -> Self {
        self.queue = queue;
        self
    }

    /// Priority of its kicks, 0 to 9, lower first.
    #[must_use]
    pub const fn priority(mut self, priority: u8) -> Self {
        assert!(priority <= 9, "priority is 0 to 9");
        self.priority = priority;
        self
    }

    /// Time limit of one attempt in milliseconds.
    #[must_use]
    pub const fn timeout_ms(mut self, ms: u64) -> Self {
        self.timeout = Some(Duration::from_millis(ms));
        self
    }

    /// Time in milliseconds after which a job that has not started expires.
    #[must_use]
    pub const fn ttl_ms(mut self, ms: u64) -> Self {
        self.ttl = Some(Duration::from_millis(ms));
        self
    }

    /// Retry policy of failed attempts.
    #[must_use]
    pub const fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Time of the ack.
    #[must_use]
    pub const fn ack(mut self, ack: AckMode) -> Self {
        self.ack = ack;
        self
    }

    /// Labels of its kicks.
    #[must_use]
    pub const fn labels(mut self, labels: &'static [(&'static str, ConstLabel)]) -> Self {
        self.labels = labels;
        self
    }

    /// Lifetime of the records of completed jobs in milliseconds.
    #[must_use]
    pub const fn keep_ms(mut self, ms: u64) -> Self {
        self.keep = Some(Duration::from_millis(ms));
        self
    }

    /// Lifetime of the records of failed, expired and cancelled jobs in milliseconds.
    #[must_use]
    pub const fn keep_failed_ms(mut self, ms: u64) -> Self {
        self.keep_failed = Some(Duration::from_millis(ms));
        self
    }

    /// At most one unfinished job of a key.
    #[must_use]
    pub const fn unique(mut self, unique: UniqueOptions) -> Self {
        self.unique = Some(unique);
        self
    }

    /// Ticks of the task.
    #[must_use]
    pub const fn schedule(mut self, schedule: ScheduleOptions) -> Self {
        self.schedule = Some(schedule);
        self
    }

    /// Lifetime of the record of a job that ended with this status, if the task sets one.
    pub(crate) fn kept_for(&self, status: Status) -> Option<Duration> {
        match status {
            Status::Completed => self.keep,
            _ => self.keep_failed,
        }
    }

    /// Further names: messages under them run the task, too.
    #[must_use]
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }
}

/// What makes jobs of a task one: `unique(..)` as a constant.
#[derive(Clone, Copy, Debug)]
pub struct UniqueOptions {
    pub(crate) by: &'static [&'static str],
    pub(crate) within: Duration,
    pub(crate) until_start: bool,
    /// The pause after the last kick, and the longest wait since the first.
    pub(crate) debounce: Option<(Duration, Option<Duration>)>,
}

impl UniqueOptions {
    /// Jobs with equal arguments are one, until the job ends.
    #[must_use]
    pub const fn new() -> Self {
        Self { by: &[], within: Duration::ZERO, until_start: false, debounce: None }
    }

    /// Compares only these parameters.
    #[must_use]
    pub const fn by(mut self, by: &'static [&'static str]) -> Self {
        self.by = by;
        self
    }

    /// Time in milliseconds from the kick for which a completed job still holds the key.
    #[must_use]
    pub const fn within_ms(mut self, ms: u64) -> Self {
        self.within = Duration::from_millis(ms);
        self
    }

    /// Runs the newest of many kicks, these milliseconds after the last one.
    #[must_use]
    pub const fn debounce_ms(mut self, ms: u64) -> Self {
        let longest = match self.debounce {
            Some((_, longest)) => longest,
            None => None,
        };
        self.debounce = Some((Duration::from_millis(ms), longest));
        self
    }

    /// Longest wait of a debounced job since the first kick, in milliseconds.
    #[must_use]
    pub const fn max_ms(mut self, ms: u64) -> Self {
        if let Some((pause, _)) = self.debounce {
            self.debounce = Some((pause, Some(Duration::from_millis(ms))));
        }
        self
    }

    /// Frees the key when the body starts.
    #[must_use]
    pub const fn until_start(mut self) -> Self {
        self.until_start = true;
        self
    }
}

impl Default for UniqueOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Time of the ack of a message, which decides the cost of a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AckMode {
    /// After the result is saved: a crash repeats the job, and never loses it.
    #[default]
    OnSave,
    /// Before the body runs: a crash loses the job, and never repeats it. Failures are not retried.
    OnReceive,
    /// After the body, before the result is saved: a crash between the two loses the result.
    AfterRun,
}

/// The value of a label in `labels(..)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ConstLabel {
    /// Text.
    Str(&'static str),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl From<ConstLabel> for Label {
    fn from(label: ConstLabel) -> Self {
        match label {
            ConstLabel::Str(text) => text.into(),
            ConstLabel::Int(number) => number.into(),
            ConstLabel::Float(number) => number.into(),
            ConstLabel::Bool(value) => value.into(),
        }
    }
}
