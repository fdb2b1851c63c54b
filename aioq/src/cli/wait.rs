//! Waits for jobs and prints their results, for `kiq --wait` and `jobs wait`.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::human;
use super::out::{complain, print_as_json, print_json};
use crate::app::Exit;
use crate::codec::Payload;
use crate::error::{JobError, Result};
use crate::jobs::TaskHandle;
use crate::store::{JobRecord, Status};

#[derive(Serialize)]
struct JobView<'a> {
    id: &'a str,
    status: Status,
    result: Option<&'a Payload>,
    error: Option<&'a JobError>,
}

/// Waits for the end of these jobs, at most `limit` for all together. Prints the result of each, in
/// this order.
pub(super) async fn ends(handles: &[TaskHandle<()>], limit: Option<Duration>, json: bool) -> Result<Exit> {
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut exit = Exit::Done;
    for handle in handles {
        let ended = match until {
            None => handle.wait().await.map(Some),
            Some(until) => timeout_at(until, handle.wait()).await.ok().transpose(),
        };
        exit = exit.and(match ended {
            Ok(Some(record)) => report_end(&record, json),
            Ok(None) => report_timeout(&handle.record().await?, json),
            // Goes on with the next job, unless the connection is lost.
            Err(error) if !error.is_outage() => {
                complain(&error.to_string());
                Exit::Failed
            }
            Err(error) => return Err(error),
        });
    }
    Ok(exit)
}

fn report_end(record: &JobRecord, json: bool) -> Exit {
    let completed = record.status == Status::Completed;
    if json {
        print_job(record);
    } else if let Some(result) = record.result.as_ref().filter(|_| completed) {
        print_as_json(&result.to_json());
    }
    if !completed {
        let why = record.error.as_deref().map_or_else(|| record.status.to_string(), human::error);
        complain(&format!("job `{}` {}: {why}", record.id, record.status));
    }
    if completed { Exit::Done } else { Exit::Failed }
}

fn report_timeout(record: &JobRecord, json: bool) -> Exit {
    if json {
        print_job(record);
    }
    complain(&format!("job `{}` has not ended in time, it is {}", record.id, record.status));
    Exit::TimedOut
}

/// Prints a job as a JSON object: id, status, result, error.
pub(super) fn print_job(record: &JobRecord) {
    let (result, error) = (record.result.as_ref(), record.error.as_deref());
    print_json(&JobView { id: record.id.as_str(), status: record.status, result, error });
}
