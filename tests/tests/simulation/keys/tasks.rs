//! A task of each kind of key.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use aioq::JobId;
use aioq::prelude::*;

use crate::bodies::{Stage, perform};

/// Keys of each task.
const KEYS: u32 = 2;

/// Time after the last trigger.
pub(super) const PAUSE: Duration = Duration::from_secs(2);
/// Longest time after the first trigger, if it is limited.
pub(super) const MAX: Duration = Duration::from_secs(6);

/// A key of one of the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) u32);

impl Key {
    /// The keys of the tasks that are not debounced.
    pub(super) const UNIQUE: Range<u32> = 0..3 * KEYS;
    /// The keys of the debounced tasks.
    pub(super) const DEBOUNCED: Range<u32> = 3 * KEYS..5 * KEYS;

    pub(super) fn has_window(self) -> bool {
        self.0 / KEYS == 1
    }

    pub(super) fn is_freed_at_start(self) -> bool {
        self.0 / KEYS == 2
    }

    pub(super) fn has_max(self) -> bool {
        self.0 / KEYS == 4
    }

    /// Kicks a job. The number of the kick is in its arguments.
    pub(super) async fn kick(
        self,
        client: &Client,
        number: usize,
        kind: usize,
        millis: u64,
    ) -> aioq::Result<TaskHandle<usize>> {
        let (key, name) = (self.0 % KEYS, name_of(number));
        match self.0 / KEYS {
            0 => client.kiq(plain(key, name, kind, millis)).await,
            1 => client.kiq(within(key, name, kind, millis)).await,
            2 => client.kiq(until_start(key, name, kind, millis)).await,
            3 => client.kiq(debounced(key, name, kind, millis)).await,
            _ => client.kiq(debounced_at_most(key, name, kind, millis)).await,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Texts that no other bytes of an entry look like.
const NAME: &str = "kick-";
const JOB: &str = "job-";
const CONTESTED: &str = "contested";
/// Digits of a number in a name.
const DIGITS: usize = 6;

fn name_of(number: usize) -> String {
    format!("{NAME}{number:0DIGITS$}")
}

/// Number of the kick in the arguments of a job.
fn number_of(name: &str) -> usize {
    name[NAME.len()..].parse().unwrap()
}

/// Number of the kick that an entry holds the message of.
pub(super) fn kick_in(entry: &[u8]) -> Option<usize> {
    number_after(NAME, entry)
}

/// The job that an entry names.
pub(super) fn job_in(entry: &[u8]) -> Option<JobId> {
    number_after(JOB, entry).map(job_of)
}

/// True if a kick doubts the job that an entry names.
pub(super) fn is_contested(entry: &[u8]) -> bool {
    entry.windows(CONTESTED.len()).any(|part| part == CONTESTED.as_bytes())
}

/// The job of that number.
pub(super) fn job_of(number: usize) -> JobId {
    format!("{JOB}{number:0DIGITS$}").into()
}

/// The number behind that text.
fn number_after(text: &str, entry: &[u8]) -> Option<usize> {
    let place = entry.windows(text.len()).position(|part| part == text.as_bytes())? + text.len();
    std::str::from_utf8(entry.get(place..place + DIGITS)?).ok()?.parse().ok()
}

/// A task whose key is its first argument.
macro_rules! task_of_key {
    ($name:ident, $($terms:tt)*) => {
        #[task(unique(by = key, $($terms)*), retry(max = 2, backoff = "1s"))]
        async fn $name(
            key: u32,
            name: String,
            kind: usize,
            millis: u64,
            #[inject] ctx: &Context,
            #[inject] stage: &Stage,
        ) -> TaskResult<usize> {
            assert!(key < KEYS);
            perform(number_of(&name), kind, millis, ctx, stage).await
        }
    };
}

task_of_key!(plain,);
task_of_key!(within, within = "5s");
task_of_key!(until_start, until = "start");
task_of_key!(debounced, debounce = "2s");
task_of_key!(debounced_at_most, debounce = "2s", max = "6s");
