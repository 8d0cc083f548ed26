//! Reads one file, a chunk of whole rows at a time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use reunion_sdk::{PluginError, Reason, RejectedBuilder, limits};
use xxhash_rust::xxh3::Xxh3;

use super::columns::Rows;
use super::encoding::{self, Decoded};
use super::layout::Layout;
use super::scan::{Cell, Fault, Row, Scanned, Scanner, find_marks};
use crate::config::Config;
use crate::listing::read_error;
use crate::table::{self, Chunk, Place, Projection};

/// Reads one file from a place on. Between two chunks it stands between two rows, and its place says all
/// that is needed to go on from there.
pub struct FileReader {
    file: File,
    name: String,
    config: Arc<Config>,
    layout: Layout,
    projection: Projection,
    chunk_bytes: usize,
    /// Bytes that were read and not consumed.
    raw: Vec<u8>,
    /// How many of them are lines of a row that does not end in them.
    carried: usize,
    /// The file has no more.
    is_at_end: bool,
    /// Within a line that was rejected already.
    is_skipping: bool,
    /// So much of the text that comes next was part of a row that was rejected.
    strict: usize,
    offset: u64,
    line: u64,
    scratch: Scratch,
}

/// Buffers that each chunk uses anew.
#[derive(Default)]
struct Scratch {
    marks: Vec<u32>,
    cells: Vec<Cell>,
}

impl FileReader {
    /// A reader of `file` from a place on that reads `chunk_bytes` at once.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn new(
        mut file: File,
        name: String,
        config: Arc<Config>,
        (layout, projection): (Layout, Projection),
        from: Place,
        chunk_bytes: usize,
    ) -> io::Result<Self> {
        file.seek(SeekFrom::Start(from.bytes))?;
        Ok(Self {
            file,
            name,
            config,
            layout,
            projection,
            chunk_bytes,
            raw: Vec::new(),
            carried: 0,
            is_at_end: false,
            is_skipping: false,
            strict: 0,
            offset: from.bytes,
            line: from.row,
            scratch: Scratch::default(),
        })
    }

    fn read_chunk(&mut self, digest: &mut Xxh3) -> io::Result<Option<Chunk>> {
        loop {
            self.read_more()?;
            if self.raw.is_empty() && self.is_at_end {
                return Ok(None);
            }
            if self.is_skipping {
                return Ok(Some(self.skip_line(digest)));
            }
            if let Some(end) = self.parsable() {
                return Ok(Some(self.parse(end, digest)));
            }
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        if !self.is_at_end {
            let read = (&self.file).take(self.chunk_bytes as u64).read_to_end(&mut self.raw)?;
            self.is_at_end = read < self.chunk_bytes;
        }
        Ok(())
    }

    /// Takes what was read of a line that was rejected already.
    fn skip_line(&mut self, digest: &mut Xxh3) -> Chunk {
        let line_end = memchr::memchr(self.layout.dialect.line_end, &self.raw);
        self.is_skipping = line_end.is_none();
        Chunk { bytes: self.consume(line_end.map_or(self.raw.len(), |at| at + 1), digest), ..Chunk::default() }
    }

    fn consume(&mut self, bytes: usize, digest: &mut Xxh3) -> usize {
        digest.update(&self.raw[..bytes]);
        self.raw.drain(..bytes);
        self.offset += bytes as u64;
        bytes
    }

    /// How much of what was read can be parsed: whole lines, of which at least one is new. `None`
    /// asks for more.
    fn parsable(&self) -> Option<usize> {
        if self.is_at_end {
            return Some(self.raw.len());
        }
        let whole = memchr::memrchr(self.layout.dialect.line_end, &self.raw).map_or(0, |at| at + 1);
        if whole > self.carried {
            return Some(whole);
        }
        // Two bytes may become one, and no row is longer than the limit.
        (self.raw.len() > 2 * self.config.row_bytes_max + self.chunk_bytes).then_some(self.raw.len())
    }

    fn parse(&mut self, end: usize, digest: &mut Xxh3) -> Chunk {
        let dialect = self.layout.dialect;
        let mut scratch = std::mem::take(&mut self.scratch);
        let raw = &self.raw[..end];
        let decoded = encoding::decode(raw, self.layout.encoding, dialect.line_end, self.line);
        find_marks(decoded.text.as_bytes(), dialect, &mut scratch.marks);
        let is_last = self.is_at_end;
        let mut scanner = Scanner::new(decoded.text.as_bytes(), &scratch.marks, dialect, self.config.row_bytes_max, is_last, self.line)
            .strict(self.strict);
        let mut sorter = Sorter::new(self, &decoded);
        let is_open = sorter.sort(&mut scanner, &mut scratch.cells);
        let chunk = sorter.chunk;
        let rest = if is_open { 0 } else { rest_bytes(raw, scanner.rest(), dialect.line_end) };
        self.strict = scanner.strict_rest();
        self.line = scanner.line();
        self.scratch = scratch;
        self.is_skipping = is_open;
        self.carried = rest;
        Chunk { bytes: self.consume(end - rest, digest), ..chunk }
    }
}

