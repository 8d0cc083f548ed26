//! Whether an .xls may be read whole: few cells that stand far apart can stand for gigabytes.
//!
//! Calamine makes room for every cell between the first and the last, and for those that a sheet claims to
//! have. So the records of the sheets are gone through first.

use std::io::{self, Read, Seek};

use cfb::CompoundFile;
use reunion_sdk::PluginError;

use super::{broken, refused, unreadable};

/// Cells of all sheets, empty ones between them counted: a sheet's 65,536 rows of 120 columns.
const CELLS_MAX: u64 = 8 << 20;
/// Cells of the largest sheet that there can be.
const CLAIMED_MAX: u64 = 65_536 * 256;

/// Types of records, as \[MS-XLS\] numbers them.
mod kind {
    pub const EOF: u16 = 0x000a;
    pub const FILE_PASS: u16 = 0x002f;
    pub const BOUND_SHEET: u16 = 0x0085;
    pub const DIMENSIONS: u16 = 0x0200;
    pub const BOF: u16 = 0x0809;
    pub const MUL_RK: u16 = 0x00bd;
    /// Formula, rich text, text of the table, number, text, boolean or error, and short number.
    pub const CELLS: [u16; 7] = [0x0006, 0x00d6, 0x00fd, 0x0203, 0x0204, 0x0205, 0x027e];
}

/// Goes through the records of a workbook. One that is encrypted, or wrapped by something else, is left to
/// calamine.
///
/// # Errors
/// Invalid data where it would take too much memory, or is damaged.
pub fn check(file: impl Read + Seek, name: &str) -> Result<(), PluginError> {
    let failed = |error: io::Error| unreadable(name, &error);
    let mut container = CompoundFile::open(file).map_err(failed)?;
    let Some(path) = ["Workbook", "Book"].into_iter().find(|path| container.is_stream(path)) else { return Ok(()) };
    let mut stream = Vec::new();
    container.open_stream(path).and_then(|mut part| part.read_to_end(&mut stream)).map_err(failed)?;
    let globals = || records(&stream).take_while(|(kind, _)| *kind != kind::EOF);
    if globals().any(|(kind, _)| kind == kind::FILE_PASS) {
        return Ok(());
    }
    let mut cells = 0;
    for (_, sheet) in globals().filter(|(kind, _)| *kind == kind::BOUND_SHEET) {
        let start = long(sheet, 0).and_then(|at| stream.get(at as usize..));
        let start = start.ok_or_else(|| broken(name, "a sheet starts behind its end"))?;
        cells += Area::of_sheet(start).ok_or_else(|| refused(name, "claims a sheet larger than any can be"))?.cells();
    }
    if cells > CELLS_MAX {
        let message = format!("has cells far apart, and would take {cells} cells in memory, more than {CELLS_MAX}");
        return Err(refused(name, &message).hint("delete the cells that stand alone, or save it as .xlsx"));
    }
    Ok(())
}

/// Each record's type and bytes.
fn records(mut stream: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, bytes) = (short(stream, 0)?, short(stream, 2)?);
        let record = stream.get(4..4 + usize::from(bytes))?;
        stream = &stream[4 + record.len()..];
        Some((kind, record))
    })
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The rows and columns that a sheet's cells stand in, first and last.
#[derive(Default)]
struct Area(Option<[u16; 4]>);

impl Area {
    /// `None` where the sheet claims to be too large.
    fn of_sheet(stream: &[u8]) -> Option<Self> {
        let mut area = Self::default();
        // Within a chart on the sheet. The first begins the sheet itself.
        let mut depth = 0;
        for (kind, record) in records(stream) {
            match kind {
                kind::BOF => depth += 1,
                kind::EOF if depth <= 1 => break,
                kind::EOF => depth -= 1,
                _ if depth > 1 => {}
                kind::DIMENSIONS if !is_sheet(record) => return None,
                kind::MUL_RK => area.add(record, record.len().checked_sub(2).and_then(|at| short(record, at))),
                kind if kind::CELLS.contains(&kind) => area.add(record, None),
                _ => {}
            }
        }
        Some(area)
    }

