//! Columns for people.

use owo_colors::Style;

use crate::out::Paint;
use crate::view::plain;

/// One cell of a table.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Text in a style, on one line: much of it comes from builds.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        let text = plain(&text.into());
        Self { text, style }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text.to_string(), Style::new())
    }
}

/// Rows of cells, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with a line of headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let heading = |text: &&str| Cell::styled(*text, Style::new().bold());
        Self {
            rows: vec![headings.iter().map(heading).collect()],
        }
    }

    /// A table without headings.
    pub(crate) fn bare() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines of the table.
    pub(crate) fn lines(&self, paint: Paint) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).filter_map(width).collect();
        self.rows
            .iter()
            .map(|row| render(row, &widths, paint))
            .collect()
    }
}

fn render(row: &[Cell], widths: &[usize], paint: Paint) -> String {
    let mut line = String::new();
    for (position, (cell, width)) in row.iter().zip(widths).enumerate() {
        if !cell.text.is_empty() {
            line.push_str(&paint.paint(&cell.text, cell.style));
        }
        if position + 1 < row.len() {
            let blank = width.saturating_sub(cell.text.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', blank));
        }
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["JOB", "STATE"]);
        table.row(["a-long-name".into(), "ok".into()]);
        table.row(["ä".into(), "".into()]);
        assert_eq!(
            table.lines(Paint::OFF),
            ["JOB          STATE", "a-long-name  ok", "ä"]
        );
    }
}
