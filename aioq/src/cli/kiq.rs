//! The command `kiq`: kicks a task by its name.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::job_args::JobArgs;
use super::out::{print_line, tell};
use super::progress::Progress;
use super::queues::warn_of_strange;
use super::wait;
use crate::app::{App, Exit};
use crate::client::Client;
use crate::codec::Arguments;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::jobs::TaskHandle;
use crate::message::{Message, OnParentFailure};
use crate::registry::Registry;
use crate::registry::TaskDef;
use crate::task::KickOptions;
use crate::time::parse_duration;

#[derive(Args)]
pub(super) struct KiqArgs {
    /// The name of the task
    name: String,
    /// The arguments by name, as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    args: String,
    /// Kick one job per line of this file, each line the arguments as a JSON object
    #[arg(long, value_name = "FILE", conflicts_with_all = ["args", "count", "id"])]
    args_file: Option<PathBuf>,
    /// Number of copies to kick
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: usize,
    #[command(flatten)]
    job: JobArgs,
    /// Time from now before the first run
    #[arg(long, value_parser = parse_duration, value_name = "TIME", conflicts_with = "at")]
    delay: Option<Duration>,
    /// Earliest time of the first run, as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    at: Option<String>,
    /// The id of the job; a job that exists is not kicked again
    #[arg(long)]
    id: Option<String>,
    /// Run after these jobs have completed: ids with commas between; may be repeated
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    after: Vec<String>,
    /// What becomes of the job when one of those does not complete
    #[arg(long, value_name = "CHOICE", value_parser = parse_on_parent_failure, requires = "after", default_value = "fail")]
    on_parent_failure: OnParentFailure,
    /// Wait for the result, at most for TIME if it is given
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "forever", value_parser = parse_wait)]
    wait: Option<Wait>,
    /// Print an object per job: id, status, result, error
    #[arg(long)]
    json: bool,
    /// Skip the checks: also send unknown tasks and arguments that do not fit
    #[arg(long)]
    untyped: bool,
}

fn parse_on_parent_failure(text: &str) -> Result<OnParentFailure, String> {
    let choices = [OnParentFailure::Fail, OnParentFailure::Run, OnParentFailure::Wait];
    let chosen = choices.into_iter().find(|choice| choice.as_str() == text);
    chosen.ok_or_else(|| "`fail`, `run` or `wait`".to_owned())
}

#[derive(Clone, Copy)]
enum Wait {
    Forever,
    For(Duration),
}

fn parse_wait(text: &str) -> Result<Wait> {
    match text {
        "forever" => Ok(Wait::Forever),
        text => parse_duration(text).map(Wait::For),
    }
}

/// Jobs kicked with one flush.
const BATCH: usize = 1000;

pub(super) async fn run(app: App, args: KiqArgs) -> Result<Exit, BoxError> {
    if args.count == 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, "`--count` must be at least 1").into());
    }
    if args.id.is_some() && args.count > 1 {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "`--id` names one job and cannot be used with a `--count` above 1",
        )
        .into());
    }
    let registry = app.registry()?;
    // All checks first: nothing is sent if anything is wrong.
    let calls = args.arguments()?;
    let task = args.check(&registry, &calls)?;
    let client = app.client().await?;
    warn_of_strange(&app, &client, args.job.queue.as_deref()).await?;
    let (kicked, refused) = kick(&client, &args, task.as_ref(), calls).await?;
    let exit = if client.backend().broker().info().in_process {
        // No other process ever sees these jobs, so they run here.
        run_here(app, &client, &args, kicked).await
    } else {
        report(&client, &args, kicked).await
    };
    client.shutdown().await?;
    Ok(exit?.and(refused))
}

/// Reports while a worker of this process runs the jobs; without `--wait`, until there is nothing
/// to run now.
async fn run_here(
    app: App,
    client: &Client,
    args: &KiqArgs,
    kicked: Vec<TaskHandle<()>>,
) -> Result<Exit, BoxError> {
    let worker = app.worker().await?;
    if args.wait.is_none() {
        worker.drain().await?;
        return report(client, args, kicked).await;
    }
    tokio::select! {
        exit = report(client, args, kicked) => exit,
        ended = worker.run(std::future::pending()) => Err(format!("the worker ended early: {ended:?}").into()),
    }
}

