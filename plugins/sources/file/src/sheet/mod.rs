//! Workbooks: .xlsx and .xls.
//!
//! [`archive`] and [`records`] look whether a file may be read at all, [`book`] yields the cells of a sheet, [`cell`] makes
//! text of one, and [`rows`] makes Arrow columns of a sheet on a thread of its own. An .xlsx is read as a
//! stream, but for the table of texts that its cells point into; an .xls is read whole.

pub mod archive;
pub mod book;
pub mod cell;
pub mod records;
pub mod rows;

use std::fs::File;
use std::io;
use std::sync::Arc;

use arrow::datatypes::Field;
use calamine::Dimensions;
use reunion_sdk::{Call, ErrorClass, PluginError};

use self::book::Book;
use self::cell::Written;
use self::rows::{Plan, SheetRows};
use crate::config::{Config, Header};
use crate::header::{self, Candidate, clean};
use crate::listing::{Entry, read_error};
use crate::table::{Place, Projection, Rows, Table, text_field};

/// An .xls is read whole. One with the 65,536 rows that it can have and twenty columns has about 15 MiB.
const XLS_BYTES_MAX: u64 = 64 << 20;
const SHEETS_MAX: usize = 256;

/// A sheet that was looked at.
struct Sheet {
    book: Book,
    name: String,
    entry: Entry,
    config: Arc<Config>,
    /// The number of the row that names the columns; 0 where none does.
    header_row: u64,
    fields: Vec<Field>,
    notices: Vec<String>,
}

/// Looks at an .xlsx. `None`: there is nothing in it.
///
/// # Errors
/// Invalid data where it is no workbook, too large or protected, or has no such sheet or no header.
pub fn open_xlsx(call: &Call, file: File, entry: &Entry, config: &Arc<Config>) -> Result<Option<Box<dyn Table>>, PluginError> {
    look(Book::xlsx(call, &file, &entry.name)?, entry, config)
}

/// The same of an .xls.
///
/// # Errors
/// As [`open_xlsx`].
pub fn open_xls(call: &Call, file: File, entry: &Entry, config: &Arc<Config>) -> Result<Option<Box<dyn Table>>, PluginError> {
    if entry.stat.size > XLS_BYTES_MAX {
        let message = format!("{} has more than {} MiB, and an .xls is read whole", entry.name, XLS_BYTES_MAX >> 20);
        return Err(PluginError::new(ErrorClass::InvalidData, message).hint("save it as .xlsx, which may be larger"));
    }
    look(Book::xls(call, &file, &entry.name)?, entry, config)
}

/// An error for a workbook that is encrypted.
fn protected(name: &str) -> PluginError {
    PluginError::new(ErrorClass::InvalidData, format!("{name} is protected by a password")).hint("save it without one")
}

/// An error for a workbook that cannot be read, and why.
fn broken(name: &str, why: &str) -> PluginError {
    PluginError::new(ErrorClass::InvalidData, format!("{name} is no whole workbook: {why}"))
        .hint("open it in a spreadsheet program and save it again")
}

/// An error for a workbook that would take too much memory.
fn refused(name: &str, what: &str) -> PluginError {
    PluginError::new(ErrorClass::InvalidData, format!("{name} {what}, and is not read"))
        .hint("if it is what it should be, save it as \"CSV UTF-8\"")
}

/// An error for a file that the system does not let be read, or whose call is to stop; or else is damaged.
fn unreadable(name: &str, error: &io::Error) -> PluginError {
    let is_stopped = error.get_ref().is_some_and(|inner| inner.is::<PluginError>());
    if is_stopped || error.raw_os_error().is_some() { read_error(name, error) } else { broken(name, "it is damaged or cut off") }
}

fn look(mut book: Book, entry: &Entry, config: &Arc<Config>) -> Result<Option<Box<dyn Table>>, PluginError> {
    let Some((name, notices)) = choose(&mut book, entry, config)? else { return Ok(None) };
    let (names, header_row) = match config.header {
        Header::None => (config.columns.clone(), 0),
        _ => {
            let Some(header) = find_header(&mut book, &name, entry, config.header)? else { return Ok(None) };
            let place = format!("{}:{name}:{}", entry.name, header.line);
            (header::names(&header.cells, &place)?, header.line)
        }
    };
    let fields = names.iter().map(|name| text_field(name)).collect();
    Ok(Some(Box::new(Sheet { book, name, entry: entry.clone(), config: Arc::clone(config), header_row, fields, notices })))
}

