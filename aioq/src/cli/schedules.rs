//! The command `schedules`: lists schedules, makes and changes them, and explains expressions.

mod view;

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::exit_of;
use super::job_args::JobArgs;
use super::many::Ids;
use super::out::{complain, print_json, print_line, tell};
use super::queues::warn_of_strange;
use crate::app::{App, Exit};
use crate::client::Client;
use crate::codec::{Arguments, Codec};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::registry::TaskDef;
use crate::schedules::{Missed, Overlap, Put, Schedule, ScheduleFilter, ScheduleState, Schedules, explain};
use crate::time::{Timestamp, parse_duration};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SchedulesArgs {
    #[command(subcommand)]
    command: Option<SchedulesCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(clap::Subcommand)]
enum SchedulesCommand {
    /// List the schedules
    List(ListArgs),
    /// Show a schedule, its next ticks and the jobs of its latest ones
    Show(ShowArgs),
    /// Make a schedule, or change the one of that id
    Add(Box<AddArgs>),
    /// Stop the ticks of schedules; what ticks meanwhile is neither run nor missed
    Pause(Ids),
    /// Let paused schedules tick again, from now on
    Resume(Ids),
    /// Remove schedules; the jobs that they have kicked stay
    Remove(Ids),
    /// Kick the jobs of schedules now, besides their ticks
    Run(Ids),
    /// Kick the jobs of the ticks of a span of the past
    Backfill(BackfillArgs),
    /// Print the times that a cron expression means; needs no server
    Next(NextArgs),
}

#[derive(Args)]
struct ListArgs {
    /// Only schedules of this task
    #[arg(long)]
    task: Option<String>,
    /// Only schedules in this state
    #[arg(long, value_parser = parse_state)]
    state: Option<ScheduleState>,
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ShowArgs {
    /// The id of the schedule
    id: String,
    /// Print an object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(group = ArgGroup::new("when").required(true))]
struct AddArgs {
    /// The id of the schedule
    id: String,
    /// The name of the task
    task: String,
    /// At the times of a cron expression: minute, hour, day, month, weekday
    #[arg(long, group = "when", value_name = "EXPRESSION")]
    cron: Option<String>,
    /// Every so often, at least every second
    #[arg(long, group = "when", value_name = "TIME", value_parser = parse_duration)]
    every: Option<Duration>,
    /// Once, as 2027-03-01T12:00:00Z
    #[arg(long, group = "when", value_name = "WHEN")]
    at: Option<String>,
    /// Time zone of the cron expression, as Europe/Berlin; UTC without it
    #[arg(long, value_name = "ZONE", requires = "cron")]
    tz: Option<String>,
    /// What becomes of ticks for which no worker was there in time: skip, once, all
    #[arg(long, value_name = "CHOICE", value_parser = parse_missed)]
    missed: Option<Missed>,
    /// What becomes of a tick while the job of the tick before has not ended: allow, skip
    #[arg(long, value_name = "CHOICE", value_parser = parse_overlap)]
    overlap: Option<Overlap>,
    /// The arguments by name, as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    args: String,
    #[command(flatten)]
    job: JobArgs,
    /// Skip the checks: also schedule unknown tasks and arguments that do not fit
    #[arg(long)]
    untyped: bool,
}

#[derive(Args)]
struct BackfillArgs {
    /// The id of the schedule
    id: String,
    /// The first moment of the span, as 2027-03-01T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    from: String,
    /// The end of the span, which is not part of it
    #[arg(long, value_name = "WHEN")]
    to: String,
}

#[derive(Args)]
struct NextArgs {
    /// The expression: minute, hour, day, month, weekday
    expression: String,
    /// Time zone of the expression, as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// The moment from which on to look; now without it
    #[arg(long, value_name = "WHEN")]
    from: Option<String>,
    /// Number of times
    #[arg(short, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    n: u16,
    /// Print an array of times in UTC
    #[arg(long)]
    json: bool,
}

fn one_of<T: Copy>(text: &str, choices: &[T], word: impl Fn(T) -> &'static str) -> Result<T, String> {
    let found = choices.iter().find(|choice| word(**choice) == text);
    found.copied().ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|choice| word(*choice)).collect();
        format!("one of {}", words.join(", "))
    })
}

fn parse_missed(text: &str) -> Result<Missed, String> {
    one_of(text, &[Missed::Skip, Missed::Once, Missed::All], Missed::as_str)
}

fn parse_overlap(text: &str) -> Result<Overlap, String> {
    one_of(text, &[Overlap::Allow, Overlap::Skip], Overlap::as_str)
}

fn parse_state(text: &str) -> Result<ScheduleState, String> {
    use ScheduleState::{Active, Ended, Orphaned, Paused};
    one_of(text, &[Active, Paused, Ended, Orphaned], ScheduleState::as_str)
}

pub(super) async fn run(app: &App, args: SchedulesArgs) -> Result<Exit, BoxError> {
    let command = match args.command.unwrap_or(SchedulesCommand::List(args.list)) {
        SchedulesCommand::Next(args) => return next(&args),
        SchedulesCommand::Add(args) => {
            // All checks first: nothing is written if anything is wrong.
            let arguments = args.arguments(app)?;
            let client = app.client().await?;
            let exit = add(app, &client, *args, arguments).await;
            client.shutdown().await?;
            return exit;
        }
        command => command,
    };
    let client = app.client().await?;
    let exit = act(&client, command).await;
    client.shutdown().await?;
    Ok(exit?)
}

