//! Finds rows and cells in a text, and where to go on after a row that cannot be read.
//!
//! In two passes: [`find_marks`] lists the positions of every delimiter, quote and line end, with
//! plain loops over 64 bytes that the compiler turns into vector instructions; [`Scanner`] then steps
//! from mark to mark and never looks at the bytes between them.

/// The bytes that structure a text. Each is ASCII, so that a cut at one never splits a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Between two cells.
    pub delimiter: u8,
    /// Around a cell that holds delimiters or line ends; doubled, it stands for itself.
    pub quote: Option<u8>,
    /// After each row: `\n`, with a `\r` before it or not, or `\r` alone as old Macs write.
    pub line_end: u8,
}

/// A cell's place in the text, without its quotes.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    start: u32,
    /// The length, with the highest bit set where doubled quotes are to be made one.
    len: u32,
}

const ESCAPES: u32 = 1 << 31;

impl Cell {
    fn new(start: usize, end: usize, escapes: bool) -> Self {
        let flag = if escapes { ESCAPES } else { 0 };
        Self { start: offset(start), len: offset(end - start) | flag }
    }

    /// Bytes of the cell as it stands in the text.
    pub fn len(self) -> usize {
        (self.len & !ESCAPES) as usize
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The cell's bytes, doubled quotes still doubled.
    pub fn raw(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.start as usize + self.len()]
    }

    /// Whether [`Cell::raw`] holds doubled quotes.
    pub fn has_escapes(self) -> bool {
        self.len & ESCAPES != 0
    }

    /// Appends the cell's value.
    pub fn append_to(self, text: &[u8], quote: Option<u8>, out: &mut Vec<u8>) {
        let mut rest = self.raw(text);
        if let (true, Some(quote)) = (self.has_escapes(), quote) {
            while let Some(at) = memchr::memchr(quote, rest) {
                out.extend_from_slice(&rest[..=at]);
                rest = &rest[(at + 2).min(rest.len())..];
            }
        }
        out.extend_from_slice(rest);
    }
}

/// Positions are kept in 32 bits: texts are chunks of a few mebibytes.
fn offset(at: usize) -> u32 {
    debug_assert!(at < ESCAPES as usize, "a chunk is far below 2 GiB");
    at as u32
}

/// A row that was found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Where it starts in the text.
    pub start: usize,
    /// Where it ends, before its line end.
    pub end: usize,
    /// The number of its first line.
    pub line: u64,
    /// How many lines it takes.
    pub lines: u64,
    /// The file ends with it, and no line end follows.
    pub ends_file: bool,
}

/// Why no row can be made of what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Longer than the limit, or a quote that is never closed.
    TooLong,
    /// The file ends inside a quoted cell of its last line.
    Truncated,
    /// Text between a closing quote and the next delimiter.
    AfterQuote,
    /// A quote within a cell that is not quoted, on a line of a row that was rejected: probably the end
    /// of that row's last cell, which would pass for a row of its own.
    StrayQuote,
}

/// What [`Scanner::next_row`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// A row; its cells were appended.
    Row(Row),
    /// A row that cannot be read, starting on this line. No cells were appended, and the scanner
    /// stands behind the row's first line.
    Broken {
        /// The number of its first line.
        line: u64,
        /// Why.
        fault: Fault,
        /// Its first line goes on behind the text: whoever holds the rest has to skip it.
        open: bool,
    },
    /// The text ends inside a row that may go on behind it. The scanner stands before that row.
    Incomplete,
    /// Nothing is left.
    End,
}

/// Lists where delimiters, quotes and line ends stand.
pub fn find_marks(text: &[u8], dialect: Dialect, marks: &mut Vec<u32>) {
    const BLOCK: usize = 64;
    marks.clear();
    let quote = dialect.quote.unwrap_or(dialect.line_end);
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let mut base = 0;
    for block in blocks {
        let mut hits = [0u8; BLOCK];
        for (hit, &byte) in hits.iter_mut().zip(block) {
            *hit = u8::from(byte == dialect.delimiter) | u8::from(byte == quote) | u8::from(byte == dialect.line_end);
        }
        let mut bits = 0u64;
        for (at, word) in hits.as_chunks::<8>().0.iter().enumerate() {
            // Gathers the lowest bits of eight bytes into one byte.
            let gathered = u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            bits |= gathered << (8 * at);
        }
        while bits != 0 {
            marks.push(base + bits.trailing_zeros());
            bits &= bits - 1;
        }
        base += BLOCK as u32;
    }
    for (&byte, at) in rest.iter().zip(base..) {
        if byte == dialect.delimiter || byte == quote || byte == dialect.line_end {
            marks.push(at);
        }
    }
}

