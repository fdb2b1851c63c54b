//! The producer program of the examples, as a process of its own: [`DemoProducer`].

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Demo, producer_binary};
use crate::process::Process;

/// A process that kicks one job after the other. It is killed when this is dropped.
pub struct DemoProducer {
    child: Child,
    process: Process,
    told: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl DemoProducer {
    /// Starts one that kicks these jobs, each a line as the program reads it, and is struck at this
    /// fault point.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(demo: &Demo, fault: &str, jobs: Vec<String>) -> Self {
        let program = producer_binary().unwrap_or_else(|error| panic!("no producer program: {error}"));
        let mut command = Command::new(program);
        command.args([demo.url(), demo.prefix()]).env("AIOQ_FAULT", fault).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the producer starts");
        let process = Process::of(child.id());
        let stdin = child.stdin.take().expect("standard input is piped");
        let stdout = child.stdout.take().expect("standard output is piped");
        let told = Arc::<Mutex<Vec<String>>>::default();
        let reader = tokio::spawn(read(stdout, Arc::clone(&told)));
        Self { child, process, told, reader, writer: tokio::spawn(write(stdin, jobs)) }
    }

    /// The ids of the jobs that it was told are kicked, in the order of the jobs.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True if it is stopped.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.process.is_frozen()
    }

    /// True once it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Lets it go on: SIGCONT.
    ///
    /// # Panics
    /// It has ended already.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Waits for its end; how it ended, and all that it was told.
    ///
    /// # Panics
    /// It does not end in time.
    pub async fn ended_within(mut self, limit: Duration) -> (ExitStatus, Vec<String>) {
        let ended = timeout(limit, self.child.wait()).await.expect("the producer ends");
        self.writer.abort();
        timeout(limit, &mut self.reader).await.expect("its output ends").expect("nothing panics there");
        (ended.expect("a child can be waited for"), self.told())
    }
}

async fn read(stdout: ChildStdout, told: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(id)) = lines.next_line().await {
        told.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }
}

async fn write(mut stdin: ChildStdin, jobs: Vec<String>) {
    for job in jobs {
        // It is meant to end early.
        if stdin.write_all(format!("{job}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}
