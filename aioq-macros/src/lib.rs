//! The attributes of aioq: [`macro@task`] and [`macro@main`].
//!
//! Use them through the `aioq` crate, which re-exports both: the generated code refers to its runtime.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use proc_macro::TokenStream;

mod app;
mod errors;
mod runtime;
mod spelling;
mod task;
mod type_text;

/// Turns a function into a task: a named unit of work that one process kicks and a worker runs.
///
/// An `async fn` runs on the worker's async threads, a plain `fn` on its blocking pool. The function's name
/// becomes three things: a constructor with the parameters that travel, which returns a `Call`; a type that
/// carries the task (`send_email::NAME`); and the body itself, as `send_email::call(..)`.
///
/// ```text
/// use aioq::{task, Context};
///
/// #[task(queue = "email", timeout = "30s", retry(max = 5, backoff = "1s..5m", jitter))]
/// pub async fn send_email(to: &str, #[default] cc: Option<String>, #[inject] mailer: &Mailer)
///     -> Result<Receipt, SendError>
/// {
///     mailer.send(to, cc).await
/// }
///
/// send_email("ada@example.com", None).kiq().await?;             // to the broker
/// let receipt = send_email::call("ada@example.com", None, &mailer).await?; // the body, in a unit test
/// ```
///
/// # Options
///
/// Every option is checked when the program is compiled, and an error points at the option that caused it.
///
/// | option | meaning |
/// |---|---|
/// | `name = "email.send"` | the name that messages carry; without it, the function's name |
/// | `alias("old_name", ..)` | names under which older messages still find this task |
/// | `queue = "email"` | the queue; without it, `default` |
/// | `priority = 3` | 0 to 9, lower first; without it, 5 |
/// | `timeout = "30s"` | the time one attempt may take |
/// | `ttl = "1h"` | the time after which a job that has not started is worthless |
/// | `keep = "1h"` | how long its completed jobs and their results are kept; without it, what the client says |
/// | `keep_failed = "30d"` | the same for those that failed, expired or were cancelled |
/// | `retry(..)` | what follows a failed attempt, see below |
/// | `ack = "on_receive"` | when the message is acknowledged: `"on_save"` (default: after the result is saved), `"after_run"`, `"on_receive"` (at most once) |
/// | `labels(team = "growth", tier = 2, beta = true)` | labels on every message: text, integers, floats, booleans |
/// | `fallible` | the return type is a `Result` behind an alias |
/// | `unique(by = to, within = "10m")` | at most one such job at a time; `by = (a, b)` takes several parameters |
/// | `rate = "100/s"` | starts per second, minute (`m`), hour (`h`) or day (`d`); also `"5 per 10m"` |
/// | `cron = "0 3 * * *"` | a schedule of 5 fields, or 6 with seconds first |
/// | `tz = "Europe/Berlin"` | the time zone of `cron` |
/// | `every = "10m"` | a schedule by period, at least a second |
/// | `crate = path` | where the `aioq` crate is, for a macro that writes tasks |
///
/// `unique`, `rate`, `cron`, `tz` and `every` are checked, and not yet supported.
///
/// Durations are written as in `"250ms"`, `"30s"`, `"1h 30m"`; a number without a unit is refused, and so is more than
/// `"100y"`.
///
/// ## `retry(..)`
///
/// | part | meaning |
/// |---|---|
/// | `max = 5` | retries after the first run (`max = 2`: 3 runs); may be left out beside `retry_for` or `policy` |
/// | `backoff = "1s..5m"` | exponential, from the first delay to the longest; also `"exponential 1s..5m"` |
/// | `backoff = "linear 1s..5m"` | the first delay, added once more each time, to the longest |
/// | `backoff = "10s"` | the same delay each time; also `"fixed 10s"` |
/// | `jitter` | spread each delay over zero to its length |
/// | `when = path` | `fn(&E) -> bool` on the task's own error: `false` means that a failure is the last one |
/// | `retry_for = "48h"` | stop this long after the first failure; a delay of the job does not count |
/// | `policy = path` | `fn(u32, &TaskError) -> Option<Duration>`, in place of `backoff` |
///
/// # Parameters
///
/// Parameters are typed and named: their names travel in the message, so renaming one changes the format.
///
/// | declared | at the call | what the body gets |
/// |---|---|---|
/// | `x: T` | `T` | the value |
/// | `x: &str` | `impl Into<String>` | borrowed from the message |
/// | `x: &[u8]` | `impl Into<Vec<u8>>` | borrowed from the message |
/// | `x: &Path` | `impl Into<PathBuf>` | a reference |
/// | `x: &[T]` | `Vec<T>` | a reference |
/// | `x: &T` | `T` | a reference |
/// | `#[default] x: T` | as above | `T::default()` for a message that lacks it |
/// | `#[default(expr)] x: T` | as above | `expr` for a message that lacks it |
/// | `#[inject] x: &T` | nothing | the worker's state of that type |
/// | `#[inject] ctx: Context`, `&Context` | nothing | the attempt's context |
/// | `#[inject] x: T` | nothing | any `FromContext` |
///
/// `T` is `Serialize + DeserializeOwned + Send`. `&mut T`, `&'static T` and a reference inside another type
/// (`Option<&str>`) are refused; the error names the owned type. Take `&str` where callers have text of any kind: a
/// parameter of type `String` takes a `String` and nothing else.
///
/// # The return type
///
/// Any value that can be stored. A type whose last segment is `Result` (or aioq's own `TaskResult`) makes the
/// task fallible; its error is any `E: Into<Box<dyn Error + Send + Sync>>`: a type that implements
/// `std::error::Error`, text, or `aioq::BoxError`, which `?` makes of all of them. A `Result` behind another alias needs
/// the option `fallible`; without it the program does not compile, so that no `Err` is ever stored as
/// a success.
///
/// # What cannot be a task
///
/// A generic function, a method with `self`, an `unsafe`, `extern`, `const` or variadic function, one with an
/// `impl Trait` or a pattern as parameter, and one whose future is not `Send`.
#[proc_macro_attribute]
pub fn task(attr: TokenStream, item: TokenStream) -> TokenStream {
    task::task(attr.into(), item.into()).into()
}

/// Makes a binary out of the function that describes the app: the worker and its command line.
///
/// The function takes nothing and returns the `App`. It is not async: everything in an `App` is lazy, state
/// that is built asynchronously included.
///
/// ```text
/// #[aioq::main]
/// fn app() -> App {
///     App::new().state_with(async || Mailer::connect().await)
/// }
/// ```
///
/// The function keeps its name, so that the rest of the program and its tests can call it. `crate = path`
/// names the `aioq` crate where it cannot be found by itself.
#[proc_macro_attribute]
pub fn main(attr: TokenStream, item: TokenStream) -> TokenStream {
    app::main(attr.into(), item.into()).into()
}
