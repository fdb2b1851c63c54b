//! Running processes of the demo program: [`DemoWorker`], [`DemoCommand`], [`DemoKick`],
//! [`DemoEvents`].

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::app::Ran;
use crate::patience::PATIENCE;
use crate::process::Process;
use crate::until::until;

/// A worker process. It is killed when this is dropped; if the test fails, its log is shown.
pub struct DemoWorker {
    child: Child,
    process: Process,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl DemoWorker {
    pub(super) async fn start(command: &mut Command) -> Self {
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

    /// Its standard error so far.
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

    /// True if it is stopped, by itself or by [`freeze`](Self::freeze).
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.process.is_frozen()
    }

    /// True while it runs.
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
    pub(super) fn start(mut command: Command) -> Self {
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

/// The command `kiq`, struck at a fault point. It is killed when this is dropped.
pub struct DemoKick {
    child: Child,
    process: Process,
}

impl DemoKick {
    pub(super) async fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the demo program starts");
        let process = Process::of(child.id());
        until("it is struck", async || !matches!(child.try_wait(), Ok(None)) || process.is_frozen()).await;
        Self { child, process }
    }

    /// Lets it go on: SIGCONT.
    ///
    /// # Panics
    /// It has ended already.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end within a minute.
    pub async fn ended(self) -> Ran {
        let output = timeout(PATIENCE, self.child.wait_with_output()).await.expect("`kiq` ends");
        Ran::of(output.expect("its output can be read"))
    }
}

/// The command `events`, as it runs. It is killed when this is dropped.
pub struct DemoEvents {
    child: Child,
    process: Process,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Kept open: a process that writes to a closed pipe dies.
    _stderr: Lines<BufReader<ChildStderr>>,
}

impl DemoEvents {
    pub(super) async fn start(mut command: Command) -> Self {
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
