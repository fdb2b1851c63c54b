//! The command `tasks`: lists the tasks of this program.

use clap::Args;
use serde::Serialize;

use super::out::{print_json, print_line};
use crate::app::{App, Exit};
use crate::error::BoxError;
use crate::registry::TaskDef;

#[derive(Args)]
pub(super) struct TasksArgs {
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TaskView<'a> {
    name: &'a str,
    queue: &'a str,
    params: Vec<ParamView>,
    blocking: bool,
    priority: u8,
    max_retries: u32,
    timeout_seconds: Option<f64>,
    ttl_seconds: Option<f64>,
    location: Option<String>,
}

#[derive(Serialize)]
struct ParamView {
    name: &'static str,
    #[serde(rename = "type")]
    type_name: &'static str,
    required: bool,
}

pub(super) fn run(app: &App, args: &TasksArgs) -> Result<Exit, BoxError> {
    let registry = app.registry()?;
    let tasks: Vec<TaskView<'_>> = registry.iter().map(|task| view(task)).collect();
    if args.json {
        print_json(&tasks);
        return Ok(Exit::Done);
    }
    let width = tasks.iter().map(|task| task.name.chars().count()).max().unwrap_or(0);
    for task in &tasks {
        let params: Vec<String> = task
            .params
            .iter()
            .map(|param| {
                format!("{}{}: {}", param.name, if param.required { "" } else { "?" }, param.type_name)
            })
            .collect();
        let place = task.location.as_deref().unwrap_or("");
        print_line(&format!("{:width$}  ({})  queue={}  {place}", task.name, params.join(", "), task.queue));
    }
    Ok(Exit::Done)
}

fn view(task: &TaskDef) -> TaskView<'_> {
    let param = |param: &crate::codec::Param| ParamView {
        name: param.name(),
        type_name: param.type_name(),
        required: !param.has_default(),
    };
    TaskView {
        name: task.name(),
        queue: task.queue(),
        params: task.params().unwrap_or_default().iter().map(param).collect(),
        blocking: task.is_blocking(),
        priority: task.options.priority,
        max_retries: task.options.retry.max,
        timeout_seconds: task.options.timeout.map(|timeout| timeout.as_secs_f64()),
        ttl_seconds: task.options.ttl.map(|ttl| ttl.as_secs_f64()),
        location: task.location().map(|location| location.to_string()),
    }
}
