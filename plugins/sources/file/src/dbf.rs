//! Tables of dBASE III and IV, FoxBASE and FoxPro: .dbf.
//!
//! A header of 32 bytes and as many for each column, then rows of one length, each after a byte that says
//! whether it is deleted. What the header says of its encoding is not believed: programs in China write GBK
//! under any mark.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::datatypes::Field;
use encoding_rs::{Encoding, GB18030, UTF_8};
use jiff::Span;
use jiff::civil::{Date, date};
use reunion_sdk::{Call, ErrorClass, PluginError, Reason, limits};
use xxhash_rust::xxh3::Xxh3;

use crate::chunk::{ChunkBuilder, Row};
use crate::config::Config;
use crate::header;
use crate::listing::{Entry, Watched, read_error};
use crate::number;
use crate::table::{Chunk, Place, Projection, Rows, Table, text_field};
use crate::text::encoding::Declared;

const HEADER_BYTES: usize = 32;
const FIELD_BYTES: usize = 32;
const FIELDS_END: u8 = 0x0d;
const DELETED: u8 = b'*';
const KEPT: u8 = b' ';
/// 1970-01-01 in days as astronomers count them, which FoxPro does too.
const EPOCH_DAY: i32 = 2_440_588;

/// What the cells of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Text, filled up with spaces.
    Text,
    /// A number as text.
    Number,
    /// A day as text, 20240131.
    Day,
    /// One letter.
    Boolean,
    /// A day and milliseconds, 32 bits each.
    Moment,
    /// 32 bits.
    Integer,
    /// Ten-thousandths in 64 bits.
    Currency,
    /// 64 bits.
    Float,
}

/// Where a column stands in a row.
#[derive(Debug, Clone, Copy)]
struct Column {
    kind: Kind,
    start: usize,
    bytes: usize,
    /// The bit of the row's last column that says that it is null.
    null_bit: Option<usize>,
}

/// What a table's header says.
struct Layout {
    names: Vec<String>,
    columns: Vec<Column>,
    /// Where a row says which of its columns are null.
    null_flags: Option<(usize, usize)>,
    rows: u64,
    row_bytes: usize,
    /// Where the first row stands.
    start: u64,
    notices: Vec<String>,
}

/// A table that was looked at.
struct Dbf {
    file: Watched,
    entry: Entry,
    config: Arc<Config>,
    encoding: &'static Encoding,
    layout: Layout,
    fields: Vec<Field>,
}

/// Looks at the header of a table.
///
/// # Errors
/// Invalid data where it is none, or of a kind that is not read.
pub fn open(call: &Call, file: File, entry: &Entry, config: &Arc<Config>) -> Result<Box<dyn Table>, PluginError> {
    let encoding = if config.encoding == Declared::Utf8 { UTF_8 } else { GB18030 };
    let mut file = Watched::new(&file, call, &entry.name)?;
    let layout = read_layout(&mut file, &entry.name, encoding)?;
    let fields = layout.names.iter().map(|name| text_field(name)).collect();
    Ok(Box::new(Dbf { file, entry: entry.clone(), config: Arc::clone(config), encoding, layout, fields }))
}

fn read_layout(file: &mut Watched, name: &str, encoding: &'static Encoding) -> Result<Layout, PluginError> {
    let invalid = |message: &str| PluginError::new(ErrorClass::InvalidData, format!("{name} {message}"));
    let no_table = || invalid("is not a dBASE table (.dbf)").hint("write the file again, or set `format`");
    let failed = |error: io::Error| if error.kind() == io::ErrorKind::UnexpectedEof { no_table() } else { read_error(name, &error) };
    let mut head = [0; HEADER_BYTES];
    file.read_exact(&mut head).map_err(failed)?;
    match head[0] {
        0x02 | 0x03 | 0x05 | 0x30..=0x32 | 0x43 | 0x63 | 0x83 | 0x8b | 0xcb | 0xf5 | 0xfb => {}
        0x04 | 0x8c => return Err(invalid("is a table of dBASE 7, which is not read").hint("save it as dBASE IV or CSV")),
        _ => return Err(no_table()),
    }
    if head[15] == 1 {
        return Err(invalid("is encrypted").hint("save it without encryption"));
    }
    let short = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let (start, row_bytes) = (short(8), short(10));
    let rows = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
    let mut descriptors = vec![0; start.checked_sub(HEADER_BYTES).ok_or_else(no_table)?];
    file.read_exact(&mut descriptors).map_err(failed)?;
    let is_visual = (0x30..=0x32).contains(&head[0]);
    let mut layout =
        Layout { names: Vec::new(), columns: Vec::new(), null_flags: None, rows, row_bytes, start: start as u64, notices: Vec::new() };
    let mut at = 1;
    let mut null_bits = 0;
    for descriptor in descriptors.chunks_exact(FIELD_BYTES).take_while(|descriptor| descriptor[0] != FIELDS_END) {
        let field = Descriptor::read(descriptor, encoding)
            .ok_or_else(|| invalid("has a column whose name is no text in its encoding").key("encoding"))?;
        let bytes = field.bytes();
        let null_bit = field.take_bits(&mut null_bits);
        match field.kind(is_visual) {
            Ok(kind) => {
                layout.names.push(field.name);
                layout.columns.push(Column { kind, start: at, bytes, null_bit });
            }
            Err(_) if field.is_system() => layout.null_flags = Some((at, bytes)),
            Err(what) => layout.notices.push(format!("the column {:?} {what}, and is not read", field.name)),
        }
        at += bytes;
    }
    if at != row_bytes || layout.columns.is_empty() {
        return Err(no_table());
    }
    layout.names = header::names(&layout.names, name)?;
    Ok(layout)
}

