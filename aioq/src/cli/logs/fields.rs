//! Fields of spans and events in a text log, of this crate and of all libraries.

use std::error::Error;
use std::fmt;
use std::iter::successors;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::cli::tame::show;

/// Writes `message name=value`, each value tamed.
pub(super) struct TameFields;

impl<'writer> FormatFields<'writer> for TameFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, written: Ok(()) };
        fields.record(&mut line);
        line.written
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    written: fmt::Result,
}

impl Line<'_> {
    fn write(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        if !std::mem::take(&mut self.is_empty) {
            self.writer.write_char(' ')?;
        }
        if name != "message" {
            // Name in italics and a dimmed sign, as `tracing_subscriber` writes them.
            if self.writer.has_ansi_escapes() {
                write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?;
            } else {
                write!(self.writer, "{name}=")?;
            }
        }
        show(&mut self.writer, value)
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let causes = successors(value.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
        let causes: String = causes.map(|cause| format!(": {cause}")).collect();
        self.record_debug(field, &format_args!("{value}{causes}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.written.is_ok() {
            let name = field.name();
            self.written = self.write(name.strip_prefix("r#").unwrap_or(name), format_args!("{value:?}"));
        }
    }
}
