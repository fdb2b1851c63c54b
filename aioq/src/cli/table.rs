//! Tables: they fit the terminal, and are plain columns elsewhere.

use std::io::IsTerminal as _;

use comfy_table::{Attribute, CellAlignment, ColumnConstraint, ContentArrangement, Row, presets};
pub(super) use comfy_table::{Cell, Color};

use super::human::{coloured, tame};
use super::{eprint_line, print_line};

/// A column, by its name.
pub(super) enum Column {
    /// Text that is cut off where the terminal is too narrow.
    Text(&'static str),
    /// Text that is of use as a whole only.
    Whole(&'static str),
    /// Numbers, flush right.
    Number(&'static str),
}

/// A cell with text; one without says so, so that every line has as many columns.
pub(super) fn text(text: impl AsRef<str>) -> Cell {
    match text.as_ref() {
        "" => Cell::new("-"),
        text => Cell::new(tame(text)),
    }
}

/// A cell with a number.
pub(super) fn number(number: u64) -> Cell {
    Cell::new(number)
}

/// A cell in a colour, where colours are welcome.
pub(super) fn painted(cell: Cell, colour: Option<Color>) -> Cell {
    match colour.filter(|_| coloured(&std::io::stdout())) {
        Some(colour) => cell.fg(colour),
        None => cell,
    }
}

/// A table on its way to standard output.
pub(super) struct Table {
    table: comfy_table::Table,
    on_terminal: bool,
}

impl Table {
    pub(super) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        let (stdout, mut table) = (std::io::stdout(), comfy_table::Table::new());
        let (on_terminal, coloured) = (stdout.is_terminal(), coloured(&stdout));
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(match on_terminal {
            true => ContentArrangement::Dynamic,
            false => ContentArrangement::Disabled,
        });
        let columns: Vec<Column> = columns.into_iter().collect();
        let header = columns.iter().map(|column| match coloured {
            true => Cell::new(column.name()).add_attribute(Attribute::Bold),
            false => Cell::new(column.name()),
        });
        table.set_header(header);
        for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
            column.lay_out(shown);
        }
        Self { table, on_terminal }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut row = Row::from(cells);
        if self.on_terminal {
            row.max_height(1);
        }
        self.table.add_row(row);
    }

    /// Prints the table; if it has no rows, `none`, for people.
    pub(super) fn print_or(&self, none: &str) {
        match self.table.is_empty() {
            true => eprint_line(none),
            false => print_line(&self.table.trim_fmt()),
        }
    }
}

impl Column {
    fn name(&self) -> &'static str {
        match self {
            Self::Text(name) | Self::Whole(name) | Self::Number(name) => name,
        }
    }

    fn lay_out(&self, column: &mut comfy_table::Column) {
        column.set_padding((0, 2));
        if !matches!(self, Self::Text(_)) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        if matches!(self, Self::Number(_)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
