//! A process that kicks when it is told to: [`Kicker`].

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aioq::Client;
use aioq::tasks::KickOptions;
use aioq_nats::Nats;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use super::Answer;
use crate::demo::Demo;
use crate::patience::soon;
use crate::process::Process;

/// The key of all kicks.
pub const KEY: &str = "rush";

/// The task of all kicks.
pub const TASK: &str = "demo.append_slow";

/// The arguments of a kick.
#[must_use]
pub fn arguments(ledger: &Path, line: &str, ms: u64) -> Value {
    json!({ "path": ledger, "line": line, "ms": ms })
}

/// The first line of a kicker that is connected.
const READY: &str = "ready";

/// A process that runs [`kick_when_told`]. It is killed when this is dropped.
pub(super) struct Kicker {
    child: Child,
    process: Process,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Kicker {
    pub(super) async fn start(program: &Path, demo: &Demo) -> Self {
        let mut command = Command::new(program);
        command.args(["kick", demo.url(), demo.prefix()]).arg(demo.ledger().path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("a kicker starts");
        let process = Process::of(child.id());
        let stdin = child.stdin.take().expect("standard input is piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let first = soon(stdout.next_line()).await.expect("a kicker writes text");
        assert_eq!(first.as_deref(), Some(READY), "a kicker connects");
        Self { child, process, stdin, stdout }
    }

    /// Tells it to kick.
    pub(super) async fn tell(&mut self, line: &str, ms: u64) {
        let told = format!("{line} {ms}\n");
        self.stdin.write_all(told.as_bytes()).await.expect("a kicker reads");
    }

    /// The answer to the kick that it was told last.
    pub(super) async fn answer(&mut self) -> Answer {
        let line = soon(self.stdout.next_line()).await.expect("a kicker writes text");
        parse(&line.expect("a kicker goes on"))
    }

    /// Kills it; the answer, if that came before.
    pub(super) async fn kill(mut self) -> Option<Answer> {
        self.process.signal(Signal::KILL);
        soon(self.child.wait()).await.expect("a child can be waited for");
        let line = soon(self.stdout.next_line()).await.expect("a kicker writes text");
        line.as_deref().map(parse)
    }
}

/// Kicks at each line of standard input, and prints what it is told: what a kicker process does.
///
/// # Panics
/// The backend does not start.
pub async fn kick_when_told(url: &str, prefix: &str, ledger: &Path) {
    let client = Client::connect(Nats::new(url).prefix(prefix)).await.expect("the backend starts");
    say(READY);
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(order)) = orders.next_line().await {
        let (line, ms) = order.split_once(' ').expect("an order has a line and a time");
        let args = arguments(ledger, line, ms.parse().expect("the time is a number"));
        let (options, began) = (KickOptions::new().unique_key(KEY), Instant::now());
        let kicked = client.kiq_by_name(TASK, &args, options).await;
        let micros = began.elapsed().as_micros();
        match kicked {
            Ok(job) => {
                let word = if job.existing() { EXISTING } else { NEW };
                say(&format!("{line} {micros} {word} {}", job.id()));
            }
            Err(error) => say(&format!("{line} {micros} {ERROR} {error}")),
        }
    }
}

const EXISTING: &str = "existing";
const NEW: &str = "new";
const ERROR: &str = "error";

/// One write: a kill leaves no half of it.
fn say(line: &str) {
    // Nobody reads it any more once the supervisor has ended; then the input ends, too.
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

fn parse(text: &str) -> Answer {
    let mut words = text.splitn(4, ' ');
    let mut next = || words.next().unwrap_or_default().to_owned();
    let (line, micros, kind, rest) = (next(), next(), next(), next());
    let told = match &*kind {
        NEW => Ok((rest, false)),
        EXISTING => Ok((rest, true)),
        _ => Err(rest),
    };
    let took = Duration::from_micros(micros.parse().unwrap_or_else(|_| panic!("no answer: {text}")));
    Answer { line, told, took }
}
