//! Output of the commands: results on standard output, everything else on standard error, as JSON
//! if the logs are JSON.

use std::io::{self, Write as _};
use std::sync::OnceLock;

use serde::Serialize;

use super::connection::LogFormat;
use super::tame::{tame, tame_json};
use crate::codec::to_json;
use crate::time::Timestamp;

/// Format of standard error.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Sets the format of standard error. Only the first call counts.
pub(super) fn write_as(format: LogFormat) {
    // A second call would come from the same command line.
    let _ = FORMAT.set(format);
}

/// True if every line on standard error is a JSON object.
pub(super) fn is_json() -> bool {
    matches!(FORMAT.get(), Some(LogFormat::Json))
}

/// Writes a line of text as a result. Ignores a reader that is gone.
pub(super) fn print_line(text: &str) {
    let _ = write_line(&tame(text));
}

/// Writes a value as a result, as one line of JSON.
pub(super) fn print_json<T: Serialize + ?Sized>(value: &T) {
    print_as_json(&to_json(value));
}

/// Writes encoded JSON as a result.
pub(super) fn print_as_json(json: &str) {
    let _ = write_line(&tame_json(json));
}

/// Writes lines that are escaped already and may have colours.
pub(super) fn print_styled(lines: &str) {
    let _ = write_line(lines);
}

/// Writes a line of text as a result, and flushes it. Fails if the reader is gone.
pub(super) fn try_print_line(text: &str) -> io::Result<()> {
    write_line(&tame(text))
}

/// Writes a value as a result, and flushes it. Fails if the reader is gone.
pub(super) fn try_print_json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    write_line(&tame_json(&to_json(value)))
}

fn write_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Writes a note to standard error.
pub(super) fn tell(text: &str) {
    write_aside("INFO", "", text);
}

/// Writes a warning to standard error.
pub(super) fn warn(text: &str) {
    write_aside("WARN", "warning: ", text);
}

/// Writes an error to standard error.
pub(super) fn complain(text: &str) {
    write_aside("ERROR", "error: ", text);
}

/// Object with the fields of a line in a JSON log.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    fields: Fields<'a>,
    target: &'a str,
}

#[derive(Serialize)]
struct Fields<'a> {
    message: &'a str,
}

fn write_aside(level: &str, start: &str, message: &str) {
    let line = if is_json() {
        let timestamp = Timestamp::now().to_string();
        let line = Line { timestamp, level, fields: Fields { message }, target: "aioq" };
        tame_json(&to_json(&line)).into_owned()
    } else {
        format!("{start}{}", tame(message))
    };
    // If this fails, no other output is left to report it.
    let _ = writeln!(io::stderr(), "{line}");
}
