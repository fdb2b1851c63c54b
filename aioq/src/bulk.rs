//! Results of actions on many jobs.

use crate::error::{Error, Result};
use crate::message::JobId;

/// Maximum number of errors that are kept.
const MOST_ERRORS: usize = 100;

/// Result of an action on many jobs. The action passes over jobs that it cannot act on, and ends
/// only at an outage of the backend.
///
/// ```
/// use aioq::jobs::JobFilter;
/// use aioq::{Client, Memory};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let client = Client::connect(Memory::new()).await?;
/// let replayed = client.dead_letters().replay_all(JobFilter::new()).await?;
/// assert_eq!((replayed.done, replayed.failed), (0, 0));
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Bulk<T = u64> {
    /// The number of jobs acted on, or the jobs.
    pub done: T,
    /// Number of jobs that the action failed for.
    pub failed: u64,
    /// The errors of those jobs, with their ids; the first 100.
    pub errors: Vec<Error>,
}

impl<T> Bulk<T> {
    /// Records the failure for one job.
    ///
    /// # Errors
    /// Returns an outage: the next job would meet it too.
    pub(crate) fn pass_over(&mut self, error: Error) -> Result<()> {
        if error.is_outage() {
            return Err(error);
        }
        self.failed += 1;
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(error);
        }
        Ok(())
    }
}

impl Bulk {
    /// Records the result for one job.
    ///
    /// # Errors
    /// Returns an outage: the next job would meet it too.
    pub(crate) fn note(&mut self, id: &JobId, done: Result<bool>) -> Result<()> {
        match done {
            Ok(done) => self.done += u64::from(done),
            Err(error) => self.pass_over(error.with_id(id.clone()))?,
        }
        Ok(())
    }
}
