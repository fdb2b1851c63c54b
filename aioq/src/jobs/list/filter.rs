//! The filter of a list: [`JobFilter`].

use crate::message::Label;
use crate::store::{JobRecord, Status};

/// A filter for jobs; the default matches all.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct JobFilter {
    pub(super) queue: Option<String>,
    pub(super) statuses: Vec<Status>,
    task: Option<String>,
    label: Option<(String, Label)>,
    dead_lettered: bool,
}

impl JobFilter {
    /// All jobs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only jobs of this queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Only jobs with this status. Call it again to allow more than one.
    pub fn status(mut self, status: Status) -> Self {
        self.statuses.push(status);
        self
    }

    /// Only jobs of this task. Not indexed: reads every record that matches the rest.
    pub fn task(mut self, task: impl Into<String>) -> Self {
        self.task = Some(task.into());
        self
    }

    /// Only jobs with this label. Not indexed: reads every record that matches the rest.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<Label>) -> Self {
        self.label = Some((name.into(), value.into()));
        self
    }

    /// Only dead letters.
    pub fn dead_lettered(mut self) -> Self {
        self.dead_lettered = true;
        self
    }

    /// Allows these statuses, unless the filter has statuses already.
    pub(crate) fn or_statuses(mut self, statuses: &[Status]) -> Self {
        if self.statuses.is_empty() {
            self.statuses.extend(statuses);
        }
        self
    }

    /// True if a message of this task and these labels matches, whatever the status of its job.
    pub(super) fn matches_message(&self, task: &str, label: impl Fn(&str) -> Option<Label>) -> bool {
        self.task.as_deref().is_none_or(|wanted| wanted == task)
            && self
                .label
                .as_ref()
                .is_none_or(|(name, value)| label(name).is_some_and(|found| found.reads_as(value)))
    }

    pub(super) fn matches_record(&self, record: &JobRecord) -> bool {
        self.matches_status(record.status)
            && (!self.dead_lettered || record.dead_lettered)
            && self.matches_message(&record.task, |name| record.labels.get(name).cloned())
    }

    fn matches_status(&self, status: Status) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&status)
    }

    /// True if the filter hides rows that the backend returns.
    pub(super) fn hides_rows(&self) -> bool {
        self.task.is_some() || self.label.is_some() || self.dead_lettered
    }
}
