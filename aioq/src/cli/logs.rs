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

/// What is logged unless `RUST_LOG` says otherwise: aioq reports the connection's troubles itself.
const DEFAULT_FILTER: &str = "info,async_nats=warn";

/// The same where each line and each span would be measured.
const QUIET_FILTER: &str = "warn";

/// Starts to log, at `info` unless `RUST_LOG` says otherwise. A program that logs already goes on
/// as it does.
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
        // Each span stands in the list of them, so that no field comes twice.
        LogFormat::Json => {
            registry.with(logs.json().with_current_span(false).with_writer(TameStderr)).try_init()
        }
    };
    match started {
        Ok(()) => panics::log(),
        Err(_) => tracing::debug!("logging was set up by the program"),
    }
}

/// True for an event that can contain no password. `RUST_LOG` cannot switch the others on: below
/// `info`, the NATS client logs all that it sends, passwords included.
fn tells_no_password(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::INFO || !event.target().starts_with("async_nats")
}

fn filter(usual: &str) -> EnvFilter {
    // As for every other variable, an empty one is not set.
    let said = std::env::var("RUST_LOG").ok().filter(|said| !said.is_empty());
    match said.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            out::warn(&format!("RUST_LOG is not understood, and counts as not set: {error}"));
            EnvFilter::new(usual)
        }
        None => EnvFilter::new(usual),
    }
}

/// Standard error for JSON: each line means what it meant, and shows what it is.
struct TameStderr;

impl<'a> MakeWriter<'a> for TameStderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for TameStderr {
    /// Takes a whole line, as the formatter hands it over.
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

/// Whether a command line that was refused, or its environment, asks for JSON.
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
