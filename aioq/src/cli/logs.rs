//! Logs go to standard error; standard output is for results.

mod fields;
mod panics;

use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::fields::TameFields;
use super::connection::LogFormat;
use super::human::coloured;
use super::out;
use super::tame::tame_json;

/// Filter if `RUST_LOG` is not set. aioq reports the state of the connection itself, so the NATS
/// client logs only warnings.
const DEFAULT_FILTER: &str = "info,async_nats=warn";

/// Filter for `bench`, which would measure each line and each span.
const QUIET_FILTER: &str = "warn";

/// Starts to log, at `info` unless `RUST_LOG` says otherwise. Keeps the logging of a program that
/// has set it up.
pub(super) fn start(format: LogFormat, quiet: bool) {
    out::write_as(format);
    let filter = filter(if quiet { QUIET_FILTER } else { DEFAULT_FILTER });
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(tells_no_password));
    let logs = tracing_subscriber::fmt::layer();
    let started = match format {
        LogFormat::Text => {
            let logs = logs.with_ansi(coloured(&io::stderr())).with_target(false);
            registry.with(logs.fmt_fields(TameFields).with_writer(io::stderr)).try_init()
        }
        // The list of spans has every span, so the current one is not written again.
        LogFormat::Json => {
            registry.with(logs.json().with_current_span(false).with_writer(TameStderr)).try_init()
        }
    };
    match started {
        Ok(()) => panics::log(),
        Err(_) => tracing::debug!("the program has set up its own logging"),
    }
}

/// True for an event that can contain no password. Below `info`, the NATS client logs all that it
/// sends, passwords included: `RUST_LOG` cannot turn these events on.
fn tells_no_password(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::INFO || !event.target().starts_with("async_nats")
}

fn filter(usual: &str) -> EnvFilter {
    // An empty variable counts as unset, like all others.
    let said = std::env::var("RUST_LOG").ok().filter(|said| !said.is_empty());
    match said.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            out::warn(&format!("RUST_LOG is invalid and was ignored: {error}"));
            EnvFilter::new(usual)
        }
        None => EnvFilter::new(usual),
    }
}

/// Standard error for lines of JSON. Escapes control characters and invisible ones.
struct TameStderr;

impl<'a> MakeWriter<'a> for TameStderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for TameStderr {
    /// Writes one line: the formatter passes whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => io::stderr().write_all(tame_json(text).as_bytes()),
            Err(_) => io::stderr().write_all(line),
        }?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// True if a refused command line, or its environment, asks for logs in JSON.
pub(super) fn are_json() -> bool {
    let said: Vec<_> = std::env::args_os().collect();
    let flag = said.windows(2).rev().find(|pair| pair[0] == "--log-format").map(|pair| pair[1].clone());
    let format = flag
        .or_else(|| said.iter().find(|text| *text == "--log-format=json").map(|_| "json".into()))
        .or_else(|| std::env::var_os("AIOQ_LOG_FORMAT"));
    let is_json = format.is_some_and(|format| format == "json");
    if is_json {
        out::write_as(LogFormat::Json);
    }
    is_json
}