impl KiqArgs {
    fn arguments(&self) -> Result<Vec<Arguments>, BoxError> {
        let codec = crate::codec::Codec::default();
        let Some(path) = &self.args_file else {
            return Ok(vec![Arguments::from_json(codec, &self.args)?; self.count]);
        };
        let file = std::fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut calls = Vec::new();
        for (index, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(|error| format!("{}: {error}", path.display()))?;
            if !line.trim().is_empty() {
                let place = |error: Error| error.context(format_args!("{}:{}", path.display(), index + 1));
                calls.push(Arguments::from_json(codec, &line).map_err(place)?);
            }
        }
        Ok(calls)
    }

    /// Refuses arguments that the task would refuse, or would accept only by a cast. Returns the
    /// task, if this program has it.
    fn check(&self, registry: &Registry, calls: &[Arguments]) -> Result<Option<TaskDef>> {
        let task = registry.find(&self.name).cloned();
        if self.untyped {
            return Ok(task);
        }
        let Some(task) = task else {
            return Err(registry.unknown(&self.name).context("not sent; `--untyped` sends it unchecked"));
        };
        // Copies of one call are checked once.
        let distinct = if self.args_file.is_some() { calls } else { &calls[..1] };
        for (index, arguments) in distinct.iter().enumerate() {
            task.check(&arguments.strictly()?).map_err(|error| {
                let place =
                    if self.args_file.is_some() { format!(", call {}", index + 1) } else { String::new() };
                Error::new(ErrorKind::InvalidArgument, format!("task `{}`{place}: {error}", self.name))
            })?;
        }
        Ok(Some(task))
    }

    fn options(&self) -> KickOptions {
        let mut options = self.job.options();
        if let Some(delay) = self.delay {
            options = options.delay(delay);
        }
        if let Some(at) = &self.at {
            options = options.at(at.as_str());
        }
        if let Some(id) = &self.id {
            options = options.id(id.as_str());
        }
        options = options.after_ids(self.after.iter().map(String::as_str));
        options.on_parent_failure(self.on_parent_failure)
    }
}

/// Kicks all calls in batches, with a progress bar. Goes on after a call that is refused.
async fn kick(
    client: &Client,
    args: &KiqArgs,
    task: Option<&TaskDef>,
    calls: Vec<Arguments>,
) -> Result<(Vec<TaskHandle<()>>, Exit), BoxError> {
    let progress = Progress::new(calls.len());
    let options = args.options();
    let message = |arguments| -> Result<Message> {
        client.message_by_name(&args.name, arguments, options.clone(), task.map(TaskDef::options))
    };
    let (mut handles, mut exit) = (Vec::with_capacity(calls.len()), Exit::Done);
    let mut calls = calls.into_iter();
    loop {
        let batch: Vec<Result<Message>> = calls.by_ref().take(BATCH).map(message).collect();
        if batch.is_empty() {
            break;
        }
        progress.add(batch.len());
        let alone = batch.len() == 1 && handles.is_empty();
        let mut is_cut_off = false;
        for handle in client.kick_all(batch.into_iter()).await {
            match handle {
                Ok(handle) => {
                    if !args.json {
                        print_line(handle.id().as_str());
                    }
                    handles.push(handle);
                }
                Err(error) if alone => return Err(error.into()),
                Err(error) => {
                    progress.complain(&error.to_string());
                    exit = exit.and(if error.is_outage() { Exit::Usage } else { Exit::Failed });
                    is_cut_off |= error.is_outage();
                }
            }
        }
        if is_cut_off {
            break;
        }
    }
    Ok((handles, exit))
}

/// Waits for the jobs if `--wait` is set. Prints their ids, or their results.
async fn report(client: &Client, args: &KiqArgs, handles: Vec<TaskHandle<()>>) -> Result<Exit, BoxError> {
    let Some(wait) = args.wait else {
        for handle in &handles {
            if args.json {
                wait::print_job(&handle.record().await?);
            }
        }
        return Ok(Exit::Done);
    };
    warn_if_nobody_listens(client, args, &handles).await;
    let limit = match wait {
        Wait::Forever => None,
        Wait::For(limit) => Some(limit),
    };
    Ok(wait::ends(&handles, limit, args.json).await?)
}

async fn warn_if_nobody_listens(client: &Client, args: &KiqArgs, handles: &[TaskHandle<()>]) {
    let Some(queue) = handles.first().map(TaskHandle::queue) else { return };
    let Ok(workers) = client.workers().list().await else { return };
    let listening =
        workers.iter().any(|worker| worker.is_alive() && worker.queues.iter().any(|name| name == queue));
    if !listening && !client.backend().broker().info().in_process {
        let hint = if matches!(args.wait, Some(Wait::Forever)) { ", waiting for one" } else { "" };
        tell(&format!("no live worker consumes the queue `{queue}`{hint}"));
    }
}
