//! A worker with one task for each way a job can go: for learning, and for checks from the outside.
//!
//! ```text
//! demo kiq demo.add --args '{"a": 1, "b": 2}' --wait          # in memory, runs here
//! demo worker --nats nats://127.0.0.1:4222                    # as many as you like
//! demo kiq demo.add --args '{"a": 1, "b": 2}' --wait --nats nats://127.0.0.1:4222
//! demo tasks
//! demo --help
//! ```
//!
//! The tasks are below; the command line is aioq's.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use aioq::{App, Context, Memory, TaskError, TaskResult, task};
use serde_json::Value;
// For its side effect: it is what makes `--nats URL` work.
use aioq_nats as _;

#[aioq::main]
fn app() -> App {
    App::new(Memory::new())
}

/// An error that a job was asked to fail with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

/// The sum of two integers.
#[task(name = "demo.add")]
async fn add(a: i64, b: i64) -> Result<i64, Failure> {
    a.checked_add(b).ok_or_else(|| Failure(format!("{a} + {b} is out of range")))
}

/// The same value back.
#[task(name = "demo.echo")]
async fn echo(value: Value) -> Value {
    value
}

/// Takes its time, without using a thread.
#[task(name = "demo.sleep")]
async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Takes its time, on a core of its own: a plain `fn` runs on the blocking pool.
#[task(name = "demo.spin")]
fn spin(ms: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(ms) {
        std::hint::spin_loop();
    }
}

/// Blocks a thread that other jobs need: how not to write an `async fn`.
#[task(name = "demo.hog")]
async fn hog(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Fails, always.
#[task(name = "demo.fail")]
async fn fail(message: String) -> Result<(), Failure> {
    Err(Failure(message))
}

/// Fails its first `failures` attempts, which it counts in the file `dir/key`, then returns the
/// attempt.
#[task(name = "demo.flaky", retry(max = 10, backoff = "100ms"))]
fn flaky(key: &str, failures: u64, dir: &Path) -> TaskResult<u64> {
    if !matches!(Path::new(key).components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
        return Err(TaskError::fatal(format!("`{key}` is no name for a file")));
    }
    let attempt = count(&dir.join(key))?;
    if attempt > failures {
        return Ok(attempt);
    }
    Err(Failure(format!("attempt {attempt} fails, as do the first {failures}")).into())
}

/// Adds one to a count that survives the process: the length of a file.
fn count(path: &Path) -> io::Result<u64> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(b".")?;
    Ok(file.metadata()?.len())
}

/// Panics.
#[task(name = "demo.panic")]
async fn panics() {
    panic!("this task panics");
}

/// Kills its own process at once: a poison job.
#[task(name = "demo.exit")]
async fn exit() {
    std::process::abort();
}

/// Appends a line to a file: a ledger of what ran.
#[task(name = "demo.append")]
fn append(path: &Path, line: &str) -> io::Result<()> {
    append_line(path, line)
}

/// Appends `<line> <sum>`, and returns one more than the sum: for flows.
#[task(name = "demo.append_total")]
fn append_total(numbers: Vec<u64>, path: &Path, line: &str) -> io::Result<u64> {
    let total: u64 = numbers.iter().sum();
    append_line(path, &format!("{line} {total}"))?;
    Ok(total + 1)
}

/// Appends `start <line>`, takes its time, appends `end <line>`.
#[task(name = "demo.append_slow")]
async fn append_slow(path: &Path, line: &str, ms: u64) -> TaskResult<()> {
    write_slowly(path, line, ms).await
}

/// Appends `run <line>.<attempt>`, and fails its first `failures` attempts.
#[task(name = "demo.append_flaky", retry(max = 10, backoff = "1500ms"))]
async fn append_flaky(path: &Path, line: &str, failures: u32, #[inject] ctx: &Context) -> TaskResult<()> {
    append_aside(path, format!("run {line}.{}", ctx.attempt())).await?;
    if ctx.attempt() > failures {
        return Ok(());
    }
    Err(Failure(format!("attempt {} fails, as do the first {failures}", ctx.attempt())).into())
}

/// As `demo.append_slow`, but acked before it runs: at most once.
#[task(name = "demo.append_on_receive", ack = "on_receive")]
async fn append_on_receive(path: &Path, line: &str, ms: u64) -> TaskResult<()> {
    write_slowly(path, line, ms).await
}

/// As `demo.append_slow`, but acked when it has run, before that is saved.
#[task(name = "demo.append_after_run", ack = "after_run")]
async fn append_after_run(path: &Path, line: &str, ms: u64) -> TaskResult<()> {
    write_slowly(path, line, ms).await
}

/// As `demo.append_slow`, once half a second after the last kick, or two after the first: only the
/// newest line of a file is appended.
#[task(name = "demo.append_newest", unique(by = path, debounce = "500ms", max = "2s"))]
async fn append_newest(path: &Path, line: &str) -> TaskResult<()> {
    write_slowly(path, line, 0).await
}

async fn write_slowly(path: &Path, line: &str, ms: u64) -> TaskResult<()> {
    append_aside(path, format!("start {line}")).await?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    append_aside(path, format!("end {line}")).await
}

async fn append_aside(path: &Path, line: String) -> TaskResult<()> {
    let path = path.to_owned();
    Ok(tokio::task::spawn_blocking(move || append_line(&path, &line)).await??)
}

/// One `write` in append mode: lines of several processes never mix.
fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}
