//! `kiq`: kicks a task by its name.

use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Exit, eprint_line, print_line};
use crate::app::App;
use crate::client::Client;
use crate::codec::{Arguments, Payload, to_json};
use crate::error::{BoxError, Error, ErrorKind, JobError, Result};
use crate::job::TaskHandle;
use crate::kick::KickOptions;
use crate::message::{Label, Message};
use crate::registry::Registry;
use crate::store::{JobRecord, Status};
use crate::task::TaskDef;
use crate::time::parse_duration;

#[derive(Args)]
pub(super) struct KiqArgs {
    /// The name of the task
    name: String,
    /// The arguments by name, as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}", hide_default_value = true)]
    args: String,
    /// Kick one job per line of this file, each line the arguments as a JSON object
    #[arg(long, value_name = "FILE", conflicts_with_all = ["args", "count", "id"])]
    args_file: Option<PathBuf>,
    /// Kick so many copies
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
    count: usize,
    /// The queue, instead of the task's own
    #[arg(long)]
    queue: Option<String>,
    /// 0 to 9, lower first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Run no earlier than this long from now
    #[arg(long, value_parser = parse_duration, value_name = "TIME", conflicts_with = "at")]
    delay: Option<Duration>,
    /// Run no earlier than then, as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    at: Option<String>,
    /// Expire if not started this long after it was due
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    ttl: Option<Duration>,
    /// How long one attempt may take
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    timeout: Option<Duration>,
    /// Retries after the first run
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// The id of the job; one that exists already is not kicked again
    #[arg(long)]
    id: Option<String>,
    /// A label, as name=value; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Wait for the result, no longer than that if a time is given
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "forever", value_parser = parse_wait)]
    wait: Option<Wait>,
    /// Print an object per job: id, status, result, error
    #[arg(long)]
    json: bool,
    /// Send what this program's tasks would refuse
    #[arg(long)]
    untyped: bool,
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

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected name=value")?;
    match name.is_empty() {
        true => Err("the name is empty".to_owned()),
        false => Ok((name.to_owned(), value.to_owned())),
    }
}

/// Jobs kicked with one flush.
const BATCH: usize = 1000;

pub(super) async fn run(app: App, args: KiqArgs) -> Result<Exit, BoxError> {
    if args.count == 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, "--count is at least 1").into());
    }
    if args.id.is_some() && args.count > 1 {
        return Err(
            Error::new(ErrorKind::InvalidArgument, "--id is for one job, --count makes several").into()
        );
    }
    let registry = app.registry()?;
    // All checks first: nothing is sent if anything is wrong.
    let calls = args.arguments()?;
    let task = args.check(&registry, &calls)?;
    let client = app.client().await?;
    let kicked = kick(&client, &args, task.as_deref(), calls).await?;
    let exit = match client.backend().broker().info().in_process {
        false => report(&client, &args, kicked).await,
        // No other process will ever see these jobs, so they run here.
        true => run_here(app, &client, &args, kicked).await,
    };
    client.shutdown().await?;
    exit
}

/// Reports while a worker of this process runs the jobs; without `--wait`, until there is nothing to run now.
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
        let codec = crate::Codec::default();
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

    /// Refuses what the task would refuse; the task, if it is one of this program.
    fn check(&self, registry: &Registry, calls: &[Arguments]) -> Result<Option<std::sync::Arc<TaskDef>>> {
        let task = registry.find(&self.name);
        if self.untyped {
            return Ok(task);
        }
        let Some(task) = task else {
            return Err(registry.unknown(&self.name).context("not sent (--untyped sends anyway)"));
        };
        // Copies of one call are one check.
        let distinct = if self.args_file.is_some() { calls } else { &calls[..1] };
        for (index, arguments) in distinct.iter().enumerate() {
            task.check(arguments).map_err(|error| {
                let place =
                    if self.args_file.is_some() { format!(", call {}", index + 1) } else { String::new() };
                Error::new(ErrorKind::InvalidArgument, format!("task `{}`{place}: {error}", self.name))
            })?;
        }
        Ok(Some(task))
    }

    fn options(&self) -> KickOptions {
        let mut options = KickOptions::new();
        if let Some(queue) = &self.queue {
            options = options.queue(queue);
        }
        if let Some(priority) = self.priority {
            options = options.priority(priority);
        }
        if let Some(delay) = self.delay {
            options = options.delay(delay);
        }
        if let Some(at) = &self.at {
            options = options.at(at.as_str());
        }
        if let Some(ttl) = self.ttl {
            options = options.ttl(ttl);
        }
        if let Some(timeout) = self.timeout {
            options = options.timeout(timeout);
        }
        if let Some(retries) = self.retries {
            options = options.retries(retries);
        }
        if let Some(id) = &self.id {
            options = options.id(id.as_str());
        }
        for (name, value) in &self.labels {
            options = options.label(name, Label::Str(value.clone()));
        }
        options
    }
}

