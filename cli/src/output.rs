//! What commands print: aligned columns for people, JSON for programs.
//!
//! Field names of the JSON are those of the messages in `proto/`; times are RFC 3339 where the messages have a
//! timestamp, and milliseconds where a name ends in `_ms`.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::failure::Failure;

/// Adds `-o` to a command.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputOption {
    /// Form of the output
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Text, value_name = "FORM")]
    pub(crate) output: Output,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs: field names stay as they are from version to version
    Json,
}

impl Output {
    /// Prints a value: `text` makes the form for people.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let mut rendered = match self {
            Self::Text => text(value),
            Self::Json => json(value)?,
        };
        if !rendered.ends_with('\n') {
            rendered.push('\n');
        }
        write_stdout(rendered.as_bytes())
    }
}

fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))
}

/// Writes to standard output; a reader that has gone away is content.
pub(crate) fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

/// Rows of text under headings, in columns as wide as they need to be.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new<const COLUMNS: usize>(headings: [&str; COLUMNS]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a row, with as many cells as there are headings.
    pub(crate) fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        assert_eq!(
            COLUMNS,
            self.rows[0].len(),
            "a row has a cell for each heading"
        );
        self.rows.push(Vec::from(cells));
    }

    /// The table as lines of text.
    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names and values, one pair a line, with the values in one column.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs
        .iter()
        .map(|(name, _)| name.len() + 1)
        .max()
        .unwrap_or(0);
    pairs
        .iter()
        .map(|(name, value)| format!("{:<width$}  {value}\n", format!("{name}:")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let mut table = Table::new(["NAME", "PARTITIONS"]);
        table.row(["orders".to_owned(), "3".to_owned()]);
        table.row(["é".to_owned(), "12".to_owned()]);
        assert_eq!(
            table.render(),
            "NAME     PARTITIONS\norders   3\né        12\n"
        );
    }

    #[test]
    fn pairs_have_their_values_in_one_column() {
        let text = pairs(&[("id", "7".to_owned()), ("name", "node1".to_owned())]);
        assert_eq!(text, "id:    7\nname:  node1\n");
    }
}
