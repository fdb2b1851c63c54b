//! The demo program of the examples, as processes of its own: [`Demo`], [`DemoWorker`], [`DemoEvents`].

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aioq::Client;
use aioq_nats::Nats;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::process::Process;
use crate::{NatsServer, unique_prefix};

/// How long a command, or the start of a worker, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The path of the demo program with fault points, built with the profile and the target directory of the running test.
///
/// # Errors
/// It does not build; the message is the compiler's.
pub fn demo_binary() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| error.to_string()));
    built.clone().map_err(Error::other)
}

fn build() -> Result<PathBuf> {
    // <target>[/<triple>]/<profile>/deps/<test>, or without deps/ for a program.
    let own = std::env::current_exe()?;
    let home = own.ancestors().skip(1).find(|directory| !directory.ends_with("deps"));
    let home = home.ok_or_else(|| Error::other("a test lies in a target directory"))?;
    let target = home.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
    let target =
        target.ok_or_else(|| Error::other(format!("{} is in no target directory", own.display())))?;
    let profile = match home.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let triple = home.parent().filter(|directory| *directory != target).and_then(Path::file_name);
    // Tests of other processes wait here until the first has built it.
    let lock = File::create(target.join("demo.lock"))?;
    lock.lock()?;
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "aioq-examples", "--profile", profile]);
    cargo.args(["--bin", "demo", "--bin", "producer", "--features", "fault-injection"]);
    cargo.args([OsStr::new("--target-dir"), target.as_os_str()]);
    cargo.args(triple.into_iter().flat_map(|triple| [OsStr::new("--target"), triple]));
    // What cargo told this test about itself: build scripts that look at it would run anew each time.
    let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_BIN_", "OUT_DIR"];
    let about_test = |name: &OsStr| told.iter().any(|start| name.to_string_lossy().starts_with(start));
    std::env::vars_os().map(|(name, _)| name).filter(|name| about_test(name)).for_each(|name| {
        cargo.env_remove(name);
    });
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    match output.status.success() {
        true => Ok(home.join("demo")),
        false => Err(Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// The program that kicks what it reads, with fault points: it is built together with the demo program.
///
/// # Errors
/// As [`demo_binary`].
pub fn producer_binary() -> Result<PathBuf> {
    demo_binary().map(|demo| demo.with_file_name("producer"))
}

/// Runs the demo program with these arguments and no settings from the environment, to its end.
///
/// # Panics
/// The program cannot be run, or does not end within a minute.
pub async fn run_demo(args: &[&str]) -> Ran {
    finish(command(args)).await
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(demo_binary().unwrap_or_else(|error| panic!("no demo program: {error}")));
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
    let text = |bytes| String::from_utf8(bytes).expect("the demo program writes UTF-8");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ran {
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
    /// There is no place for files.
    #[must_use]
    pub fn at_prefix(url: String, prefix: impl Into<String>) -> Self {
        let home = std::env::temp_dir().join(format!("{}-files", unique_prefix()));
        fs::create_dir_all(&home).expect("the directory for temporary files can be written to");
        Self { url, prefix: prefix.into(), home }
    }

    /// Where the server is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What keeps its names apart from those of other tests.
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

    /// Starts a worker, and waits until it has said so.
    ///
    /// # Panics
    /// It does not start.
    pub async fn worker(&self, args: &[&str]) -> DemoWorker {
        DemoWorker::start(&mut self.command(&[&["worker"], args].concat())).await
    }

    /// Starts a worker that ends, or is held up, at a fault point: `saved:3`, `ran:1:500`, `acked:2:stop`.
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
        let mut command = command(args);
        command.args(["--nats", &self.url, "--prefix", &self.prefix]);
        command
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // What stays behind is in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// A file that the tasks `demo.append` and `demo.append_slow` write to: what ran.
pub struct Ledger(PathBuf);

impl Ledger {
    /// Where it is, for the arguments of a job.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its lines; none before the first job ran.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// How often it has this line.
    #[must_use]
    pub fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|other| *other == line).count()
    }
}

/// A worker process. It is killed when this is dropped; if the test fails, its log is shown.
pub struct DemoWorker {
    child: Child,
    process: Process,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl DemoWorker {
    async fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the demo program starts");
        let process = Process::of(child.id());
        let log = Arc::<Mutex<String>>::default();
        let stderr = child.stderr.take().expect("standard error is piped");
        let reader = Some(tokio::spawn(collect(stderr, Arc::clone(&log))));
        let mut worker = Self { child, process, log, reader };
        worker.says("worker started").await;
        worker
    }

    /// What it has written to standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has written this to standard error.
    ///
    /// # Panics
    /// It ends without, or does not within a minute.
    pub async fn says(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            // Closed once the process has ended and everything is read.
            let over = self.reader.as_ref().is_none_or(JoinHandle::is_finished) && !self.log().contains(text);
            assert!(!over && Instant::now() < deadline, "a worker never says `{text}`");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// The id that it gave itself.
    ///
    /// # Panics
    /// It does not tell.
    #[must_use]
    pub fn id(&self) -> String {
        let log = self.log();
        let id = log.split("worker_id=").nth(1).and_then(|rest| rest.split_whitespace().next());
        id.expect("the start line tells the worker's id").to_owned()
    }

    /// Asks it to end: SIGTERM.
    ///
    /// # Panics
    /// It has ended already.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Ends it at once: SIGKILL.
    ///
    /// # Panics
    /// It has ended already.
    pub async fn kill(mut self) {
        self.process.signal(Signal::KILL);
        self.ended_within(PATIENCE).await;
    }

    /// Sends it a signal, and waits for nothing.
    ///
    /// # Panics
    /// It has ended already.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal_if_running(&mut self, signal: Signal) {
        if self.is_running() {
            self.process.signal(signal);
        }
    }

    /// Stops it where it is: SIGSTOP. Returns when it has stopped.
    ///
    /// # Panics
    /// It has ended already.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on: SIGCONT.
    ///
    /// # Panics
    /// It has ended already.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Whether it was stopped where it is, by itself or by [`freeze`](Self::freeze).
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.process.is_frozen()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end in time.
    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let ended = timeout(limit, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("a worker does not end within {limit:?}"));
        if let Some(reader) = self.reader.take() {
            // The last lines may come after the end.
            let _ = timeout(PATIENCE, reader).await;
        }
        status.expect("a child can be waited for")
    }

    /// Asks it to end, and waits until it has; how many jobs it took in its life.
    ///
    /// # Panics
    /// It does not end within a minute, or not well.
    pub async fn stop(mut self) -> u64 {
        self.terminate();
        let status = self.ended_within(PATIENCE).await;
        assert!(status.success(), "a worker ends with {status}");
        let log = self.log();
        let jobs = log.rsplit("worker stopped jobs=").next().and_then(|rest| rest.split_whitespace().next());
        jobs.and_then(|jobs| jobs.parse().ok()).expect("the last line tells how many jobs were taken")
    }

    /// The processor time that it has used, from `/proc`.
    ///
    /// # Panics
    /// It has ended.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.process.cpu_time().expect("the worker runs")
    }
}

