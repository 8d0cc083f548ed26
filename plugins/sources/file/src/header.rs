//! Which row of a file names its columns.

use reunion_sdk::{ErrorClass, PluginError, limits};

use crate::config::Header;

/// Rows among which a header is looked for.
pub const HEADER_ROWS: usize = 20;

/// A row that may be the header.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its line in a text, its number in a sheet; the first is 1.
    pub line: u64,
    /// How many lines it takes.
    pub lines: u64,
    /// Its cells, [`clean`].
    pub cells: Vec<String>,
    /// It holds bytes that are no text.
    pub is_damaged: bool,
}

impl Candidate {
    /// How many of its cells may be names: neither empty, nor a number or date, nor said before.
    fn score(&self) -> usize {
        let cells = self.cells.iter().enumerate();
        cells.filter(|(at, cell)| !cell.is_empty() && !is_number(cell) && !self.cells[..*at].contains(cell)).count()
    }

    fn looks_like_data(&self) -> bool {
        self.cells.iter().any(|cell| cell.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() >= 7))
    }
}

/// Digits and the signs of numbers, dates and times alone.
fn is_number(cell: &str) -> bool {
    cell.bytes().any(|byte| byte.is_ascii_digit()) && cell.bytes().all(|byte| byte.is_ascii_digit() || b"+-.,:/ TZ'%".contains(&byte))
}

/// A name without the spaces and invisible characters around it.
pub fn clean(name: &str) -> String {
    name.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}')).to_owned()
}

/// Whether the rows so far are enough to [`pick`] from, and `line` comes next.
pub fn is_enough(rows: &[Candidate], line: u64, header: Header) -> bool {
    match header {
        Header::Line(header) => line > header,
        _ => rows.len() == HEADER_ROWS,
    }
}

/// The row that names the columns. `place` is the file, or the sheet in it.
///
/// # Errors
/// Invalid data where none does.
pub fn pick<'r>(rows: &'r [Candidate], header: Header, place: &str) -> Result<&'r Candidate, PluginError> {
    choose(rows, header).map_err(|message| {
        let hint = "name the header's line with `header = 3`, or use header = \"none\" with `columns`";
        PluginError::new(ErrorClass::InvalidData, format!("{place}: {message}")).hint(hint).key("header")
    })
}

fn choose(rows: &[Candidate], header: Header) -> Result<&Candidate, String> {
    if let Header::Line(line) = header {
        return rows
            .iter()
            .find(|row| row.line == line)
            .ok_or_else(|| format!("no row starts on line {line}, where `header` says the header is"));
    }
    let best = rows.iter().map(Candidate::score).max().unwrap_or(0);
    let row = rows.iter().find(|row| row.score() == best).filter(|_| best > 0);
    let row = row.ok_or_else(|| format!("no header was found among the first {HEADER_ROWS} rows"))?;
    if row.looks_like_data() {
        return Err(format!("no header was found: line {} looks most like one, and it holds numbers of seven digits or more", row.line));
    }
    Ok(row)
}

/// The names that a row's cells are: each once, `column_3` for one that is empty. `place` is where the row
/// stands.
///
/// # Errors
/// Invalid data where two are equal, or there are too many.
pub fn names(cells: &[String], place: &str) -> Result<Vec<String>, PluginError> {
    let error = |message: String| PluginError::new(ErrorClass::InvalidData, format!("{place}: {message}"));
    if cells.len() > limits::COLUMNS_MAX {
        return Err(error(format!("the header has {} columns, more than {}", cells.len(), limits::COLUMNS_MAX)));
    }
    let mut names: Vec<String> = Vec::with_capacity(cells.len());
    for (at, cell) in cells.iter().enumerate() {
        let name = if cell.is_empty() { format!("column_{}", at + 1) } else { cell.clone() };
        if let Some(first) = names.iter().position(|earlier| *earlier == name) {
            let message = format!("two columns are named {name:?}, in places {} and {}", first + 1, at + 1);
            return Err(error(message).hint("give each column a name of its own"));
        }
        names.push(name);
    }
    Ok(names)
}
