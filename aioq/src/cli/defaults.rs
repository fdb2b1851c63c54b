//! Defaults that a program's code sets, shown in its help.

use std::time::Duration;

use clap::Command;

use crate::worker::WorkerOptions;

/// Adds the defaults to the help of `worker`.
pub(super) fn shown(command: Command, options: &WorkerOptions) -> Command {
    let WorkerOptions { concurrency, blocking_threads, grace, max_crashes, .. } = options;
    let queues = options.queues.as_ref();
    let queues =
        queues.map_or_else(|| "`default`, and all that tasks name".to_owned(), |queues| queues.join(","));
    let ack_wait = options.ack_wait.map_or_else(|| "what the queue has, or 30s".to_owned(), span);
    let defaults = [
        ("queues", queues),
        ("concurrency", concurrency.to_string()),
        ("blocking_threads", blocking_threads.to_string()),
        ("ack_wait", ack_wait),
        ("grace", span(*grace)),
        ("max_crashes", max_crashes.to_string()),
        ("patience", options.patience.map_or_else(|| "10m, in memory 0s".to_owned(), span)),
    ];
    command.mut_subcommand("worker", |worker| {
        defaults.into_iter().fold(worker, |worker, (name, value)| {
            worker.mut_arg(name, |arg| {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                arg.help(format!("{help} [default: {value}]"))
            })
        })
    })
}

fn span(span: Duration) -> String {
    humantime::format_duration(span).to_string().replace(' ', "")
}
