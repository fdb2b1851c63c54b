//! Commands that a program adds to its worker binary.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use clap::{ArgMatches, Args};

use super::{App, Exit};
use crate::error::BoxError;

pub(crate) type Running = Pin<Box<dyn Future<Output = Result<Exit, BoxError>>>>;
type Handler = Box<dyn FnOnce(App, ArgMatches) -> Running>;

/// The commands that a program adds.
#[derive(Default)]
pub(crate) struct Commands {
    named: Vec<Own>,
    default: Option<Own>,
    version: Option<&'static str>,
}

struct Own {
    /// Its name and arguments.
    command: clap::Command,
    handler: Handler,
}

impl App {
    /// Adds a command with its own arguments.
    ///
    /// The handler gets the arguments, and the app with the connection settings of the command
    /// line.
    pub fn command<A, F, R>(mut self, name: &'static str, about: &'static str, handler: F) -> Self
    where
        A: Args,
        F: FnOnce(A, App) -> R + 'static,
        R: Future<Output = Result<Exit, BoxError>> + 'static,
    {
        let command = A::augment_args(clap::Command::new(name).about(about));
        self.commands.named.push(Own { command, handler: erase(handler) });
        self
    }

    /// Version that `--version` prints; pass `env!("CARGO_PKG_VERSION")`. Default: the version of
    /// aioq.
    pub fn version(mut self, version: &'static str) -> Self {
        self.commands.version = Some(version);
        self
    }

    /// Sets the command that runs if the command line names none. As [`command`](Self::command).
    pub fn default_command<A, F, R>(mut self, about: &'static str, handler: F) -> Self
    where
        A: Args,
        F: FnOnce(A, App) -> R + 'static,
        R: Future<Output = Result<Exit, BoxError>> + 'static,
    {
        let command = A::augment_args(clap::Command::new("").about(about));
        self.commands.default = Some(Own { command, handler: erase(handler) });
        self
    }
}

fn erase<A, F, R>(handler: F) -> Handler
where
    A: Args,
    F: FnOnce(A, App) -> R + 'static,
    R: Future<Output = Result<Exit, BoxError>> + 'static,
{
    Box::new(|app, matches| match A::from_arg_matches(&matches) {
        Ok(args) => Box::pin(handler(args, app)),
        Err(error) => Box::pin(async { Err(error.into()) }),
    })
}

impl Commands {
    pub(crate) fn version(&self) -> Option<&'static str> {
        self.version
    }

    /// Adds these commands to the built-in ones.
    pub(crate) fn augment(&self, mut base: clap::Command, name: &str) -> clap::Command {
        base = base.subcommands(self.named.iter().map(|own| own.command.clone()));
        match &self.default {
            None => base.subcommand_required(true).arg_required_else_help(true),
            Some(own) => {
                let about = own.command.get_about().cloned().unwrap_or_default();
                let alone = own.command.clone().bin_name(name).render_usage().to_string();
                let alone = alone.trim_start_matches("Usage:").trim();
                base.about(about)
                    .args(own.command.get_arguments())
                    .subcommand_negates_reqs(true)
                    .override_usage(format!("{alone}\n       {name} <COMMAND>"))
            }
        }
    }

    /// Starts the command that the command line names. Returns the app if it is not one of these
    /// commands.
    pub(crate) fn run(mut self, app: App, matches: &ArgMatches) -> Result<Running, Box<App>> {
        match matches.subcommand() {
            None => match self.default {
                Some(own) => Ok((own.handler)(app, matches.clone())),
                None => Err(Box::new(app)),
            },
            Some((name, matches)) => match self.named.iter().position(|own| own.command.get_name() == name) {
                Some(index) => Ok((self.named.swap_remove(index).handler)(app, matches.clone())),
                None => Err(Box::new(app)),
            },
        }
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.named.iter().map(|own| own.command.get_name())).finish()
    }
}