/// Steps through the rows of a text.
///
/// A row that cannot be read costs its first line only: reading goes on at the next line, so that
/// one quote that is never closed does not swallow the rows behind it. On the lines that such a row
/// had taken, quotes within unquoted cells are not suffered, so that no piece of it passes for a row.
pub struct Scanner<'t> {
    text: &'t [u8],
    marks: &'t [u32],
    dialect: Dialect,
    row_bytes_max: usize,
    /// Nothing follows the text.
    is_last: bool,
    /// Text before this place was part of a row that was rejected.
    strict_until: usize,
    at: usize,
    mark: usize,
    line: u64,
}

impl<'t> Scanner<'t> {
    /// A scanner over `text`, whose marks are `marks` and whose first line has the number `line`.
    pub fn new(text: &'t [u8], marks: &'t [u32], dialect: Dialect, row_bytes_max: usize, is_last: bool, line: u64) -> Self {
        Self { text, marks, dialect, row_bytes_max, is_last, strict_until: 0, at: 0, mark: 0, line }
    }

    /// The first so many bytes of the text were part of a row that was rejected.
    #[must_use]
    pub fn strict(mut self, bytes: usize) -> Self {
        self.strict_until = bytes;
        self
    }

    /// How many bytes of [`Scanner::rest`] were part of a row that was rejected.
    pub fn strict_rest(&self) -> usize {
        self.strict_until.saturating_sub(self.at)
    }

