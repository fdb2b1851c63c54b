//! The attributes of aioq: [`macro@task`] and [`macro@main`].
//!
//! Use them through the `aioq` crate, which re-exports both: the generated code refers to its
//! runtime.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use proc_macro::TokenStream;

mod app;
mod errors;
mod runtime;
mod spelling;
mod task;
mod type_text;

/// Turns a function into a task: a named unit of work that a producer kicks and a worker runs.
///
/// An `async fn` runs on the async threads of the worker, a plain `fn` on its blocking pool. The
/// name of the function becomes three things:
///
/// - a constructor with the parameters that travel, which returns a `Call`;
/// - a type that carries the task: `send_email::NAME`;
/// - the body itself, with all parameters: `send_email::call(..)`.
///
/// ```
/// use aioq::tasks::Task;
/// use aioq::{Client, task};
///
/// struct Mailer;
///
/// impl Mailer {
///     async fn send(&self, to: &str, cc: Option<String>) -> std::io::Result<usize> {
///         Ok(to.len() + cc.map_or(0, |cc| cc.len()))
///     }
/// }
///
/// #[task(queue = "email", timeout = "30s", retry(max = 5, backoff = "1s..5m", jitter))]
/// pub async fn send_email(
///     to: &str,
///     #[default] cc: Option<String>,
///     #[inject] mailer: &Mailer,
/// ) -> std::io::Result<usize> {
///     mailer.send(to, cc).await
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let client = Client::connect(aioq::Memory::new()).await?;
/// client.kiq(send_email("ada@example.com", None)).await?; // to the broker
/// assert_eq!(send_email::NAME, "send_email");
/// let sent = send_email::call("ada@example.com", None, &Mailer).await; // the body, in a unit test
/// assert_eq!(sent.unwrap(), 15);
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
///
/// # Options
///
/// The compiler checks every option, and an error points at the option that caused it.
///
/// | option | meaning |
/// |---|---|
/// | `name = "email.send"` | name in messages; default: the name of the function |
/// | `alias("old_name", ..)` | names under which older messages still find this task |
/// | `queue = "email"` | queue; default: `default` |
/// | `priority = 3` | 0 to 9, lower first; default: 5 |
/// | `timeout = "30s"` | time that one attempt may take |
/// | `ttl = "1h"` | time after which a job that has not started expires |
/// | `keep = "1h"` | time for which completed jobs and their results are kept; default: the client's retention |
/// | `keep_failed = "30d"` | the same for jobs that failed, expired or were cancelled |
/// | `retry(..)` | policy for failed attempts, see below |
/// | `ack = "on_receive"` | time of the ack: `"on_save"` (default: after the result is saved), `"after_run"`, `"on_receive"` (at most once) |
/// | `labels(team = "growth", tier = 2, beta = true)` | labels on every message: text, integers, floats, booleans |
/// | `fallible` | the return type is a `Result` behind an alias |
/// | `unique` | at most one unfinished job with these arguments; a second kick gets the first one's handle |
/// | `unique(by = to, within = "10m", until = "start")` | the same by one parameter (`by = (a, b)`: several), until some time after the kick, or until the body starts |
/// | `unique(by = doc, debounce = "5s", max = "1m")` | the newest of many kicks, 5 s after the last one, at most 1 m after the first |
/// | `rate = "100/s"` | starts per second, minute (`m`), hour (`h`) or day (`d`); also `"5 per 10m"` |
/// | `cron = "0 3 * * *"` | schedule of 5 fields, or 6 with seconds first, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`; its id is the name of the task |
/// | `tz = "Europe/Berlin"` | time zone of `cron`; default: UTC |
/// | `every = "10m"` | schedule by period, at least a second |
/// | `missed = "once"` | ticks for which no worker was there in time: `"skip"` (default), `"once"` (the newest), `"all"` |
/// | `overlap = "skip"` | a tick while the job of the tick before has not ended: `"allow"` (default), `"skip"` |
/// | `crate = path` | path of the `aioq` crate, for a macro that writes tasks |
///
/// `rate` is checked, and refused as not yet supported.
///
/// Durations are written as in `"250ms"`, `"30s"`, `"1h 30m"`. A number without a unit is refused,
/// and so is more than `"100y"`.
///
/// ## `retry(..)`
///
/// | part | meaning |
/// |---|---|
/// | `max = 5` | retries after the first run (`max = 2`: 3 runs); optional beside `retry_for` or `policy` |
/// | `backoff = "1s..5m"` | exponential, from the first delay to the longest; also `"exponential 1s..5m"` |
/// | `backoff = "linear 1s..5m"` | the first delay, added once more each time, to the longest |
/// | `backoff = "10s"` | the same delay each time; also `"fixed 10s"` |
/// | `jitter` | spreads each delay over zero to its length |
/// | `when = path` | `fn(&E) -> bool` on the error of the task: `false` makes a failure final |
/// | `retry_for = "48h"` | gives up this long after the first failure; the delay of a job does not count |
/// | `policy = path` | `fn(u32, &TaskError) -> Option<Duration>`, instead of `backoff` |
///
/// ```
/// use aioq::task;
///
/// #[derive(Debug)]
/// enum FetchError {
///     Busy,
///     NotFound,
/// }
///
/// impl FetchError {
///     fn is_transient(&self) -> bool {
///         matches!(self, FetchError::Busy)
///     }
/// }
/// # impl std::fmt::Display for FetchError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
/// #         write!(f, "{self:?}")
/// #     }
/// # }
/// # impl std::error::Error for FetchError {}
///
/// #[task(retry(backoff = "1s..10m", jitter, retry_for = "48h", when = FetchError::is_transient))]
/// async fn fetch(url: &str) -> Result<u64, FetchError> {
///     if url.is_empty() { Err(FetchError::NotFound) } else { Err(FetchError::Busy) }
/// }
/// # let _ = fetch("");
/// ```
///
/// # Parameters
///
/// Parameters are typed and named. Their names travel in the message, so a new name is a new
/// format.
///
/// | declared | at the call | in the body |
/// |---|---|---|
/// | `x: T` | `T` | the value |
/// | `x: &str` | `impl Into<String>` | borrowed from the message |
/// | `x: &[u8]` | `impl Into<Vec<u8>>` | borrowed from the message |
/// | `x: &Path` | `impl Into<PathBuf>` | a reference |
/// | `x: &[T]` | `Vec<T>` | a reference |
/// | `x: &T` | `T` | a reference |
/// | `#[default] x: T` | as above | `T::default()` if the message lacks it |
/// | `#[default(expr)] x: T` | as above | `expr` if the message lacks it |
/// | `#[inject] x: &T` | nothing | the state of that type, from the worker |
/// | `#[inject] ctx: Context`, `&Context` | nothing | the context of the run |
/// | `#[inject] x: T` | nothing | any `FromContext` |
///
/// `T` is `Serialize + DeserializeOwned + Send`. `&mut T`, `&'static T` and a reference inside
/// another type (`Option<&str>`) are refused; the error names the owned type. Take `&str` where
/// callers have text of any kind: a parameter of type `String` takes a `String` and nothing else.
///
/// ```
/// use aioq::{Context, task};
///
/// #[task]
/// async fn resize(image: &[u8], #[default(100)] width: u32, #[inject] ctx: &Context) -> usize {
///     ctx.log(format!("to {width} pixels"));
///     image.len().min(width as usize)
/// }
///
/// let call = resize(b"pixels", 20); // the context is not an argument
/// # let _ = call;
/// ```
///
/// # The return type
///
/// Any value that can be stored. A type with the last segment `Result` (or aioq's own `TaskResult`)
/// makes the task fallible. Its error is any `E: Into<Box<dyn Error + Send + Sync>>`: a type that
/// implements `std::error::Error`, text, or `aioq::BoxError`, which `?` makes of all of them. A
/// `Result` behind another alias needs the option `fallible`. Without it the program does not
/// compile, so that no `Err` is ever stored as a success.
///
/// # Functions that cannot be tasks
///
/// A generic function, a method with `self`, an `unsafe`, `extern`, `const` or variadic function,
/// one with an `impl Trait` or a pattern as parameter, and one whose future is not `Send`.
#[proc_macro_attribute]
pub fn task(attr: TokenStream, item: TokenStream) -> TokenStream {
    task::task(attr.into(), item.into()).into()
}

/// Makes a binary out of the function that describes the app: the worker and its command line.
///
/// The function takes nothing and returns the `App`. It is not async: everything in an `App` is
/// lazy, also state that is built asynchronously.
///
/// ```no_run
/// use aioq::{App, Memory};
///
/// struct Mailer;
///
/// impl Mailer {
///     async fn connect() -> Self {
///         Mailer
///     }
/// }
///
/// #[aioq::main]
/// fn app() -> App {
///     App::new(Memory::new()).state_with(async || Mailer::connect().await)
/// }
/// ```
///
/// The function keeps its name, so that the rest of the program and its tests can call it.
/// `crate = path` names the `aioq` crate where it cannot be found by itself.
#[proc_macro_attribute]
pub fn main(attr: TokenStream, item: TokenStream) -> TokenStream {
    app::main(attr.into(), item.into()).into()
}
