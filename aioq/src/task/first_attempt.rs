//! The first message of a job, from the task, its arguments and the options of the kick.

use std::collections::HashSet;
use std::time::Duration;

use super::kick_options::{Chosen, Due};
use super::{AckMode, KickOptions, TaskOptions, UniqueOptions};
use crate::codec::Arguments;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Message, Name, ParentWait, Priority, Terms, UniqueKey, UniqueTie};
use crate::time::{Timestamp, check_time};
use crate::unique;

impl Message {
    /// The first attempt of a job that is kicked `now`. Options of the kick come before those of
    /// the task (`defaults`). `new_id` is called unless the options choose an id, which an error
    /// then carries.
    pub(crate) fn first_attempt(
        task: Name,
        arguments: Arguments,
        options: KickOptions,
        defaults: Option<&TaskOptions>,
        new_id: impl FnOnce() -> JobId,
        now: Timestamp,
    ) -> Result<Self> {
        let id = options.chosen_id().cloned();
        let message = Self::from_options(task, arguments, options, defaults, new_id, now);
        match id {
            Some(id) => message.map_err(|error| error.with_id(id)),
            None => message,
        }
    }

    fn from_options(
        task: Name,
        arguments: Arguments,
        options: KickOptions,
        defaults: Option<&TaskOptions>,
        new_id: impl FnOnce() -> JobId,
        now: Timestamp,
    ) -> Result<Self> {
        let Chosen {
            queue,
            priority,
            due,
            ttl,
            timeout,
            retries,
            labels,
            id,
            unique_key,
            unique_for,
            parents,
            on_parent_failure,
            invalid,
        } = options.into_chosen();
        if let Some(why) = invalid {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("task `{task}`: {why}")));
        }
        let has_chosen_id = id.is_some();
        let mut message = Self::new(id.unwrap_or_else(new_id), task, arguments);
        message.kicked_at = Some(now);
        // Under a chosen id there may be an earlier job: the worker checks that there is none.
        message.supersedes = has_chosen_id.then_some(0);
        if let Some(defaults) = defaults {
            message.apply_defaults(defaults);
        }
        message.labels.extend(labels);
        message.queue = queue.unwrap_or(message.queue);
        message.max_retries = retries.or(message.max_retries);
        message.timeout = timeout.or(message.timeout);
        if let Some(priority) = priority {
            message.priority = Priority::new(priority)?;
        }
        message.run_at = match due {
            Some(Due::In(delay)) => Some(now + delay),
            Some(Due::At(time)) => Some(check_time("the time to run at", time, now)?),
            None => None,
        };
        message.run_at = message.run_at.filter(|due| *due > now);
        if !parents.is_empty() {
            let delay = match due {
                Some(Due::In(delay)) => delay,
                _ => Duration::ZERO,
            };
            // It counts from the end of the parents.
            message.run_at = message.run_at.filter(|_| delay.is_zero());
            let ties = message.ties_mut();
            ties.wait = Some(ParentWait { on_failure: on_parent_failure, delay, ..ParentWait::default() });
            let mut known = HashSet::new();
            ties.parents = parents.into_iter().filter(|parent| known.insert(parent.clone())).collect();
        }
        let ttl = ttl.or_else(|| defaults.and_then(|defaults| defaults.ttl));
        message.expires_at = ttl.map(|ttl| message.run_at.unwrap_or(now) + ttl);
        let unique = defaults.and_then(|defaults| defaults.unique);
        if unique.is_some() || unique_key.is_some() || unique_for.is_some() {
            let key = message.unique_key(unique, unique_key.as_deref());
            let within = unique_for.or(unique.map(|unique| unique.within)).unwrap_or_default();
            if let Some(defaults) = defaults {
                defaults.check_unique(&message.task)?;
            }
            // A key of the kick's own names one job, not a burst.
            let debounce = unique.filter(|_| unique_key.is_none()).and_then(|unique| unique.debounce);
            message.ties_mut().unique = Some(UniqueTie::new(key, Terms { within, debounce }));
        }
        Ok(message)
    }

    /// The unique key: of the text that the kick chose, or of the arguments.
    fn unique_key(&self, unique: Option<UniqueOptions>, chosen: Option<&str>) -> UniqueKey {
        match chosen {
            Some(text) => unique::of_text(&self.task, text),
            None => unique::of_arguments(&self.task, &self.arguments, unique.map_or(&[], |unique| unique.by)),
        }
    }

    fn apply_defaults(&mut self, defaults: &TaskOptions) {
        if self.queue != defaults.queue {
            self.queue = Name::from_static(defaults.queue);
        }
        self.priority = Priority::new(defaults.priority).unwrap_or_default();
        // In the message although the worker knows them: a Python worker and the list of jobs do
        // not.
        self.max_retries = (defaults.retry.max > 0).then_some(defaults.retry.max);
        self.timeout = defaults.timeout;
        let labels = defaults.labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
        self.labels.extend(labels);
    }
}

impl TaskOptions {
    /// Refuses a unique key for a task whose jobs leave no trace while they run: nobody could tell
    /// whether such a job has ended.
    fn check_unique(&self, task: &Name) -> Result<()> {
        let until_start = self.unique.is_some_and(|unique| unique.until_start);
        if self.ack == AckMode::OnSave || until_start {
            return Ok(());
        }
        let why = format!(
            "task `{task}`: a unique job is acked once it is saved; remove `ack`, or free the key at the start \
             with `unique(until = \"start\")`"
        );
        Err(Error::new(ErrorKind::InvalidArgument, why))
    }
}