impl table::Rows for FileReader {
    fn next_chunk(&mut self, digest: &mut Xxh3) -> Result<Option<Chunk>, PluginError> {
        self.read_chunk(digest).map_err(|error| read_error(&self.name, &error))
    }

    fn place(&self) -> Option<Place> {
        (!self.is_skipping && self.strict == 0).then_some(Place { bytes: self.offset, row: self.line })
    }
}

/// The bytes of the file that became `rest`, the end of a text: as many lines as it has.
fn rest_bytes(raw: &[u8], rest: &[u8], line_end: u8) -> usize {
    if rest.is_empty() {
        return 0;
    }
    let lines = memchr::memchr_iter(line_end, rest).count();
    let before = memchr::memrchr_iter(line_end, raw).nth(lines);
    raw.len() - before.map_or(0, |at| at + 1)
}

/// Sorts the rows of a text into those that were read and those that could not be.
struct Sorter<'r> {
    reader: &'r FileReader,
    decoded: &'r Decoded<'r>,
    has_nul: bool,
    chunk: Chunk,
    rejected: RejectedBuilder,
}

impl<'r> Sorter<'r> {
    fn new(reader: &'r FileReader, decoded: &'r Decoded<'r>) -> Self {
        let has_nul = memchr::memchr(0, decoded.text.as_bytes()).is_some();
        Self { reader, decoded, has_nul, chunk: Chunk::default(), rejected: RejectedBuilder::new() }
    }

    /// All rows; true where the last line goes on behind the text and is to be skipped.
    fn sort(&mut self, scanner: &mut Scanner<'_>, cells: &mut Vec<Cell>) -> bool {
        let width = self.reader.layout.names.len();
        cells.clear();
        let is_open = loop {
            let before = cells.len();
            match scanner.next_row(cells) {
                Scanned::Row(row) => {
                    if !self.is_good(&row, &cells[before..], scanner) {
                        cells.truncate(before);
                    } else if cells.len() == width * limits::BATCH_ROWS_MAX {
                        self.flush(cells);
                    }
                }
                Scanned::Broken { line, fault, open } => {
                    self.reject_broken(line, fault);
                    if open {
                        break true;
                    }
                }
                Scanned::Incomplete | Scanned::End => break false,
            }
        };
        self.flush(cells);
        self.flush_rejected();
        is_open
    }

    /// Whether the row can be read. One that cannot is rejected, and one without any value is not.
    fn is_good(&mut self, row: &Row, cells: &[Cell], scanner: &mut Scanner<'_>) -> bool {
        let width = self.reader.layout.names.len();
        if cells.iter().all(|cell| cell.is_empty()) {
            return false;
        }
        if cells.len() != width {
            self.reject_ragged(row, cells.len());
            scanner.reject(row);
            return false;
        }
        if self.is_damaged(row.line..row.line + row.lines) {
            self.reject_damaged(row);
            return false;
        }
        if self.has_nul && memchr::memchr(0, &self.decoded.text.as_bytes()[row.start..row.end]).is_some() {
            self.reject(row.line, Reason::RowNul, "the row holds a zero byte");
            return false;
        }
        true
    }

