//! The jobs that flow: who kicks them, and who sees them run.

use std::io::{Read, Seek, SeekFrom, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aioq::Client;
use aioq::tasks::KickOptions;
use aioq_nats::Nats;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Means;
use crate::demo::{Demo, Ledger};
use crate::patience::PATIENCE;
use crate::until::until;

/// The pause between two kicks of a producer.
const PACE: Duration = Duration::from_millis(8);

/// Kicks of a producer that may wait for their confirmation at once.
const IN_FLIGHT: usize = 64;

/// A job that the broker has confirmed.
#[derive(Clone, Debug)]
pub(super) struct Confirmed {
    pub(super) id: String,
    pub(super) kind: Kind,
    /// The line that it writes into the ledger.
    pub(super) line: String,
    pub(super) at: Instant,
}

/// Kinds of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Plain,
    /// Put off by less than a second, and by more.
    Delayed,
    /// Fails once.
    Flaky,
    /// Lasts longer than its lease.
    Slow,
}

impl Kind {
    fn of(n: u64) -> Self {
        match n % 20 {
            3 | 13 | 17 => Self::Delayed,
            5 | 15 => Self::Flaky,
            9 => Self::Slow,
            _ => Self::Plain,
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::Delayed, Self::Flaky, Self::Slow]
            .into_iter()
            .find(|kind| format!("{kind:?}") == name)
    }

    fn call(self, n: u64, line: &str, home: &Path) -> (&'static str, Value, KickOptions) {
        let (path, options) = (home.join("ledger"), KickOptions::new());
        let append = json!({ "path": path, "line": line });
        match self {
            Self::Plain => ("demo.append", append, options),
            Self::Delayed => {
                let ms = if n % 20 == 3 { 1500 } else { 300 };
                ("demo.append", append, options.delay(Duration::from_millis(ms)))
            }
            Self::Flaky => ("demo.flaky", json!({ "key": line, "failures": 1, "dir": home }), options),
            Self::Slow => ("demo.append_slow", json!({ "path": path, "line": line, "ms": 1800 }), options),
        }
    }
}

/// Confirmations that the producers of a flow received.
#[derive(Clone, Default)]
pub struct Flow(Arc<Mutex<Vec<Confirmed>>>);

impl Flow {
    fn lock(&self) -> MutexGuard<'_, Vec<Confirmed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn confirmed(&self) -> Vec<Confirmed> {
        self.lock().clone()
    }

    /// Reads what a producer prints: `id kind line` for each job.
    async fn follow(self, stdout: ChildStdout) {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(text)) = lines.next_line().await {
            let mut words = text.split(' ');
            let (Some(id), Some(kind), Some(line)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Some(kind) = Kind::named(kind) else { continue };
            let confirmed = Confirmed { id: id.to_owned(), kind, line: line.to_owned(), at: Instant::now() };
            self.lock().push(confirmed);
        }
    }
}

/// A process that kicks jobs. It is killed when this is dropped.
pub(super) struct Producer {
    child: Child,
    pid: Pid,
    reader: JoinHandle<()>,
}

impl Producer {
    /// Starts it, and waits for its first job.
    pub(super) async fn start(program: &Path, demo: &Demo, name: &str, flow: &Flow) -> Self {
        let mut command = Command::new(program);
        command.args(["produce", demo.url(), demo.prefix(), name]).arg(demo.path(""));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("a producer starts");
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.expect("a process that was not waited for has an id");
        let stdout = child.stdout.take().expect("standard output is piped");
        let before = flow.lock().len();
        let reader = tokio::spawn(flow.clone().follow(stdout));
        let start = format!("{name}-");
        until("a producer kicks", async || {
            flow.lock()[before..].iter().any(|job| job.line.starts_with(&start))
        })
        .await;
        Self { child, pid, reader }
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the producer runs");
    }

    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it; everything that it was told is known then.
    pub(super) async fn end(mut self, means: Means) {
        self.signal(if means == Means::Kill { Signal::KILL } else { Signal::TERM });
        let ended = timeout(PATIENCE, self.child.wait()).await.expect("the producer ends");
        ended.expect("a child can be waited for");
        timeout(PATIENCE, self.reader)
            .await
            .expect("what it printed can be read")
            .expect("nothing panics there");
    }
}

/// Kicks jobs for ever, and prints each that was confirmed: what a producer process does.
///
/// # Panics
/// The backend does not start.
pub async fn produce(url: &str, prefix: &str, name: &str, home: &Path) {
    let client = Client::connect(Nats::new(url).prefix(prefix)).await.expect("the backend starts");
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0.. {
        ticks.tick().await;
        let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
        let (client, line, kind) = (client.clone(), format!("{name}-{n}"), Kind::of(n));
        let (task, args, options) = kind.call(n, &line, home);
        tokio::spawn(async move {
            let _place = place;
            // Otherwise nothing was promised.
            let Ok(handle) = client.kiq_by_name(task, &args, options).await else { return };
            // One write: a kill leaves no half of it.
            let said = format!("{} {kind:?} {line}\n", handle.id());
            if std::io::stdout().lock().write_all(said.as_bytes()).is_err() {
                std::process::exit(1);
            }
        });
    }
}

/// The lines of the ledger, and when they were seen.
pub(super) type Ran = Vec<(Instant, String)>;

/// Looks at the ledger as it grows.
pub(super) struct Tail {
    ran: Arc<Mutex<Ran>>,
    stop: tokio::sync::watch::Sender<bool>,
    reader: JoinHandle<()>,
}

impl Tail {
    pub(super) fn of(ledger: &Ledger) -> Self {
        let (ran, path) = (Arc::<Mutex<Ran>>::default(), ledger.path().to_owned());
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let reader = tokio::spawn({
            let ran = Arc::clone(&ran);
            async move {
                let mut read = 0;
                loop {
                    // Looked at before the last read, or the last lines would be missed.
                    let last = *stopped.borrow();
                    read += take_lines(&path, read, &ran);
                    if last {
                        return;
                    }
                    sleep(Duration::from_millis(2)).await;
                }
            }
        });
        Self { ran, stop, reader }
    }

    pub(super) fn len(&self) -> usize {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All lines.
    pub(super) async fn stop(self) -> Ran {
        self.stop.send_replace(true);
        self.reader.await.expect("the ledger can be read");
        std::mem::take(&mut *self.ran.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads the whole lines after the first `read` bytes; how many bytes they have.
fn take_lines(path: &Path, read: u64, ran: &Mutex<Ran>) -> u64 {
    // It is there from the first job on.
    let Ok(mut file) = std::fs::File::open(path) else { return 0 };
    let mut text = String::new();
    if file.seek(SeekFrom::Start(read)).is_err() || file.read_to_string(&mut text).is_err() {
        return 0;
    }
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let now = Instant::now();
    let mut ran = ran.lock().unwrap_or_else(PoisonError::into_inner);
    ran.extend(text[..whole].lines().map(|line| (now, line.to_owned())));
    whole as u64
}
