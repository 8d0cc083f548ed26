//! A workbook: its sheets, and the cells of one of them.

use std::fs::File;

use calamine::{Data, DataRef, Dimensions, Reader, Sheet, SheetType, SheetVisible, Xls, XlsError, Xlsx, XlsxError};
use reunion_sdk::{Call, PluginError};

use super::{archive, broken, protected, records, unreadable};
use crate::listing::{Watched, io_error};
use crate::table;

/// How often, in cells, it is looked whether the call is to stop.
const CELLS_PER_LOOK: usize = 4096;

/// A workbook whose sheets can be read again and again.
pub struct Book {
    call: Call,
    name: String,
    cells: Cells,
}

enum Cells {
    /// Read as a stream; the table of texts is in memory.
    Xlsx(Box<Xlsx<Watched>>),
    /// All in memory.
    Xls(Box<Xls<Watched>>),
}

impl Book {
    /// A workbook of Excel 2007 or later.
    ///
    /// # Errors
    /// Invalid data where it is too large, protected or damaged; cancelled.
    pub fn xlsx(call: &Call, file: &File, name: &str) -> Result<Self, PluginError> {
        archive::check(Watched::new(file, call, name)?, name)?;
        let file = Watched::new(file, call, name)?;
        let book = guarded(name, || Xlsx::new(file).map_err(|error| xlsx_error(call, name, error)))?;
        Ok(Self { call: call.clone(), name: name.to_owned(), cells: Cells::Xlsx(Box::new(book)) })
    }

    /// A workbook of Excel 97 to 2003.
    ///
    /// # Errors
    /// As [`Book::xlsx`].
    pub fn xls(call: &Call, file: &File, name: &str) -> Result<Self, PluginError> {
        records::check(Watched::new(file, call, name)?, name)?;
        let (first, again) = (Watched::new(file, call, name)?, Watched::new(file, call, name)?);
        let book = guarded(name, || match Xls::new(first) {
            Ok(book) => Ok(book),
            // An .xlsx that is encrypted is wrapped in the container of an .xls.
            Err(XlsError::Cfb(_)) if matches!(Xlsx::new(again), Err(XlsxError::Password)) => Err(protected(name)),
            Err(error) => Err(xls_error(call, name, error)),
        })?;
        Ok(Self { call: call.clone(), name: name.to_owned(), cells: Cells::Xls(Box::new(book)) })
    }

    /// Its worksheets: their names, and whether they are shown.
    pub fn sheets(&self) -> Vec<(String, bool)> {
        let sheets = match &self.cells {
            Cells::Xlsx(book) => book.sheets_metadata(),
            Cells::Xls(book) => book.sheets_metadata(),
        };
        let worksheets = sheets.iter().filter(|sheet| sheet.typ == SheetType::WorkSheet);
        worksheets.map(|Sheet { name, visible, .. }| (name.clone(), *visible == SheetVisible::Visible)).collect()
    }

    /// Calls `visit` with row, column (the first is 0) and value of each cell that is there, row after row,
    /// until it says false.
    ///
    /// # Errors
    /// Those of `visit`; invalid data where the sheet is damaged; cancelled.
    pub fn each_cell(
        &mut self,
        sheet: &str,
        visit: &mut dyn FnMut(u32, u32, &DataRef<'_>) -> Result<bool, PluginError>,
    ) -> Result<(), PluginError> {
        let (call, name) = (&self.call, self.name.as_str());
        let mut seen = 0;
        let mut visit = |row, column, value: &DataRef<'_>| {
            seen += 1;
            if seen % CELLS_PER_LOOK == 0 {
                call.check()?;
            }
            visit(row, column, value)
        };
        guarded(name, || match &mut self.cells {
            Cells::Xlsx(book) => {
                let mut cells = book.worksheet_cells_reader(sheet).map_err(|error| xlsx_error(call, name, error))?;
                loop {
                    let cell = match cells.next_cell() {
                        Ok(Some(cell)) => cell,
                        Ok(None) => return Ok(()),
                        // An error such as #SPILL!, which calamine has no name for. Its cell is empty.
                        Err(XlsxError::CellError(_)) => continue,
                        Err(error) => return Err(xlsx_error(call, name, error)),
                    };
                    let (row, column) = cell.get_position();
                    if !visit(row, column, cell.get_value())? {
                        return Ok(());
                    }
                }
            }
            Cells::Xls(book) => {
                let range = book.worksheet_range(sheet).map_err(|error| xls_error(call, name, error))?;
                let (first_row, first_column) = range.start().unwrap_or_default();
                for (row, column, value) in range.used_cells() {
                    if !visit(first_row + row as u32, first_column + column as u32, &borrowed(value))? {
                        return Ok(());
                    }
                }
                Ok(())
            }
        })
    }

    /// The cells that are merged. Of an .xlsx they stand behind all rows, which are read for them.
    ///
    /// # Errors
    /// As [`Book::each_cell`].
    pub fn merged(&mut self, sheet: &str) -> Result<Vec<Dimensions>, PluginError> {
        let (call, name) = (&self.call, self.name.as_str());
        guarded(name, || match &mut self.cells {
            Cells::Xlsx(book) => book.merge_cells_by_sheet_name(sheet).map_err(|error| xlsx_error(call, name, error)),
            Cells::Xls(book) => book.merge_cells_by_sheet_name(sheet).map_err(|error| xls_error(call, name, error)),
        })
    }
}

fn guarded<T>(name: &str, work: impl FnOnce() -> Result<T, PluginError>) -> Result<T, PluginError> {
    table::guarded(work, || broken(name, "its parts do not fit together"))
}

fn borrowed(value: &Data) -> DataRef<'_> {
    match value {
        Data::Int(value) => DataRef::Int(*value),
        Data::Float(value) => DataRef::Float(*value),
        Data::String(value) => DataRef::SharedString(value),
        Data::Bool(value) => DataRef::Bool(*value),
        Data::DateTime(value) => DataRef::DateTime(*value),
        Data::DateTimeIso(value) => DataRef::DateTimeIso(value.clone()),
        Data::DurationIso(value) => DataRef::DurationIso(value.clone()),
        Data::Error(value) => DataRef::Error(value.clone()),
        Data::Empty => DataRef::Empty,
    }
}

/// The errors of calamine may repeat what stands in a cell, and are not passed on.
fn xlsx_error(call: &Call, name: &str, error: XlsxError) -> PluginError {
    if let Err(stopped) = call.check() {
        return stopped;
    }
    if let Some(error) = io_error(&error) {
        return unreadable(name, error);
    }
    match error {
        XlsxError::Zip(error) => archive::damaged(name, &error),
        XlsxError::Password => protected(name),
        XlsxError::XmlEof(tag) => broken(name, &format!("its XML ends within {tag:?}")),
        XlsxError::Unexpected(what) | XlsxError::UnexpectedNode(what) => broken(name, &format!("unexpected in its XML: {what}")),
        XlsxError::FileNotFound(part) => broken(name, &format!("it has no part {part:?}")),
        _ => broken(name, "its XML is not that of a workbook"),
    }
}

fn xls_error(call: &Call, name: &str, error: XlsError) -> PluginError {
    if let Err(stopped) = call.check() {
        return stopped;
    }
    if let Some(error) = io_error(&error) {
        return unreadable(name, error);
    }
    match error {
        XlsError::Password => protected(name),
        XlsError::Cfb(_) => broken(name, "it has no list of sheets that can be read"),
        _ => broken(name, "its records are not those of a workbook"),
    }
}
