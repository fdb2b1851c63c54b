//! The demo program on one server: [`Demo`].

use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use aioq::Client;
use aioq_nats::Nats;
use tokio::process::Command;
use tokio::time::timeout;

use super::ledger::Ledger;
use super::process::{DemoCommand, DemoEvents, DemoKick, DemoWorker};
use super::program::{clockwork_binary, demo_binary};
use crate::patience::PATIENCE;
use crate::{NatsServer, unique_prefix};

/// Runs the demo program with these arguments and no settings from the environment, to its end.
///
/// # Panics
/// The program cannot be run, or does not end within a minute.
pub async fn run_demo(args: &[&str]) -> Ran {
    finish(command(args)).await
}

fn program() -> PathBuf {
    demo_binary().unwrap_or_else(|error| panic!("no demo program: {error}"))
}

fn command(args: &[&str]) -> Command {
    command_of(program(), args)
}

fn command_of(program: PathBuf, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    let settings = std::env::vars_os().map(|(name, _)| name);
    for name in settings.filter(|name| name.to_string_lossy().starts_with("AIOQ_") || *name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn finish(mut command: Command) -> Ran {
    let described = format!("{:?}", command.as_std());
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{described} does not end"));
    let output = output.unwrap_or_else(|error| panic!("{described} does not start: {error}"));
    Ran::of(output)
}

/// The end of a command, and its output.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    pub(super) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the demo program writes UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The lines on standard output of a command that went well.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn lines(&self) -> Vec<&str> {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.lines().collect()
    }
}

/// The demo program on one prefix of one server, and a directory for its files.
pub struct Demo {
    program: PathBuf,
    url: String,
    prefix: String,
    home: PathBuf,
}

impl Demo {
    /// On the server that all tests of this process share.
    ///
    /// # Panics
    /// There is no nats-server, and none can be fetched.
    pub async fn new() -> Self {
        Self::on(NatsServer::shared().await.expect("a nats-server can be started"))
    }

    /// On this server.
    ///
    /// # Panics
    /// There is no place for files.
    #[must_use]
    pub fn on(server: &NatsServer) -> Self {
        Self::at(server.url())
    }

    /// On the servers at this URL.
    ///
    /// # Panics
    /// There is no place for files.
    #[must_use]
    pub fn at(url: String) -> Self {
        Self::at_prefix(url, unique_prefix())
    }

    /// On the servers at this URL, under this prefix.
    ///
    /// # Panics
    /// The program cannot be built, or there is no place for files.
    #[must_use]
    pub fn at_prefix(url: String, prefix: impl Into<String>) -> Self {
        // Built before the first client of the test connects: a build holds the thread for longer
        // than requests wait for their answers.
        let program = program();
        let home = std::env::temp_dir().join(format!("{}-files", unique_prefix()));
        fs::create_dir_all(&home).expect("the directory for temporary files can be written to");
        Self { program, url, prefix: prefix.into(), home }
    }

    /// The same with the program `clockwork`, whose tasks have schedules.
    ///
    /// # Panics
    /// The program cannot be built.
    #[must_use]
    pub fn of_clockwork(mut self) -> Self {
        self.program = clockwork_binary().unwrap_or_else(|error| panic!("no program: {error}"));
        self
    }

    /// URL of the server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Prefix of its names on the server.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A path in its directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// A ledger in its directory.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger(self.path("ledger"))
    }

    /// A client of its own, in this process.
    ///
    /// # Panics
    /// The backend does not start.
    pub async fn client(&self) -> Client {
        let nats = Nats::new(&self.url).prefix(&self.prefix);
        Client::connect(nats).await.expect("the backend starts")
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// As [`run_demo`].
    pub async fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args)).await
    }

    /// Kicks a job with these arguments, options after them; its id.
    ///
    /// # Panics
    /// It is not kicked.
    pub async fn kick(&self, task: &str, args: &str, options: &[&str]) -> String {
        let ran = self.run(&[&["kiq", task, "--args", args], options].concat()).await;
        ran.lines()[0].to_owned()
    }

    /// Starts a process that kicks a job with these arguments, and is struck at this fault point;
    /// waits until it is.
    ///
    /// # Panics
    /// It does not start, or is told of the job.
    pub async fn kick_with_fault(&self, fault: &str, task: &str, args: &str) -> DemoKick {
        let mut command = self.command(&["kiq", task, "--args", args]);
        DemoKick::start(command.env("AIOQ_FAULT", fault)).await
    }

    /// Starts a worker, and waits until it has said so.
    ///
    /// # Panics
    /// It does not start.
    pub async fn worker(&self, args: &[&str]) -> DemoWorker {
        DemoWorker::start(&mut self.command(&[&["worker"], args].concat())).await
    }

    /// Starts a worker that ends, or is held up, at a fault point: `saved:3`, `ran:1:500`,
    /// `acked:2:stop`.
    ///
    /// # Panics
    /// It does not start.
    pub async fn worker_with_fault(&self, fault: &str, args: &[&str]) -> DemoWorker {
        let mut command = self.command(&[&["worker"], args].concat());
        DemoWorker::start(command.env("AIOQ_FAULT", fault)).await
    }

    /// Starts to follow events, and waits until it listens.
    ///
    /// # Panics
    /// It does not start.
    pub async fn events(&self, args: &[&str]) -> DemoEvents {
        DemoEvents::start(self.command(&[&["events"], args].concat())).await
    }

    /// Starts a command that is not waited for.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(&self, args: &[&str]) -> DemoCommand {
        DemoCommand::start(self.command(args))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command_of(self.program.clone(), args);
        command.env("CLOCKWORK_LEDGER", self.path("clockwork"));
        command.args(["--nats", &self.url, "--prefix", &self.prefix]);
        command
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // A failure leaves files in the directory for temporary files, and nothing else.
        let _ = fs::remove_dir_all(&self.home);
    }
}
