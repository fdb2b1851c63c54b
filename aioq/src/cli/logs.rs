//! Logs go to standard error; standard output is for results.

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::connection::LogFormat;
use super::human::coloured;

/// What is logged unless `RUST_LOG` says otherwise: aioq reports the connection's troubles itself.
const DEFAULT_FILTER: &str = "info,async_nats=warn";

/// The same where each line and each span would be measured.
const QUIET_FILTER: &str = "warn";

/// Starts to log, at `info` unless `RUST_LOG` says otherwise. A program that logs already goes on as it does.
pub(super) fn start(format: LogFormat, quiet: bool) {
    let usual = if quiet { QUIET_FILTER } else { DEFAULT_FILTER };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(tells_no_password));
    let started = match format {
        LogFormat::Text => {
            registry.with(logs.with_ansi(coloured(&std::io::stderr())).with_target(false)).try_init()
        }
        // Each span stands in the list of them, so that no field comes twice.
        LogFormat::Json => registry.with(logs.json().with_current_span(false)).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was set up by the program");
    }
}

/// Whether an event may be logged whatever `RUST_LOG` says: below `info`, the NATS client writes down what it sends,
/// passwords too.
fn tells_no_password(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::INFO || !event.target().starts_with("async_nats")
}