    fn is_damaged(&self, lines: Range<u64>) -> bool {
        let damaged = &self.decoded.damaged;
        damaged.get(damaged.partition_point(|&line| line < lines.start)).is_some_and(|line| lines.contains(line))
    }

    fn reject_ragged(&mut self, row: &Row, cells: usize) {
        let width = self.reader.layout.names.len();
        let text = &self.decoded.text[row.start..row.end];
        if self.is_damaged(row.line..row.line + 1) {
            self.reject_damaged(row);
        } else if row.ends_file && text == "\x1a" {
            // The end mark of DOS.
        } else if row.ends_file && cells < width {
            self.reject(row.line, Reason::RowTruncated, &format!("the file ends after {cells} of {width} cells, without a line end"));
        } else {
            self.reject(row.line, Reason::RowRagged, &format!("{cells} cells, and the header has {width}"));
        }
    }

    fn reject_damaged(&mut self, row: &Row) {
        self.reject(row.line, Reason::RowBadEncoding, &format!("bytes that are no {}", self.reader.layout.encoding.name()));
    }

    fn reject_broken(&mut self, line: u64, fault: Fault) {
        match fault {
            Fault::TooLong => {
                let limit = self.reader.config.row_bytes_max;
                self.reject(line, Reason::RowTooLong, &format!("longer than {limit} bytes, or a quote that is never closed"));
            }
            Fault::Truncated => self.reject(line, Reason::RowTruncated, "the file ends inside a quoted cell"),
            Fault::StrayQuote => self.reject(line, Reason::RowRagged, "probably the end of the rejected row above"),
            Fault::AfterQuote => self.reject(line, Reason::RowRagged, "text between a closing quote and the next delimiter"),
        }
    }

    fn reject(&mut self, line: u64, reason: Reason, detail: &str) {
        self.rejected.push(&format!("{}:{line}", self.reader.name), reason, Some(detail));
        if self.rejected.len() == limits::BATCH_ROWS_MAX {
            self.flush_rejected();
        }
    }

    fn flush_rejected(&mut self) {
        if !self.rejected.is_empty() {
            self.chunk.rows += self.rejected.len();
            self.chunk.rejected.push(self.rejected.finish());
        }
    }

