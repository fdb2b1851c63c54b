//! What an action on many jobs came to.

use crate::error::{Error, Result};
use crate::message::JobId;

/// As many refusals are told one by one.
const MOST_ERRORS: usize = 100;

/// What an action on many jobs came to. It goes on past jobs that it cannot act on, and only an outage of the backend
/// ends it.
///
/// ```
/// use aioq::{Client, JobFilter, Memory};
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
    /// What was done: how many jobs, or which.
    pub done: T,
    /// How many jobs could not be acted on, each by an error of its own.
    pub failed: u64,
    /// Those errors, with the ids of the jobs; the first 100.
    pub errors: Vec<Error>,
}

impl<T> Bulk<T> {
    /// Notes that a job could not be acted on.
    ///
    /// # Errors
    /// An outage: with the next job it would be the same.
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
    /// Notes what became of one more job.
    ///
    /// # Errors
    /// An outage: with the next job it would be the same.
    pub(crate) fn note(&mut self, id: &JobId, done: Result<bool>) -> Result<()> {
        match done {
            Ok(done) => self.done += u64::from(done),
            Err(error) => self.pass_over(error.with_id(id.clone()))?,
        }
        Ok(())
    }
}