impl Drop for DemoWorker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- worker {}:\n{}---", self.process.id(), self.log());
        }
    }
}

/// A command, as it runs. It is killed when this is dropped.
pub struct DemoCommand {
    child: Child,
    pid: Pid,
}

impl DemoCommand {
    fn start(mut command: Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("the demo program starts");
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self { child, pid: pid.expect("a process that was not waited for has an id") }
    }

    /// Ends it as Ctrl-C does; its exit code.
    ///
    /// # Panics
    /// It does not end within a minute.
    pub async fn interrupt(mut self) -> Option<i32> {
        kill_process(self.pid, Signal::INT).expect("it runs");
        let ended = timeout(PATIENCE, self.child.wait()).await.expect("a command ends");
        ended.expect("a child can be waited for").code()
    }
}

/// The command `events`, as it runs. It is killed when this is dropped.
pub struct DemoEvents {
    child: Child,
    process: Process,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Kept open: whoever writes to it lives on.
    _stderr: Lines<BufReader<ChildStderr>>,
}

impl DemoEvents {
    async fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the demo program starts");
        let process = Process::of(child.id());
        let stdout = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let mut stderr = BufReader::new(child.stderr.take().expect("standard error is piped")).lines();
        let listens = async {
            while let Ok(Some(line)) = stderr.next_line().await {
                if line.contains("listening") {
                    return true;
                }
            }
            false
        };
        assert!(timeout(PATIENCE, listens).await.unwrap_or(false), "`events` never listens");
        Self { child, process, stdout, _stderr: stderr }
    }

    /// The next line that it prints.
    ///
    /// # Panics
    /// None comes within a minute.
    pub async fn next(&mut self) -> String {
        let line = timeout(PATIENCE, self.stdout.next_line()).await.expect("an event comes");
        line.expect("it prints text").expect("it goes on")
    }

    /// Ends it as Ctrl-C does; its exit code.
    ///
    /// # Panics
    /// It does not end within a minute.
    pub async fn interrupt(self) -> Option<i32> {
        self.process.signal(Signal::INT);
        Self::ended(self.child).await
    }

    /// Stops to read what it prints; its exit code.
    ///
    /// # Panics
    /// It does not end within a minute.
    pub async fn close(self) -> Option<i32> {
        drop(self.stdout);
        Self::ended(self.child).await
    }

    async fn ended(mut child: Child) -> Option<i32> {
        let ended = timeout(PATIENCE, child.wait()).await.expect("`events` ends");
        ended.expect("a child can be waited for").code()
    }
}

async fn collect(stderr: ChildStderr, log: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_str(&line);
        log.push('\n');
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// It does not within `limit`.
pub async fn until(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
