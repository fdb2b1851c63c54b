//! What commands write: results to standard output, everything else to standard error, where it is
//! JSON if logs are.

use std::io::{self, Write as _};
use std::sync::OnceLock;

use serde::Serialize;

use super::connection::LogFormat;
use super::tame::{tame, tame_json};
use crate::codec::to_json;
use crate::time::Timestamp;

/// How standard error is written.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Says how standard error is written from now on; the first word counts.
pub(super) fn write_as(format: LogFormat) {
    // A second word would be of the same command line.
    let _ = FORMAT.set(format);
}

/// Whether every line on standard error is an object.
pub(super) fn is_json() -> bool {
    matches!(FORMAT.get(), Some(LogFormat::Json))
}

/// Writes a line of text as a result; a reader that has gone away is no error.
pub(super) fn print_line(text: &str) {
    let _ = write_line(&tame(text));
}

/// Writes a value as a result, in one line.
pub(super) fn print_json<T: Serialize + ?Sized>(value: &T) {
    print_as_json(&to_json(value));
}

/// Writes what is JSON already as a result.
pub(super) fn print_as_json(json: &str) {
    let _ = write_line(&tame_json(json));
}

/// Writes lines that are fit to be shown, colours included.
pub(super) fn print_styled(lines: &str) {
    let _ = write_line(lines);
}

/// Writes a line of text as a result, at once. An error says that nobody reads any more.
pub(super) fn try_print_line(text: &str) -> io::Result<()> {
    write_line(&tame(text))
}

/// Writes a value as a result, at once. An error says that nobody reads any more.
pub(super) fn try_print_json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    write_line(&tame_json(&to_json(value)))
}

fn write_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Tells something on standard error.
pub(super) fn tell(text: &str) {
    write_aside("INFO", "", text);
}

/// Tells on standard error what may be wrong.
pub(super) fn warn(text: &str) {
    write_aside("WARN", "warning: ", text);
}

/// Tells on standard error what went wrong.
pub(super) fn complain(text: &str) {
    write_aside("ERROR", "error: ", text);
}

/// An object as the lines of a JSON log are.
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
    // There is nobody to tell if it fails.
    let _ = writeln!(io::stderr(), "{line}");
}
