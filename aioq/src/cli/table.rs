//! Tables: fitted to a terminal, plain columns elsewhere.

use comfy_table::{Attribute, CellAlignment, ColumnConstraint, ContentArrangement, Row, Width, presets};
pub(super) use comfy_table::{Cell, Color};

use super::human::coloured;
use super::out::{print_styled, tell};
use super::tame::tame;

/// Smallest width to which long text is cut.
const LEAST: u16 = 12;

/// Space between columns.
const GAP: u16 = 2;

/// Column with its name. On a narrow terminal the last columns are hidden.
pub(super) enum Column {
    /// Text that a narrow terminal cuts.
    Text(&'static str),
    /// Text that is never cut, such as an id.
    Whole(&'static str),
    /// Numbers, aligned right.
    Number(&'static str),
}

/// Cell with text. Empty text becomes `-`, so that every line has the same number of columns.
pub(super) fn text(text: impl AsRef<str>) -> Cell {
    match text.as_ref() {
        "" => Cell::new("-"),
        text => Cell::new(tame(text)),
    }
}

/// Cell with a number.
pub(super) fn number(number: u64) -> Cell {
    Cell::new(number)
}

/// Colours a cell if the output may be coloured.
pub(super) fn painted(cell: Cell, colour: Option<Color>) -> Cell {
    match colour.filter(|_| coloured(&std::io::stdout())) {
        Some(colour) => cell.fg(colour),
        None => cell,
    }
}

/// Table for standard output.
pub(super) struct Table {
    columns: Vec<Column>,
    table: comfy_table::Table,
}

impl Table {
    pub(super) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        let columns: Vec<Column> = columns.into_iter().collect();
        let bold = coloured(&std::io::stdout());
        let header = columns.iter().map(|column| {
            let name = Cell::new(column.name());
            if bold { name.add_attribute(Attribute::Bold) } else { name }
        });
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header);
        for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
            shown.set_padding((0, GAP));
            if matches!(column, Column::Number(_)) {
                shown.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { columns, table }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.table.add_row(Row::from(cells));
    }

    /// Prints the table, or the note `none` if it has no rows.
    pub(super) fn print_or(mut self, none: &str) {
        if self.table.is_empty() {
            return tell(none);
        }
        if let Some(width) = self.table.width() {
            self.fit(width);
        }
        print_styled(&self.table.trim_fmt());
    }

    /// Fits the table to the width of a terminal: hides the last columns, then cuts text.
    fn fit(&mut self, width: u16) {
        let (contents, mut used) = (self.table.column_max_content_widths(), 0_u16);
        for ((column, shown), content) in self.columns.iter().zip(self.table.column_iter_mut()).zip(contents)
        {
            let least = column.least(content);
            used = used.saturating_add(least).saturating_add(GAP);
            shown.set_constraint(match column {
                // The first column, which is always shown, names the row.
                _ if used > width.saturating_add(GAP) && used > least + GAP => ColumnConstraint::Hidden,
                Column::Text(_) => ColumnConstraint::LowerBoundary(Width::Fixed(least + GAP)),
                Column::Whole(_) | Column::Number(_) => ColumnConstraint::ContentWidth,
            });
        }
        self.table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
        for row in self.table.row_iter_mut() {
            row.max_height(1);
        }
    }
}

impl Column {
    fn name(&self) -> &'static str {
        match self {
            Self::Text(name) | Self::Whole(name) | Self::Number(name) => name,
        }
    }

    /// Smallest useful width of the column.
    fn least(&self, content: u16) -> u16 {
        match self {
            Self::Text(name) => content.min(LEAST).max(u16::try_from(name.len()).unwrap_or(LEAST)),
            Self::Whole(_) | Self::Number(_) => content,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns =
            [Column::Whole("ID"), Column::Text("QUEUE"), Column::Number("COUNT"), Column::Text("DETAIL")];
        let mut table = Table::new(columns);
        for count in [7, 1234] {
            table.row([
                text("0123456789abcdef"),
                text("größe ".repeat(9)),
                number(count),
                text("a\n".repeat(40)),
            ]);
        }
        table
    }

    #[test]
    fn a_table_fits_the_terminal_with_a_line_per_row() {
        for width in [40, 60, 80, 200] {
            let mut table = table();
            table.fit(width);
            let lines: Vec<String> = table.table.trim_fmt().lines().map(str::to_owned).collect();
            assert_eq!(lines.len(), 3, "{lines:#?}");
            assert!(
                lines.iter().all(|line| line.chars().count() <= usize::from(width)),
                "{width}: {lines:#?}"
            );
            assert!(lines[1].starts_with("0123456789abcdef  größe gr"), "{lines:#?}");
        }
    }

    #[test]
    fn the_last_columns_give_way_on_a_narrow_terminal() {
        let head = |width| {
            let mut table = table();
            table.fit(width);
            table.table.trim_fmt().lines().next().map(|head| head.split_whitespace().count())
        };
        assert_eq!([10, 40, 60].map(head), [Some(1), Some(3), Some(4)]);
    }

    #[test]
    fn elsewhere_nothing_is_cut_off_and_numbers_are_flush_right() {
        let text = table().table.trim_fmt();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with(&"a\\n".repeat(40)), "{text}");
        assert!(lines[1].contains("      7  a") && lines[2].contains("   1234  a"), "{text}");
    }
}