async fn act(client: &Client, command: SchedulesCommand) -> Result<Exit> {
    let schedules = &client.schedules();
    match command {
        SchedulesCommand::List(args) => list(schedules, args).await,
        SchedulesCommand::Show(args) => show(client, schedules, &args).await,
        SchedulesCommand::Pause(ids) => {
            each(ids, "is paused already, or has ended", async |id| schedules.pause(id).await).await
        }
        SchedulesCommand::Resume(ids) => {
            each(ids, "is not paused", async |id| schedules.resume(id).await).await
        }
        SchedulesCommand::Remove(ids) => {
            each(ids, "is gone", async |id| schedules.remove(id).await.map(|()| true)).await
        }
        SchedulesCommand::Run(ids) => {
            let run = async |id: &str| {
                let handle = schedules.run(id).await?;
                print_line(handle.id().as_str());
                Ok(true)
            };
            each(ids, "is gone", run).await
        }
        SchedulesCommand::Backfill(args) => {
            for handle in schedules.backfill(&args.id, &*args.from..&*args.to).await? {
                let existed = if handle.existing() { "  (exists)" } else { "" };
                print_line(&format!("{}{existed}", handle.id()));
            }
            Ok(Exit::Done)
        }
        // Handled before the client connects.
        SchedulesCommand::Add(_) | SchedulesCommand::Next(_) => Ok(Exit::Done),
    }
}

/// Acts on each of these schedules, and reports the reason for each one that was refused.
async fn each(ids: Ids, rule: &str, act: impl AsyncFn(&str) -> Result<bool>) -> Result<Exit> {
    let mut exit = Exit::Done;
    for id in ids.ids {
        match act(&id).await {
            Ok(true) => {}
            Ok(false) => {
                complain(&format!("schedule `{id}` {rule}"));
                exit = exit.and(Exit::Failed);
            }
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => {
                complain(&error.to_string());
                exit = exit.and(exit_of(&error));
            }
        }
    }
    Ok(exit)
}

async fn list(schedules: &Schedules, args: ListArgs) -> Result<Exit> {
    let mut filter = ScheduleFilter::new();
    if let Some(task) = &args.task {
        filter = filter.task(task.as_str());
    }
    if let Some(state) = args.state {
        filter = filter.state(state);
    }
    let views = schedules.list(filter).await?;
    if args.json {
        view::print_objects(&views);
    } else {
        view::print_table(&views);
    }
    Ok(Exit::Done)
}

async fn show(client: &Client, schedules: &Schedules, args: &ShowArgs) -> Result<Exit> {
    let schedule = schedules.get(&args.id).await?;
    if args.json {
        view::print_object(&schedule);
    } else {
        view::print_lines(&schedule, &client.jobs()).await?;
    }
    Ok(Exit::Done)
}

impl AddArgs {
    fn schedule(&self) -> Schedule {
        let mut schedule = match (&self.cron, self.every, &self.at) {
            (Some(expression), _, _) => Schedule::cron(expression),
            (None, Some(period), _) => Schedule::every(period),
            // The group of arguments requires one.
            (None, None, time) => Schedule::at(time.as_deref().unwrap_or_default()),
        };
        if let Some(zone) = &self.tz {
            schedule = schedule.tz(zone);
        }
        if let Some(missed) = self.missed {
            schedule = schedule.missed(missed);
        }
        if let Some(overlap) = self.overlap {
            schedule = schedule.overlap(overlap);
        }
        schedule
    }

    /// The arguments, unless the task would refuse them.
    fn arguments(&self, app: &App) -> Result<Arguments> {
        let arguments = Arguments::from_json(Codec::default(), &self.args)?;
        if self.untyped {
            return Ok(arguments);
        }
        let registry = app.registry()?;
        let Some(task) = registry.find(&self.task) else {
            let why = "not scheduled; `--untyped` schedules it unchecked";
            return Err(registry.unknown(&self.task).context(why));
        };
        task.check(&arguments.strictly()?).map_err(|error| {
            Error::new(ErrorKind::InvalidArgument, format!("task `{}`: {error}", self.task))
        })?;
        Ok(arguments)
    }
}

async fn add(app: &App, client: &Client, args: AddArgs, arguments: Arguments) -> Result<Exit, BoxError> {
    warn_of_strange(app, client, args.job.queue.as_deref()).await?;
    let registry = app.registry()?;
    let defaults = registry.find(&args.task).map(TaskDef::options);
    let message = client.message_by_name(&args.task, arguments, args.job.options(), defaults)?;
    let put = client.schedules().put_message(&args.id, args.schedule(), message).await?;
    print_line(match put {
        Put::Created => "created",
        Put::Changed => "changed",
        Put::Same => "the same is there already",
    });
    if client.backend().broker().info().in_process {
        tell("this schedule is in the memory of this process, and ends with it");
    }
    Ok(Exit::Done)
}

fn next(args: &NextArgs) -> Result<Exit, BoxError> {
    let from = args.from.as_deref().map_or(Ok(Timestamp::now()), str::parse)?;
    let ticks = explain::next(&args.expression, &args.tz, from, args.n.into())?;
    if args.json {
        print_json(&ticks);
        return Ok(Exit::Done);
    }
    for tick in ticks {
        let local = explain::local(tick, &args.tz);
        print_line(&if args.tz == "UTC" { tick.to_string() } else { format!("{tick}  {local}") });
    }
    Ok(Exit::Done)
}