    /// Adds the cells of a record, up to this column where there are several.
    fn add(&mut self, record: &[u8], last: Option<u16>) {
        let Some((row, column)) = short(record, 0).zip(short(record, 2)) else { return };
        let last = last.unwrap_or(column).max(column);
        let [first_row, last_row, first, end] = self.0.unwrap_or([row, row, column, last]);
        self.0 = Some([first_row.min(row), last_row.max(row), first.min(column), end.max(last)]);
    }

    fn cells(&self) -> u64 {
        let extent = |first: u16, last: u16| u64::from(last - first) + 1;
        self.0.map_or(0, |[first_row, last_row, first, last]| extent(first_row, last_row) * extent(first, last))
    }
}

/// Whether the dimensions that a sheet claims are those of one. The ends are those after the last row and column.
fn is_sheet(record: &[u8]) -> bool {
    let wide = |at| short(record, at).map(u64::from);
    let rows =
        if record.len() == 10 { wide(0).zip(wide(2)) } else { long(record, 0).zip(long(record, 4)).map(|(a, b)| (a.into(), b.into())) };
    let at = if record.len() == 10 { 4 } else { 8 };
    let Some(((first_row, end_row), (first, end))) = rows.zip(wide(at).zip(wide(at + 2))) else { return true };
    // Calamine takes a first column that cannot be for 0.
    let first = if first > 0xff || first > end { 0 } else { first };
    end_row == 0 || end == 0 || (first_row < end_row && (end_row - first_row) * (end - first).max(1) <= CLAIMED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    fn record(kind: u16, bytes: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &(bytes.len() as u16).to_le_bytes(), bytes].concat()
    }

    fn shorts(numbers: &[u16]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// A workbook of one sheet with these records.
    fn workbook(sheet: &[Vec<u8>]) -> Vec<u8> {
        let globals = [record(kind::BOF, &[0; 16]), record(kind::BOUND_SHEET, &36u32.to_le_bytes()), record(kind::EOF, &[])].concat();
        let globals = [globals, vec![0; 4]].concat();
        let sheet = [record(kind::BOF, &[0; 16]), sheet.concat(), record(kind::EOF, &[])].concat();
        let mut container = CompoundFile::create(Cursor::new(Vec::new())).unwrap();
        container.create_stream("Workbook").unwrap().write_all(&[globals, sheet].concat()).unwrap();
        container.into_inner().into_inner()
    }

    fn result(sheet: &[Vec<u8>]) -> Result<(), String> {
        check(Cursor::new(workbook(sheet)), "a.xls").map_err(|error| error.to_string())
    }

    #[test]
    fn cells_far_apart_are_refused() {
        let cell = |row, column| record(0x0203, &[shorts(&[row, column, 0]), vec![0; 8]].concat());
        assert_eq!(result(&[cell(0, 0), cell(60_000, 100)]), Ok(()));
        assert_eq!(result(&[cell(60_000, 255)]), Ok(()), "alone, and nowhere far from");
        insta::assert_snapshot!(result(&[cell(0, 0), cell(65_535, 255)]).unwrap_err(), @"invalid data: a.xls has cells far apart, and would take 16777216 cells in memory, more than 8388608, and is not read; delete the cells that stand alone, or save it as .xlsx");
        let several = record(kind::MUL_RK, &shorts(&[65_535, 3, 0, 0, 0, 60_000]));
        assert!(result(&[cell(0, 0), several]).is_err());
        let chart = [record(kind::BOF, &[0; 16]), cell(65_535, 65_535), record(kind::EOF, &[])].concat();
        assert_eq!(result(&[cell(0, 0), chart]), Ok(()), "the numbers of a chart are no cells");
    }

    #[test]
    fn a_sheet_that_claims_too_much_is_refused() {
        let claim = |rows: u32, columns: u16| {
            record(kind::DIMENSIONS, &[&0u32.to_le_bytes()[..], &rows.to_le_bytes(), &shorts(&[0, columns, 0])].concat())
        };
        assert_eq!(result(&[claim(65_536, 256)]), Ok(()));
        insta::assert_snapshot!(result(&[claim(u32::MAX, 256)]).unwrap_err(), @r#"invalid data: a.xls claims a sheet larger than any can be, and is not read; if it is what it should be, save it as "CSV UTF-8""#);
        let backwards = [shorts(&[9, 3, 0, 5, 0])].concat();
        assert!(result(&[record(kind::DIMENSIONS, &backwards)]).is_err());
    }
}