/// What a header says of one column.
struct Descriptor {
    name: String,
    kind: u8,
    length: u8,
    decimals: u8,
    flags: u8,
}

impl Descriptor {
    const SYSTEM: u8 = 1;
    const NULLABLE: u8 = 2;

    /// `None` where the name is no text.
    fn read(bytes: &[u8], encoding: &'static Encoding) -> Option<Self> {
        let name = bytes[..11].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = encoding.decode_without_bom_handling_and_without_replacement(name)?;
        Some(Self { name: header::clean(&name), kind: bytes[11], length: bytes[16], decimals: bytes[17], flags: bytes[18] })
    }

    fn is_system(&self) -> bool {
        self.flags & Self::SYSTEM != 0
    }

    /// Bytes of a cell. Those of a text may be too many for one byte.
    fn bytes(&self) -> usize {
        let high = if self.kind == b'C' { usize::from(self.decimals) << 8 } else { 0 };
        usize::from(self.length) | high
    }

    /// The bit that says that the column is null. Columns of varying length have one more.
    fn take_bits(&self, bits: &mut usize) -> Option<usize> {
        *bits += usize::from(matches!(self.kind, b'V' | b'Q'));
        let bit = (self.flags & Self::NULLABLE != 0 && !self.is_system()).then_some(*bits);
        *bits += usize::from(bit.is_some());
        bit
    }

    /// What its cells are, or why they are not read.
    fn kind(&self, is_visual: bool) -> Result<Kind, &'static str> {
        let sized = |kind, bytes: u8| if self.length == bytes { Ok(kind) } else { Err("has cells of a strange length") };
        match self.kind {
            _ if self.is_system() => Err("is the table's own"),
            b'C' => Ok(Kind::Text),
            b'N' | b'F' => Ok(Kind::Number),
            b'D' => sized(Kind::Day, 8),
            b'L' => sized(Kind::Boolean, 1),
            b'T' => sized(Kind::Moment, 8),
            b'I' => sized(Kind::Integer, 4),
            b'Y' => sized(Kind::Currency, 8),
            b'B' if is_visual => sized(Kind::Float, 8),
            b'M' | b'G' | b'P' | b'B' | b'W' => Err("is a memo, which lies in another file"),
            _ => Err("is of a type that is not known"),
        }
    }
}

impl Table for Dbf {
    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn notices(&self) -> &[String] {
        &self.layout.notices
    }

    fn start(&self) -> Place {
        Place { bytes: self.entry.stat.size, row: 0 }
    }

    fn rows(self: Box<Self>, projection: Projection, from: Place) -> Result<Box<dyn Rows>, PluginError> {
        let Self { mut file, entry, config, encoding, layout, .. } = *self;
        tracing::debug!(file = entry.name, row = from.row, "reading");
        let start = layout.start + from.row * layout.row_bytes as u64;
        file.seek(SeekFrom::Start(start)).map_err(|error| read_error(&entry.name, &error))?;
        let mut is_read = vec![false; layout.columns.len()];
        projection.places.iter().for_each(|place| is_read[*place] = true);
        let row = Row::new(layout.columns.len());
        Ok(Box::new(DbfRows {
            file,
            name: entry.name,
            encoding,
            layout,
            is_read,
            row,
            chunk: ChunkBuilder::new(config, projection),
            place: from,
            deleted: 0,
        }))
    }
}

/// A table that is read.
struct DbfRows {
    file: Watched,
    name: String,
    encoding: &'static Encoding,
    layout: Layout,
    is_read: Vec<bool>,
    row: Row,
    chunk: ChunkBuilder,
    place: Place,
    deleted: u64,
}

impl Rows for DbfRows {
    fn next_chunk(&mut self, _: &mut Xxh3) -> Result<Option<Chunk>, PluginError> {
        let mut bytes = vec![0; self.layout.row_bytes];
        let first = self.place.row;
        while self.place.row < self.layout.rows && !self.chunk.is_full() && self.place.row - first < limits::BATCH_ROWS_MAX as u64 {
            self.file.read_exact(&mut bytes).map_err(|error| self.failed(&error))?;
            self.place.row += 1;
            self.take(&bytes);
        }
        if self.place.row == first {
            if self.deleted > 0 {
                tracing::warn!(file = self.name, rows = self.deleted, "rows that are marked as deleted are not read");
            }
            return Ok(None);
        }
        Ok(Some(self.chunk.finish()))
    }

    fn place(&self) -> Option<Place> {
        Some(self.place)
    }
}

