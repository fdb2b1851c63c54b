//! Logs go to standard error; standard output is for results.

use tracing_subscriber::EnvFilter;

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
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => logs.with_ansi(coloured(&std::io::stderr())).with_target(false).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was set up by the program");
    }
}
