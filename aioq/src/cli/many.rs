//! Commands that take the ids of many jobs.

use clap::Args;
use futures_util::future::join_all;

use super::exit_of;
use super::out::{complain, print_line};
use super::progress::Progress;
use crate::app::Exit;
use crate::bulk::Bulk;
use crate::client::Client;
use crate::error::{ErrorKind, Result};
use crate::message::JobId;
use crate::store::Status;
use crate::text;

/// Number of jobs to act on at a time.
const AT_ONCE: usize = 64;

#[derive(Args)]
pub(super) struct Ids {
    /// The ids of the jobs
    #[arg(required = true, value_name = "ID")]
    pub(super) ids: Vec<String>,
}

/// Reason why a job with this status was refused.
pub(super) type Rule = fn(Status) -> &'static str;

/// Acts on each of these jobs, and reports the reason for each one that was refused.
pub(super) async fn each(
    client: &Client,
    ids: Vec<String>,
    rule: Rule,
    act: impl AsyncFn(&JobId) -> Result<bool>,
) -> Result<Exit> {
    let mut results = Results::new(client, ids.len(), rule);
    let ids: Vec<JobId> = ids.into_iter().map(JobId::from).collect();
    // No action is left half done while the reason of another one is asked for.
    for ids in ids.chunks(AT_ONCE) {
        let acts = join_all(ids.iter().map(|id| act(id))).await;
        for (id, done) in ids.iter().zip(acts) {
            results.note(id, done).await?;
        }
    }
    Ok(results.exit)
}

/// Prints the number of jobs that a bulk action changed, and the errors of the others.
pub(super) fn report<T>(done: &str, number: u64, what: &str, bulk: &Bulk<T>) -> Exit {
    print_line(&format!("{done} {}", text::count(number, what)));
    for error in &bulk.errors {
        complain(&error.to_string());
    }
    match bulk.failed - bulk.errors.len() as u64 {
        0 => {}
        more => complain(&format!("{more} more jobs failed like these")),
    }
    if bulk.failed == 0 { Exit::Done } else { Exit::Failed }
}

/// Result of an action on many jobs.
pub(super) struct Results<'a> {
    client: &'a Client,
    rule: Rule,
    progress: Progress,
    pub(super) exit: Exit,
}

impl<'a> Results<'a> {
    pub(super) fn new(client: &'a Client, jobs: usize, rule: Rule) -> Self {
        Self { client, rule, progress: Progress::new(jobs), exit: Exit::Done }
    }

    /// Adds the result for one job. Fails if the connection is lost.
    pub(super) async fn note(&mut self, id: &JobId, done: Result<bool>) -> Result<()> {
        self.progress.add(1);
        let (exit, why) = match done {
            Ok(true) => return Ok(()),
            Ok(false) => (Exit::Failed, self.why(id).await),
            Err(error) if error.kind() == ErrorKind::Connection => return Err(error),
            Err(error) => (exit_of(&error), error.with_id(id.clone()).to_string()),
        };
        self.progress.complain(&why);
        self.exit = self.exit.and(exit);
        Ok(())
    }

    async fn why(&self, id: &JobId) -> String {
        match self.client.jobs().get(id).await {
            Ok(record) => format!("job `{id}` is {}: {}", record.status, (self.rule)(record.status)),
            Err(error) => error.with_id(id.clone()).to_string(),
        }
    }
}
