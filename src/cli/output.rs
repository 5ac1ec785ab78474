//! Where words go: data to stdout, everything else to stderr.
use super::report::Failure;
use std::io::{self, Write};

/// How this command speaks, from the global flags.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
    /// 0 with `-q`, 1 by default, 2 with `-v`, 3 with `-vv`.
    pub verbosity: u8,
}

impl Output {
    /// Data for people or programs, as it is.
    pub fn data(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Output)
    }

    /// As [`Self::data`], with colours where stdout is a terminal that wants them.
    pub fn coloured(self, text: &str) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Output)
    }

    /// One JSON document.
    pub fn document(self, value: &serde_json::Value) -> Result<(), Failure> {
        self.data(&format!("{value:#}\n"))
    }

    /// The document with `--json`, else a sentence for people, which is not data.
    pub fn done(self, value: &serde_json::Value, sentence: &str) -> Result<(), Failure> {
        if self.json {
            return self.document(value);
        }
        self.say(sentence);
        Ok(())
    }

    /// A remark on stderr; none with `-q`. That nobody can read it is no reason to fail.
    pub fn say(self, sentence: &str) {
        if self.verbosity > 0 {
            let _ = writeln!(anstream::stderr(), "{sentence}");
        }
    }

    /// Something the user should know, also with `-q`.
    pub fn warn(self, sentence: &str) {
        let style = anstyle::AnsiColor::Yellow.on_default().bold();
        let _ = writeln!(anstream::stderr(), "{style}warning:{style:#} {sentence}");
    }
}

/// Text of foreign origin on a terminal: what could move the cursor or change colours is written out.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Left-aligned columns, two spaces apart; nothing after the last one.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["A", "LONGER", "C"], ["aaa", "b", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "A    LONGER  C\naaa  b\n");
    }

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\u{9b}é"), "a\\u{1b}[2Jb\\r\\n\\u{9b}é");
    }
}