/// The sheet to read, and what is said of the others. `None`: there is nothing in any.
fn choose(book: &mut Book, entry: &Entry, config: &Config) -> Result<Option<(String, Vec<String>)>, PluginError> {
    let error = |message: String| PluginError::new(ErrorClass::InvalidData, format!("{} {message}", entry.name)).key("sheet");
    let sheets = book.sheets();
    if sheets.len() > SHEETS_MAX {
        return Err(error(format!("has {} sheets, more than {SHEETS_MAX}", sheets.len())));
    }
    if let Some(sheet) = &config.sheet {
        if !sheets.iter().any(|(name, _)| name == sheet) {
            let message = format!("has no sheet {sheet:?}; it has {}", quoted(sheets.iter().map(|(name, _)| name)));
            return Err(error(message).hint("name one of them with `sheet`"));
        }
        return Ok(Some((sheet.clone(), Vec::new())));
    }
    let mut filled = Vec::new();
    for (name, is_visible) in &sheets {
        if holds_anything(book, name)? {
            filled.push((name, *is_visible));
        }
    }
    let mut visible = filled.iter().filter(|(_, is_visible)| *is_visible).map(|(name, _)| *name);
    let Some(first) = visible.next() else {
        if filled.is_empty() {
            return Ok(None);
        }
        let message = format!("shows no sheet that holds anything; hidden are {}", quoted(filled.iter().map(|(name, _)| *name)));
        return Err(error(message).hint("name one of them with `sheet`"));
    };
    let others: Vec<_> = visible.collect();
    let notice = format!("only the sheet {first:?} is read, and not {}: `sheet` names the one to read", quoted(others.iter().copied()));
    Ok(Some((first.clone(), if others.is_empty() { Vec::new() } else { vec![notice] })))
}

/// Names in quotes, ten at most.
fn quoted<'n>(names: impl Iterator<Item = &'n String>) -> String {
    let names: Vec<_> = names.map(|name| format!("{name:?}")).collect();
    let more = if names.len() > 10 { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(10)].join(", "))
}

fn holds_anything(book: &mut Book, sheet: &str) -> Result<bool, PluginError> {
    let mut is_filled = false;
    book.each_cell(sheet, &mut |_, _, value| {
        is_filled = !text_of(value).is_empty();
        Ok(!is_filled)
    })?;
    Ok(is_filled)
}

fn text_of(value: &calamine::DataRef<'_>) -> String {
    let mut text = String::new();
    match cell::write(value, &mut text) {
        Written::Text => clean(&text),
        // Something stands there, though no name.
        Written::Error => "0".to_owned(),
        Written::Rounded(_) => "0".repeat(16),
    }
}

/// The row that names the columns. `None`: nothing is in the sheet.
fn find_header(book: &mut Book, sheet: &str, entry: &Entry, declared: Header) -> Result<Option<Candidate>, PluginError> {
    let place = format!("{}:{sheet}", entry.name);
    let mut rows = first_rows(book, sheet, declared)?;
    if rows.is_empty() {
        return Ok(None);
    }
    let found = header::pick(&rows, declared, &place)?;
    if !may_span_rows(&rows, found) {
        return Ok(Some(found.clone()));
    }
    // What a cell that spans rows holds stands in the first of them alone.
    for merged in book.merged(sheet)? {
        fill_down(&mut rows, merged);
    }
    header::pick(&rows, declared, &place).cloned().map(Some)
}

/// Whether the names may stand in several rows: one lacks a name, or the row below is wider.
fn may_span_rows(rows: &[Candidate], header: &Candidate) -> bool {
    let below = rows.iter().find(|row| row.line == header.line + 1);
    header.cells.iter().any(String::is_empty) || below.is_some_and(|below| below.cells.len() > header.cells.len())
}

/// The first rows that hold anything, without the empty cells at their ends.
fn first_rows(book: &mut Book, sheet: &str, declared: Header) -> Result<Vec<Candidate>, PluginError> {
    let mut rows: Vec<Candidate> = Vec::new();
    book.each_cell(sheet, &mut |row, column, value| {
        let line = u64::from(row) + 1;
        let is_new = rows.last().is_none_or(|last| last.line != line);
        if is_new && header::is_enough(&rows, line, declared) {
            return Ok(false);
        }
        let text = text_of(value);
        if text.is_empty() {
            return Ok(true);
        }
        if is_new {
            rows.push(Candidate { line, lines: 1, cells: Vec::new(), is_damaged: false });
        }
        if let Some(last) = rows.last_mut() {
            put(&mut last.cells, column as usize, text);
        }
        Ok(true)
    })?;
    Ok(rows)
}

fn put(cells: &mut Vec<String>, column: usize, text: String) {
    if cells.len() <= column {
        cells.resize(column + 1, String::new());
    }
    cells[column] = text;
}

/// Says what a merged cell holds in each of the rows that it spans.
fn fill_down(rows: &mut [Candidate], merged: Dimensions) {
    let ((first, column), (last, _)) = (merged.start, merged.end);
    let column = column as usize;
    let top = rows.iter().find(|row| row.line == u64::from(first) + 1);
    let Some(text) = top.and_then(|row| row.cells.get(column)).filter(|text| !text.is_empty()).cloned() else { return };
    for row in rows.iter_mut().filter(|row| row.line > u64::from(first) + 1 && row.line <= u64::from(last) + 1) {
        put(&mut row.cells, column, text.clone());
    }
}

impl Table for Sheet {
    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn notices(&self) -> &[String] {
        &self.notices
    }

    fn start(&self) -> Place {
        Place { bytes: self.entry.stat.size, row: 0 }
    }

    fn rows(self: Box<Self>, projection: Projection, from: Place) -> Result<Box<dyn Rows>, PluginError> {
        let Self { book, name, entry, config, header_row, fields, .. } = *self;
        tracing::debug!(file = entry.name, sheet = name, row = from.row, "reading");
        let names = fields.iter().map(|field| field.name().clone()).collect();
        let plan = Plan { place: format!("{}:{name}", entry.name), sheet: name, config, header_row, names, projection };
        Ok(Box::new(SheetRows::start(book, plan, from)?))
    }
}