impl DbfRows {
    fn failed(&self, error: &io::Error) -> PluginError {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            return read_error(&self.name, error);
        }
        let message = format!("{} says that it has {} rows, and ends after {}", self.name, self.layout.rows, self.place.row);
        PluginError::new(ErrorClass::InvalidData, message).hint("it was cut off while being written or copied: copy it again")
    }

    fn take(&mut self, bytes: &[u8]) {
        match bytes[0] {
            DELETED => {
                self.deleted += 1;
                return;
            }
            KEPT => {}
            _ => self.row.reject(Reason::RowRagged, || "no row starts here; the header may be of another table".to_owned()),
        }
        for place in 0..self.layout.columns.len() {
            if self.is_read[place] {
                self.take_cell(place, bytes);
            }
        }
        let (name, number) = (&self.name, self.place.row);
        self.chunk.take(&mut self.row, || format!("{name}:{number}"));
    }

    fn take_cell(&mut self, place: usize, bytes: &[u8]) {
        let column = self.layout.columns[place];
        if self.is_null(column, bytes) {
            return;
        }
        let cell = &bytes[column.start..column.start + column.bytes];
        let text = match column.kind {
            Kind::Text => match decode(cell, self.encoding) {
                Some(text) => text,
                None => return self.row.reject(Reason::RowBadEncoding, || format!("bytes that are no {}", self.encoding.name())),
            },
            Kind::Number | Kind::Day => match str::from_utf8(cell) {
                Ok(text) => text.trim_matches([' ', '\0']).to_owned(),
                Err(_) => {
                    return self
                        .row
                        .reject(Reason::RowBadEncoding, || format!("the column {:?} holds no number", self.layout.names[place]));
                }
            },
            _ => binary(column.kind, cell).unwrap_or_default(),
        };
        let start = self.row.text.len();
        match column.kind {
            Kind::Day => self.row.text.push_str(&day(&text)),
            // A number that did not fit.
            Kind::Number if text.bytes().all(|byte| byte == b'*') => {}
            _ => match number::unshortened(&text) {
                Ok(text) => self.row.text.push_str(&text),
                Err(rounded) => {
                    self.row.reject(Reason::RowDigitsLost, || format!("the column {:?} {}", self.layout.names[place], rounded.0));
                }
            },
        }
        self.row.cells[place] = start..self.row.text.len();
    }

    fn is_null(&self, column: Column, bytes: &[u8]) -> bool {
        let Some((bit, (start, length))) = column.null_bit.zip(self.layout.null_flags) else { return false };
        bit / 8 < length && bytes[start + bit / 8] >> (bit % 8) & 1 == 1
    }
}

/// A text without the spaces that fill it up. A character that was cut in two at its end is dropped.
fn decode(cell: &[u8], encoding: &'static Encoding) -> Option<String> {
    let filled = cell.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |at| at + 1);
    let text = |bytes| encoding.decode_without_bom_handling_and_without_replacement(bytes).map(|text| text.into_owned());
    let is_full = filled == cell.len();
    text(&cell[..filled]).or_else(|| if is_full { text(&cell[..filled - 1]) } else { None })
}

/// 2024-01-31 for 20240131; what is no day as it stands.
fn day(text: &str) -> String {
    let is_day = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text {
        "00000000" => String::new(),
        _ if is_day => format!("{}-{}-{}", &text[..4], &text[4..6], &text[6..]),
        _ => text.to_owned(),
    }
}

/// The text of a cell that is none. `None` where it is empty.
fn binary(kind: Kind, cell: &[u8]) -> Option<String> {
    let integer = |at: usize| cell.get(at..at + 4)?.try_into().ok().map(i32::from_le_bytes);
    let wide = || cell.try_into().ok();
    match kind {
        Kind::Boolean => match cell {
            [b'T' | b't' | b'Y' | b'y'] => Some("true".to_owned()),
            [b'F' | b'f' | b'N' | b'n'] => Some("false".to_owned()),
            _ => None,
        },
        Kind::Integer => integer(0).map(|number| number.to_string()),
        Kind::Currency => wide().map(i64::from_le_bytes).map(currency),
        Kind::Float => wide().map(f64::from_le_bytes).map(|number| number.to_string()),
        Kind::Moment => moment(integer(0)?, integer(4)?),
        Kind::Text | Kind::Number | Kind::Day => None,
    }
}

fn currency(amount: i64) -> String {
    let (sign, amount) = (if amount < 0 { "-" } else { "" }, amount.unsigned_abs());
    format!("{sign}{}.{:04}", amount / 10_000, amount % 10_000)
}

/// A day as astronomers count, and milliseconds of it.
fn moment(day: i32, millis: i32) -> Option<String> {
    const EPOCH: Date = date(1970, 1, 1);
    if day == 0 {
        return None;
    }
    let day = EPOCH.checked_add(Span::new().try_days(i64::from(day) - i64::from(EPOCH_DAY)).ok()?).ok()?;
    // FoxPro keeps whole seconds, and rounds.
    let seconds = (i64::from(millis) + 500) / 1000;
    Some(format!("{day} {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60))
}