    /// The text that was not stepped over.
    pub fn rest(&self) -> &'t [u8] {
        &self.text[self.at..]
    }

    /// The number of the line that comes next.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next row, its cells appended to `cells`.
    pub fn next_row(&mut self, cells: &mut Vec<Cell>) -> Scanned {
        let start = self.at;
        if start == self.text.len() {
            return Scanned::End;
        }
        let cells_before = cells.len();
        match self.walk(cells) {
            Ok((end, next, lines)) => {
                let row = Row { start, end, line: self.line, lines, ends_file: end == self.text.len() };
                self.at = next;
                self.line += lines;
                Scanned::Row(row)
            }
            Err(fault) => {
                cells.truncate(cells_before);
                let Some(fault) = fault else {
                    self.mark = self.marks.partition_point(|&mark| (mark as usize) < start);
                    return Scanned::Incomplete;
                };
                if fault == Fault::AfterQuote {
                    self.strict_until = self.strict_until.max(self.marks[self.mark - 1] as usize + 1);
                }
                let line = self.line;
                let open = !self.skip_first_line(start);
                let is_cut_off = fault == Fault::TooLong && self.is_last && self.at == self.text.len() && self.within(start, self.at);
                Scanned::Broken { line, fault: if is_cut_off { Fault::Truncated } else { fault }, open }
            }
        }
    }

    /// Goes back to the second line of a row that was found and is of no use.
    pub fn reject(&mut self, row: &Row) {
        self.line = row.line;
        self.strict_until = self.strict_until.max(row.end);
        self.skip_first_line(row.start);
    }

    /// Stands behind the line that holds `start`; false where that line does not end in the text.
    fn skip_first_line(&mut self, start: usize) -> bool {
        let line_end = memchr::memchr(self.dialect.line_end, &self.text[start..]);
        self.at = line_end.map_or(self.text.len(), |at| start + at + 1);
        self.mark = self.marks.partition_point(|&mark| (mark as usize) < self.at);
        self.line += 1;
        line_end.is_some() || self.is_last
    }

    fn within(&self, start: usize, end: usize) -> bool {
        end - start <= self.row_bytes_max
    }

    /// Where the row that starts here ends, where the next one starts, and how many lines it takes.
    /// `Err(None)`: the text ends first.
    fn walk(&mut self, cells: &mut Vec<Cell>) -> Result<(usize, usize, u64), Option<Fault>> {
        let Dialect { delimiter, quote, line_end } = self.dialect;
        let text = self.text;
        let start = self.at;
        let mut lines = 1;
        let mut cell_start = start;
        'cell: loop {
            if quote.is_some() && text.get(cell_start).copied() == quote {
                self.mark += 1;
                let mut escapes = false;
                let close = loop {
                    let at = self.next_mark(start)?.ok_or_else(|| self.unclosed(start))?;
                    if Some(text[at]) == quote {
                        if text.get(at + 1).copied() != quote {
                            break at;
                        }
                        escapes = true;
                        self.mark += 1;
                    } else if text[at] == line_end {
                        lines += 1;
                    }
                };
                let behind = close + 1;
                if !self.within(start, behind) {
                    return Err(Some(Fault::TooLong));
                }
                let cell = Cell::new(cell_start + 1, close, escapes);
                match text.get(behind) {
                    Some(&byte) if byte == delimiter => {
                        cells.push(cell);
                        self.mark += 1;
                        cell_start = behind + 1;
                    }
                    Some(&byte) if byte == line_end => {
                        cells.push(cell);
                        self.mark += 1;
                        return Ok((behind, behind + 1, lines));
                    }
                    Some(b'\r') if text.get(behind + 1) == Some(&line_end) => {
                        cells.push(cell);
                        self.mark += 1;
                        return Ok((behind, behind + 2, lines));
                    }
                    None if self.is_last => {
                        cells.push(cell);
                        return Ok((behind, behind, lines));
                    }
                    None => return Err(self.too_long(start)),
                    Some(_) => return Err(Some(Fault::AfterQuote)),
                }
            } else {
                loop {
                    let Some(at) = self.next_mark(start)? else {
                        if !self.is_last {
                            return Err(self.too_long(start));
                        }
                        if !self.within(start, text.len()) {
                            return Err(Some(Fault::TooLong));
                        }
                        cells.push(Cell::new(cell_start, text.len(), false));
                        return Ok((text.len(), text.len(), lines));
                    };
                    if at < self.strict_until && Some(text[at]) == quote {
                        return Err(Some(Fault::StrayQuote));
                    }
                    if text[at] == delimiter {
                        cells.push(Cell::new(cell_start, at, false));
                        cell_start = at + 1;
                        continue 'cell;
                    }
                    if text[at] == line_end {
                        let end = if at > cell_start && line_end == b'\n' && text[at - 1] == b'\r' { at - 1 } else { at };
                        cells.push(Cell::new(cell_start, end, false));
                        return Ok((end, at + 1, lines));
                    }
                }
            }
        }
    }

    /// The next mark of the row that began at `start`; `None` where the text has no more.
    fn next_mark(&mut self, start: usize) -> Result<Option<usize>, Option<Fault>> {
        let Some(&at) = self.marks.get(self.mark) else { return Ok(None) };
        self.mark += 1;
        if self.within(start, at as usize) { Ok(Some(at as usize)) } else { Err(Some(Fault::TooLong)) }
    }

    /// What a quote that the text does not close means.
    fn unclosed(&self, start: usize) -> Option<Fault> {
        if self.is_last { Some(Fault::TooLong) } else { self.too_long(start) }
    }

    fn too_long(&self, start: usize) -> Option<Fault> {
        (!self.within(start, self.text.len())).then_some(Fault::TooLong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: Dialect = Dialect { delimiter: b',', quote: Some(b'"'), line_end: b'\n' };

    /// Rows as `line: cell|cell`, faults as `line: !fault`.
    fn scan_as(text: &str, dialect: Dialect, row_bytes_max: usize, is_last: bool) -> Vec<String> {
        let mut marks = Vec::new();
        find_marks(text.as_bytes(), dialect, &mut marks);
        let mut scanner = Scanner::new(text.as_bytes(), &marks, dialect, row_bytes_max, is_last, 1);
        let mut found = Vec::new();
        loop {
            let mut cells = Vec::new();
            match scanner.next_row(&mut cells) {
                Scanned::Row(row) => {
                    let cells: Vec<_> = cells
                        .iter()
                        .map(|cell| {
                            let mut value = Vec::new();
                            cell.append_to(text.as_bytes(), dialect.quote, &mut value);
                            String::from_utf8(value).unwrap()
                        })
                        .collect();
                    found.push(format!("{}: {}", row.line, cells.join("|")));
                }
                Scanned::Broken { line, fault, .. } => found.push(format!("{line}: !{fault:?}")),
                Scanned::Incomplete => {
                    found.push(format!("{}: ... {:?}", scanner.line(), String::from_utf8_lossy(scanner.rest())));
                    return found;
                }
                Scanned::End => return found,
            }
        }
    }

    fn scan(text: &str) -> Vec<String> {
        scan_as(text, CSV, 1000, true)
    }

    #[test]
    fn cells_of_every_kind() {
        assert_eq!(scan("a,b\n1,\"x, \"\"y\"\"\nz\"\r\n,\n\"\",\"\"\r\nlast,"), ["1: a|b", "2: 1|x, \"y\"\nz", "4: |", "5: |", "6: last|"]);
        assert_eq!(scan("a\"b, \"c\"\r\n\r\n\"\"\"\""), ["1: a\"b| \"c\"", "2: ", "3: \""]);
        assert_eq!(scan("a\rb,c\n"), ["1: a\rb|c"]);
    }

    #[test]
    fn other_dialects() {
        let tsv = Dialect { delimiter: b'\t', quote: None, line_end: b'\n' };
        assert_eq!(scan_as("a\t\"b\nc\td\n", tsv, 1000, true), ["1: a|\"b", "2: c|d"]);
        let mac = Dialect { line_end: b'\r', ..CSV };
        assert_eq!(scan_as("a,b\rc,\"d\r\"\r", mac, 1000, true), ["1: a|b", "2: c|d\r"]);
    }

    #[test]
    fn an_unclosed_quote_costs_one_line() {
        assert_eq!(scan("a,b\nc,\"d\ne,f\ng,h\n"), ["1: a|b", "2: !TooLong", "3: e|f", "4: g|h"]);
        assert_eq!(scan("c,\"d\ne,\"f\"\n"), ["1: !AfterQuote", "2: e|f"]);
        assert_eq!(scan("a,b\nc,\"d"), ["1: a|b", "2: !Truncated"]);
        assert_eq!(scan("a,b\nc,\"d\n"), ["1: a|b", "2: !Truncated"]);
        assert_eq!(scan("a,\"b\"c\nd,e"), ["1: !AfterQuote", "2: d|e"]);
        assert_eq!(scan("a,\"b\nc\"d,e\nf\"g,h"), ["1: !AfterQuote", "2: !StrayQuote", "3: f\"g|h"]);
    }

    #[test]
    fn a_long_row_is_rejected_wherever_the_text_ends() {
        let text = format!("a,\"{}\nb,c\n", "x".repeat(20));
        for is_last in [false, true] {
            assert_eq!(scan_as(&text, CSV, 10, is_last), ["1: !TooLong", "2: b|c"]);
        }
        assert_eq!(scan_as("abcdefghijk\nb\n", CSV, 10, false), ["1: !TooLong", "2: b"]);
        assert_eq!(scan_as("abcdefghij\nb\n", CSV, 10, false), ["1: abcdefghij", "2: b"]);
        assert_eq!(scan_as("abcdefghijk", CSV, 10, false), ["1: !TooLong"]);
        assert_eq!(scan_as("abcdefghij", CSV, 10, false), ["1: ... \"abcdefghij\""]);
    }

    #[test]
    fn what_may_go_on_is_left_for_the_next_text() {
        assert_eq!(scan_as("a,b\nc,\"d\ne,f\n", CSV, 1000, false), ["1: a|b", "2: ... \"c,\\\"d\\ne,f\\n\""]);
    }

    #[test]
    fn marks_are_those_of_a_plain_search() {
        let text: Vec<u8> = (0..1000u32).map(|at| b"ab,\"\n\xe5"[(at * at % 37 % 6) as usize]).collect();
        for len in [0, 1, 63, 64, 65, 127, 128, 1000] {
            let mut marks = Vec::new();
            find_marks(&text[..len], CSV, &mut marks);
            let plain: Vec<u32> = (0..len as u32).filter(|&at| b",\"\n".contains(&text[at as usize])).collect();
            assert_eq!(marks, plain);
        }
    }
}
