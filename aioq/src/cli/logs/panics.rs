//! Panics in the log: as escaped text, or as JSON.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

use crate::cli::out;

/// Logs every panic from now on, with a backtrace if `RUST_BACKTRACE` asks for one.
pub(super) fn log() {
    panic::set_hook(Box::new(tell));
}

fn tell(info: &PanicHookInfo<'_>) {
    let message = info.payload().downcast_ref::<&str>().copied();
    let message = message.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("a value that is no text");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured if out::is_json() => {
            tracing::error!(thread, place, %backtrace, "panicked: {message}");
        }
        BacktraceStatus::Captured => {
            tracing::error!(thread, place, "panicked: {message}");
            // Not escaped: it has many lines, and only names of this program.
            eprintln!("{backtrace}");
        }
        _ => tracing::error!(thread, place, "panicked: {message}"),
    }
}