/// Kicks all calls in batches, with a bar on a terminal when there are many.
async fn kick(
    client: &Client,
    args: &KiqArgs,
    task: Option<&TaskDef>,
    calls: Vec<Arguments>,
) -> Result<Vec<TaskHandle<()>>, BoxError> {
    let bar = match calls.len() > BATCH && std::io::stderr().is_terminal() {
        true => indicatif::ProgressBar::new(calls.len() as u64),
        false => indicatif::ProgressBar::hidden(),
    };
    let options = args.options();
    let message =
        |arguments| -> Result<Message> { client.message_for(task, &args.name, arguments, options.clone()) };
    let mut handles = Vec::with_capacity(calls.len());
    let mut calls = calls.into_iter();
    loop {
        let batch: Vec<Result<Message>> = calls.by_ref().take(BATCH).map(message).collect();
        if batch.is_empty() {
            break;
        }
        bar.inc(batch.len() as u64);
        for handle in client.kick_all(batch).await {
            let handle = handle?;
            if !args.json {
                print_line(handle.id().as_str());
            }
            handles.push(handle);
        }
    }
    bar.finish_and_clear();
    Ok(handles)
}

#[derive(Serialize)]
struct JobView<'a> {
    id: &'a str,
    status: Status,
    result: Option<&'a Payload>,
    error: Option<&'a JobError>,
}

/// Waits if asked to, and prints what came of the jobs.
async fn report(client: &Client, args: &KiqArgs, handles: Vec<TaskHandle<()>>) -> Result<Exit, BoxError> {
    let Some(wait) = args.wait else {
        for handle in &handles {
            if args.json {
                print_job(&handle.record().await?);
            }
        }
        return Ok(Exit::Done);
    };
    warn_if_nobody_listens(client, args, &handles).await;
    let until = match wait {
        Wait::Forever => None,
        Wait::For(limit) => Some(tokio::time::Instant::now() + limit),
    };
    let mut exit = Exit::Done;
    for handle in &handles {
        let ended = match until {
            None => handle.ended().await.map(Some)?,
            Some(until) => tokio::time::timeout_at(until, handle.ended()).await.ok().transpose()?,
        };
        let outcome = match ended {
            Some(record) => report_end(args, &record),
            None => report_timeout(args, handle).await?,
        };
        exit = worse(exit, outcome);
    }
    Ok(exit)
}

fn report_end(args: &KiqArgs, record: &JobRecord) -> Exit {
    let completed = record.status == Status::Completed;
    if args.json {
        print_job(record);
    } else if let Some(result) = record.result.as_ref().filter(|_| completed) {
        print_line(&result.to_json());
    }
    if !completed {
        let why = record.error.as_ref().map_or_else(|| record.status.to_string(), describe);
        eprint_line(&format!("error: job `{}` {}: {why}", record.id, record.status));
    }
    if completed { Exit::Done } else { Exit::Failed }
}

fn describe(error: &JobError) -> String {
    let causes: String = error.chain.iter().map(|cause| format!(": {cause}")).collect();
    match error.message.is_empty() {
        true => error.exc_type.clone(),
        false => format!("{}: {}{causes}", error.exc_type, error.message),
    }
}

async fn report_timeout(args: &KiqArgs, handle: &TaskHandle<()>) -> Result<Exit, BoxError> {
    let record = handle.record().await?;
    if args.json {
        print_job(&record);
    }
    eprint_line(&format!("error: job `{}` has not ended in time, it is {}", record.id, record.status));
    Ok(Exit::TimedOut)
}

fn print_job(record: &JobRecord) {
    let (result, error) = (record.result.as_ref(), record.error.as_ref());
    print_line(&to_json(&JobView { id: record.id.as_str(), status: record.status, result, error }));
}

/// A failure says more than a timeout.
fn worse(a: Exit, b: Exit) -> Exit {
    match (a, b) {
        (Exit::Failed, _) | (_, Exit::Failed) => Exit::Failed,
        (Exit::TimedOut, _) | (_, Exit::TimedOut) => Exit::TimedOut,
        _ => Exit::Done,
    }
}

async fn warn_if_nobody_listens(client: &Client, args: &KiqArgs, handles: &[TaskHandle<()>]) {
    let Some(queue) = handles.first().map(TaskHandle::queue) else { return };
    let Ok(workers) = client.workers().list().await else { return };
    let listening =
        workers.iter().any(|worker| worker.is_alive() && worker.queues.iter().any(|name| name == queue));
    if !listening && !client.backend().broker().info().in_process {
        let hint = if matches!(args.wait, Some(Wait::Forever)) { ", waiting for one" } else { "" };
        eprint_line(&format!("no live worker consumes the queue `{queue}`{hint}"));
    }
}