    fn flush(&mut self, cells: &mut Vec<Cell>) {
        if cells.is_empty() {
            return;
        }
        let Layout { names, dialect, .. } = &self.reader.layout;
        let rows = Rows { text: &self.decoded.text, cells, width: names.len(), quote: dialect.quote, nulls: &self.reader.config.nulls };
        let columns = rows.columns(&self.reader.projection.places);
        let batch = RecordBatch::try_new(Arc::clone(&self.reader.projection.schema), columns)
            .expect("the columns are those of the schema, all of one length");
        self.chunk.rows += batch.num_rows();
        self.chunk.batches.push(batch);
        cells.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Rows as _;
    use crate::text::encoding::Encoding;
    use crate::text::scan::Dialect;
    use proptest::prelude::*;
    use reunion_sdk::arrow::array::AsArray;
    use reunion_sdk::arrow::datatypes::{DataType, Field, Schema};
    use serde_json::json;

    fn reader(bytes: &[u8], encoding: Encoding, row_bytes_max: usize, chunk_bytes: usize, place: Place) -> FileReader {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        let mut config: Config = serde_json::from_value(json!({"path": "f.csv"})).unwrap();
        config.row_bytes_max = row_bytes_max;
        let dialect = Dialect { delimiter: b',', quote: Some(b'"'), line_end: b'\n' };
        let names = vec!["a".to_owned(), "b".to_owned()];
        let schema = Arc::new(Schema::new(names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>()));
        let layout = Layout { encoding, dialect, names, offset: 0, line: 1 };
        let projection = Projection { schema, places: vec![0, 1] };
        FileReader::new(file, "f.csv".into(), Arc::new(config), (layout, projection), place, chunk_bytes).unwrap()
    }

    const START: Place = Place { bytes: 0, row: 1 };

    /// Rows as `a|b` and rejected rows as `17 row_nul`, each in their order.
    #[derive(Debug, Default, Clone, PartialEq)]
    struct Found {
        rows: Vec<String>,
        rejected: Vec<String>,
    }

    impl Found {
        fn add(&mut self, chunk: &Chunk) {
            for batch in &chunk.batches {
                let (a, b) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
                self.rows.extend(a.iter().zip(b).map(|(a, b)| format!("{}|{}", a.unwrap_or("-"), b.unwrap_or("-"))));
            }
            for batch in &chunk.rejected {
                let (location, reason) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
                let line = |location: &str| location.strip_prefix("f.csv:").unwrap().to_owned();
                self.rejected
                    .extend(location.iter().flatten().zip(reason.iter().flatten()).map(|(at, reason)| format!("{} {reason}", line(at))));
            }
        }
    }

    /// Where a reader stands after a chunk, and what it has found by then.
    type Stop = (Place, Found);

    /// What is read, and after each chunk the place and how much had been found.
    fn read(mut reader: FileReader) -> (Found, Vec<Stop>, u128) {
        let (mut found, mut places, mut digest) = (Found::default(), Vec::new(), Xxh3::new());
        while let Some(chunk) = reader.next_chunk(&mut digest).unwrap() {
            found.add(&chunk);
            places.extend(reader.place().map(|place| (place, found.clone())));
        }
        (found, places, digest.digest128())
    }

    fn found(bytes: &[u8]) -> Found {
        read(reader(bytes, Encoding::Utf8, 100, 1 << 20, START)).0
    }

    #[test]
    fn each_defect_has_its_reason_and_harms_no_row_beside_it() {
        let bytes = [
            b"1,ok\n2\n3,x,y\n\n,\n,,,\n7,nul\0\n8,\xff\n9,\"open\n10,ok\n".as_slice(),
            b"11,\"a\"b\n12,\"two\nlines\"\n14,\"two\nlines\",x\n",
            &[b'x'; 200],
            b"\n17,\"\xff\n\"\n19,\n20,last",
        ];
        let Found { rows, rejected } = found(&bytes.concat());
        assert_eq!(rows, ["1|ok", "10|ok", "12|two\nlines", "19|-", "20|last"]);
        let expected = [
            "2 row_ragged",
            "3 row_ragged",
            "7 row_nul",
            "8 row_bad_encoding",
            "9 row_ragged",
            "11 row_ragged",
            "14 row_ragged",
            "15 row_ragged",
            "16 row_too_long",
            "17 row_bad_encoding",
        ];
        assert_eq!(rejected, expected);
    }

    #[test]
    fn a_file_that_was_cut_off_says_so() {
        assert_eq!(found(b"1,a\n2").rejected, ["2 row_truncated"]);
        assert_eq!(found(b"1,a\n2,\"b").rejected, ["2 row_truncated"]);
        assert_eq!(found(b"1,a\n2,\"b\n").rejected, ["2 row_truncated"]);
        assert_eq!(found(b"1,a\n2\n").rejected, ["2 row_ragged"]);
        assert_eq!(found(b"1,a\r\n\x1a"), Found { rows: vec!["1|a".into()], rejected: vec![] });
        assert_eq!(found(b"1,\"a\n2,b\n3,c\n"), Found { rows: vec!["2|b".into(), "3|c".into()], rejected: vec!["1 row_too_long".into()] });
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let bytes = [b"1,a\n2,\"b\n".as_slice(), &vec![b'x'; 5000], b"\"\n4,c\n", &vec![b'y'; 5000]].concat();
        let mut reader = reader(&bytes, Encoding::Utf8, 100, 64, START);
        let (mut found, mut digest) = (Found::default(), Xxh3::new());
        while let Some(chunk) = reader.next_chunk(&mut digest).unwrap() {
            found.add(&chunk);
            assert!(reader.raw.len() <= 2 * 100 + 2 * 64);
        }
        assert_eq!(found.rows, ["1|a", "4|c"]);
        assert_eq!(found.rejected, ["2 row_too_long", "3 row_too_long", "5 row_too_long"]);
    }

    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just(b",".to_vec()),
            3 => Just(b"\n".to_vec()),
            2 => Just(b"\"".to_vec()),
            1 => Just(b"\r\n".to_vec()),
            1 => Just(b"\0".to_vec()),
            1 => Just(b"\xe5".to_vec()),
            1 => Just(b"\x81\x30".to_vec()),
            2 => Just("张".as_bytes().to_vec()),
            1 => Just(b"\xd5\xc5".to_vec()),
            1 => Just(vec![b'x'; 60]),
            4 => "[a-c0-9]{1,4}".prop_map(String::into_bytes),
        ];
        prop::collection::vec(piece, 0..120).prop_map(|pieces| pieces.concat())
    }

    /// A row that may be written, and what becomes of it.
    fn written() -> impl Strategy<Value = (String, Option<(String, String)>)> {
        let cell = || ("[a-c张三0-9]{1,6}", any::<bool>()).prop_map(|(text, quoted)| if quoted { format!("\"{text}\"") } else { text });
        let plain = |cell: &str| cell.trim_matches('"').to_owned();
        prop_oneof![
            6 => (cell(), cell(), any::<bool>()).prop_map(move |(a, b, cr)| {
                (format!("{a},{b}{}", if cr { "\r\n" } else { "\n" }), Some((plain(&a), plain(&b))))
            }),
            1 => Just((",\n".to_owned(), Some((String::new(), String::new())))),
            1 => cell().prop_map(|a| (format!("{a}\n"), None)),
            1 => cell().prop_map(|a| (format!("{a},b,c\n"), None)),
            1 => cell().prop_map(|a| (format!("{a},\"never closed\n"), None)),
            1 => cell().prop_map(|a| (format!("{a},\0\n"), None)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn rows_depend_neither_on_chunks_nor_on_interruptions(
            bytes in soup(), chunk_bytes in 1usize..80, row_bytes_max in 8usize..200, old in any::<bool>(),
        ) {
            let encoding = if old { Encoding::Gb18030 } else { Encoding::Utf8 };
            let (whole, _, digest) = read(reader(&bytes, encoding, row_bytes_max, 1 << 20, START));
            let (parts, places, parts_digest) = read(reader(&bytes, encoding, row_bytes_max, chunk_bytes, START));
            prop_assert_eq!(&parts, &whole);
            prop_assert_eq!(parts_digest, digest, "all bytes are seen");
            for (place, before) in places {
                let (rest, ..) = read(reader(&bytes, encoding, row_bytes_max, 1 << 20, place));
                let rows = [before.rows, rest.rows].concat();
                let rejected = [before.rejected, rest.rejected].concat();
                prop_assert_eq!(&Found { rows, rejected }, &whole, "from {:?}", place);
            }
        }

        #[test]
        fn every_row_is_read_or_rejected_or_empty(rows in prop::collection::vec(written(), 0..60), chunk_bytes in 1usize..200, old in any::<bool>()) {
            let text: String = rows.iter().map(|(text, _)| text.as_str()).collect();
            let (bytes, encoding) = if old {
                (encoding_rs::GB18030.encode(&text).0.into_owned(), Encoding::Gb18030)
            } else {
                (text.into_bytes(), Encoding::Utf8)
            };
            let (found, ..) = read(reader(&bytes, encoding, 1000, chunk_bytes, START));
            let good: Vec<_> = rows.iter().filter_map(|(_, good)| good.as_ref()).filter(|(a, _)| !a.is_empty()).map(|(a, b)| format!("{a}|{b}")).collect();
            prop_assert_eq!(found.rows, good);
            let lines: Vec<_> = (1..).zip(&rows).filter(|(_, (_, good))| good.is_none()).map(|(line, _)| line.to_string()).collect();
            let rejected: Vec<_> = found.rejected.iter().map(|row| row.split(' ').next().unwrap().to_owned()).collect();
            prop_assert_eq!(rejected, lines);
        }
    }
}
