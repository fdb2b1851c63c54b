//! The command line of the generated worker binary: one file per command.

mod bench;
mod check;
mod connection;
mod dead;
mod defaults;
mod doctor;
mod environment;
mod events;
mod family;
mod human;
mod job_args;
mod jobs;
mod kiq;
mod listing;
mod logs;
mod many;
mod out;
mod progress;
mod queues;
mod record;
mod scheduler;
mod schedules;
mod signals;
mod table;
mod tame;
mod tasks;
mod wait;
mod worker;
mod workers;

use std::process::ExitCode;

use clap::{ArgMatches, FromArgMatches as _, Subcommand as _};

use crate::app::{App, Commands, Exit};
use crate::error::{BoxError, Error, ErrorKind};

pub use self::connection::ConnectionArgs;

/// The built-in commands.
#[derive(clap::Subcommand)]
enum Command {
    /// Run jobs until told to stop
    Worker(worker::WorkerArgs),
    /// Kick a task by its name
    Kiq(kiq::KiqArgs),
    /// List the tasks of this program; needs no server
    Tasks(tasks::TasksArgs),
    /// List, cancel, rerun and remove jobs
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// List, replay and drop dead letters
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Print events of jobs as they happen
    Events(events::EventsArgs),
    /// List the queues
    Queues(queues::QueuesArgs),
    /// Pause a queue for all workers; running jobs finish
    Pause(queues::QueueArgs),
    /// Resume a paused queue
    Resume(queues::QueueArgs),
    /// Drop all jobs that wait in a queue
    Purge(queues::PurgeArgs),
    /// List, make, pause and remove schedules
    Schedules(schedules::SchedulesArgs),
    /// Fire schedules until told to stop, and run no jobs; workers fire them, too
    Scheduler(scheduler::SchedulerArgs),
    /// List the workers
    Workers(workers::WorkersArgs),
    /// Check that this program can work: tasks, states, server
    Check(check::CheckArgs),
    /// Report what a crash, a power loss, a lost disk or a lost machine would cost, and wrong
    /// settings
    Doctor(doctor::DoctorArgs),
    /// Measure this backend, beside a program that does the same without aioq
    Bench(bench::BenchArgs),
}

/// Runs the program that `app` describes, by its command line.
pub fn main(app: fn() -> App) -> ExitCode {
    let mut app = app();
    let command = defaults::shown(command(&app.commands), app.options());
    let matches = match environment::without_empty(command).try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return refuse(&error).into(),
    };
    if let Err(error) = connection::check(&matches) {
        return fail(&error.into()).into();
    }
    let connection = match ConnectionArgs::from_arg_matches(&matches) {
        Ok(connection) => connection,
        Err(error) => return fail(&error.into()).into(),
    };
    logs::start(connection.log_format(), matches.subcommand_name() == Some("bench"));
    let commands = std::mem::take(&mut app.commands);
    let mut settings = connection.settings();
    // `check` reports a server that is away, and does not wait for it.
    settings.at_once = matches.subcommand_name() == Some("check");
    let app = match app.configure(&settings) {
        Ok(app) => app,
        Err(error) => return fail(&error.into()).into(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()).into(),
    };
    let exit = runtime.block_on(dispatch(app, commands, &matches)).unwrap_or_else(|error| fail(&error));
    // Does not wait for bodies that still run: their grace period is over.
    runtime.shutdown_background();
    exit.into()
}

/// The command line: the built-in commands and those of the program.
fn command(commands: &Commands) -> clap::Command {
    let name = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = name.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_else(|| "aioq".to_owned());
    let base = clap::Command::new("aioq").bin_name(&name).display_name(&name);
    let base = Command::augment_subcommands(<ConnectionArgs as clap::Args>::augment_args(base));
    let base = base
        .version(commands.version().unwrap_or(env!("CARGO_PKG_VERSION")))
        .about("Kicks and runs background jobs")
        .after_help("Exit codes: 0 done, 1 failed or refused, 2 bad usage or no connection, 3 timed out.")
        .disable_help_subcommand(true);
    commands.augment(base, &name)
}

async fn dispatch(app: App, commands: Commands, matches: &ArgMatches) -> Result<Exit, BoxError> {
    let app = match commands.run(app, matches) {
        Ok(running) => return running.await,
        Err(app) => *app,
    };
    match Command::from_arg_matches(matches)? {
        Command::Worker(args) => worker::run(app, args).await,
        Command::Kiq(args) => kiq::run(app, args).await,
        Command::Tasks(args) => tasks::run(&app, &args),
        Command::Jobs(command) => jobs::run(&app, command).await,
        Command::Dead(command) => dead::run(&app, command).await,
        Command::Events(args) => events::run(&app, &args).await,
        Command::Queues(args) => queues::list(&app, &args).await,
        Command::Pause(args) => queues::pause(&app, args).await,
        Command::Resume(args) => queues::resume(&app, args).await,
        Command::Purge(args) => queues::purge(&app, args).await,
        Command::Schedules(args) => schedules::run(&app, args).await,
        Command::Scheduler(args) => scheduler::run(app, args).await,
        Command::Workers(args) => workers::run(&app, &args).await,
        Command::Check(args) => check::run(app, args).await,
        Command::Doctor(args) => doctor::run(&app, &args).await,
        Command::Bench(args) => bench::run(app, args).await,
    }
}

/// Reports what is wrong with a command line, or prints the help that it asks for.
fn refuse(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        // Help goes to standard output. If that fails, no other output is left to report it.
        let _ = error.print();
        return Exit::Done;
    }
    if logs::are_json() {
        out::complain(error.to_string().trim_start_matches("error: ").trim_end());
    } else {
        let _ = error.print();
    }
    Exit::Usage
}

/// Reports the error of a command.
fn fail(error: &BoxError) -> Exit {
    match error.downcast_ref::<clap::Error>() {
        Some(error) => refuse(error),
        None => {
            out::complain(&error.to_string());
            error.downcast_ref::<Error>().map_or(Exit::Usage, exit_of)
        }
    }
}

/// Exit code of a command that ended with this error.
fn exit_of(error: &Error) -> Exit {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::JobFailed
        | ErrorKind::Cancelled
        | ErrorKind::Expired
        | ErrorKind::Conflict => Exit::Failed,
        _ => Exit::Usage,
    }
}
