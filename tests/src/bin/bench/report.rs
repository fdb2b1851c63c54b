//! Output of results, for programs and for people.

use std::fmt;
use std::io::{self, Write as _};

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Prints lines of JSON as they come, and all of them in tables at the end.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Prints a line to standard output.
    pub(crate) fn add(&mut self, line: &impl Serialize) -> io::Result<()> {
        self.add_json(&serde_json::to_string(line)?)
    }

    /// Prints a line that is JSON already.
    pub(crate) fn add_json(&mut self, line: &str) -> io::Result<()> {
        let mut line: Line = serde_json::from_str(line)?;
        line.0.iter_mut().for_each(|(_, value)| round(value));
        writeln!(io::stdout().lock(), "{line}")?;
        self.lines.push(line);
        Ok(())
    }

    /// Prints the tables to standard error: one for lines that have the same columns.
    pub(crate) fn tables(&self) {
        for lines in self.lines.chunk_by(|one, other| one.names().eq(other.names())) {
            table(lines);
        }
    }
}

/// The fields of an object, in their order.
struct Line(Vec<(String, Value)>);

impl Line {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> = self.0.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        write!(f, "{{{}}}", fields.join(","))
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Line;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Line(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// Three digits behind the point at most, and no more digits than were measured.
fn round(value: &mut Value) {
    if let Some(number) = value.as_f64().filter(|_| value.is_f64()) {
        *value = match number {
            1000.0.. => (number.round() as u64).into(),
            _ => ((number * 1000.0).round() / 1000.0).into(),
        };
    }
}

fn table(lines: &[Line]) {
    let has_any = |column: &usize| lines.iter().any(|line| !line.0[*column].1.is_null());
    let columns: Vec<usize> = (0..lines[0].0.len()).filter(has_any).collect();
    let titles = columns.iter().map(|column| lines[0].0[*column].0.clone()).collect();
    let cells = |line: &Line| columns.iter().map(|column| shown(&line.0[*column].1)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(lines.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    eprintln!();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        eprintln!("{}", cells.collect::<Vec<_>>().join("  "));
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
