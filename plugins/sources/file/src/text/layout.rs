//! What a file's beginning says: its encoding, its line ends, its columns, and where its rows start.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use reunion_sdk::{Call, ErrorClass, PluginError};

use super::encoding::{self, Declared, Encoding};
use super::scan::{Dialect, Scanned, Scanner, find_marks};
use crate::config::{Config, Header};
use crate::header::{self, Candidate, clean};
use crate::listing::{Entry, read_error};

const SAMPLE_BYTES: usize = 256 << 10;

/// How a file is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Its encoding.
    pub encoding: Encoding,
    /// Its delimiters, quotes and line ends.
    pub dialect: Dialect,
    /// The names of its columns.
    pub names: Vec<String>,
    /// The byte at which the first row after the header starts.
    pub offset: u64,
    /// The line of that row.
    pub line: u64,
}

/// Looks at the beginning of a file. `None`: there is nothing in it.
///
/// # Errors
/// Invalid data where it is no text, has no header, or the header cannot serve.
pub fn find(call: &Call, file: &mut File, entry: &Entry, config: &Config) -> Result<Option<Layout>, PluginError> {
    let (mut sample, is_whole) = sample(file, entry, config)?;
    if let Some((what, hint)) = encoding::foreign(&sample) {
        return Err(PluginError::new(ErrorClass::InvalidData, format!("{} is {what}, not CSV or TSV", entry.name)).hint(hint));
    }
    let has_bom = sample.starts_with(encoding::BOM);
    let skipped = if has_bom { encoding::BOM.len() } else { 0 };
    sample.drain(..skipped);
    if is_whole && sample.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let encoding = match config.encoding {
        _ if has_bom => Encoding::Utf8,
        Declared::Utf8 => Encoding::Utf8,
        Declared::Gb18030 => Encoding::Gb18030,
        Declared::Auto => {
            file.seek(SeekFrom::Start(skipped as u64)).map_err(|error| read_error(&entry.name, &error))?;
            encoding::detect(&mut *file, || call.check().map_err(io::Error::other)).map_err(|error| read_error(&entry.name, &error))?
        }
    };
    let line_end = if memchr::memchr(b'\n', &sample).is_none() && memchr::memchr(b'\r', &sample).is_some() { b'\r' } else { b'\n' };
    let dialect = Dialect { delimiter: config.delimiter_of(&entry.path, &sample), quote: config.quotes.then_some(b'"'), line_end };
    let at = |names, lines: u64| {
        let bytes =
            if lines == 0 { 0 } else { memchr::memchr_iter(line_end, &sample).nth(lines as usize - 1).map_or(sample.len(), |at| at + 1) };
        Layout { encoding, dialect, names, offset: (skipped + bytes) as u64, line: lines + 1 }
    };
    if config.header == Header::None {
        return Ok(Some(at(config.columns.clone(), 0)));
    }
    let rows = first_rows(&sample, is_whole, encoding, dialect, config);
    let header = header::pick(&rows, config.header, &entry.name)?;
    let place = format!("{}:{}", entry.name, header.line);
    if header.is_damaged {
        let message = format!("{place}: the header is not {}", encoding.name());
        return Err(PluginError::new(ErrorClass::InvalidData, message).hint("declare the file's encoding").key("encoding"));
    }
    refuse_strange(header, &place)?;
    let names = header::names(&header.cells, &place)?;
    let lines = header.line - 1 + header.lines;
    Ok(Some(at(names, lines)))
}

/// The first lines of a file, whole, and whether they are all of it.
fn sample(file: &mut File, entry: &Entry, config: &Config) -> Result<(Vec<u8>, bool), PluginError> {
    let failed = |error| read_error(&entry.name, &error);
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut sample = Vec::new();
    loop {
        let read = file.take(SAMPLE_BYTES as u64).read_to_end(&mut sample).map_err(failed)?;
        if read < SAMPLE_BYTES {
            return Ok((sample, true));
        }
        if let Some(at) = memchr::memrchr2(b'\n', b'\r', &sample) {
            sample.truncate(at + 1);
            return Ok((sample, false));
        }
        if sample.len() > 2 * config.row_bytes_max {
            if encoding::foreign(&sample).is_some() {
                return Ok((sample, false));
            }
            let message = format!("{}:1: the first line is longer than row_bytes_max, {} bytes", entry.name, config.row_bytes_max);
            return Err(PluginError::new(ErrorClass::InvalidData, message).hint("is this a text file?").key("row_bytes_max"));
        }
    }
}

fn first_rows(sample: &[u8], is_whole: bool, encoding: Encoding, dialect: Dialect, config: &Config) -> Vec<Candidate> {
    let decoded = encoding::decode(sample, encoding, dialect.line_end, 1);
    let text = decoded.text.as_bytes();
    let (mut marks, mut rows, mut cells) = (Vec::new(), Vec::new(), Vec::new());
    find_marks(text, dialect, &mut marks);
    let mut scanner = Scanner::new(text, &marks, dialect, config.row_bytes_max, is_whole, 1);
    while !header::is_enough(&rows, scanner.line(), config.header) {
        cells.clear();
        match scanner.next_row(&mut cells) {
            Scanned::Row(row) => {
                let cells: Vec<_> = cells
                    .iter()
                    .map(|cell| {
                        let mut value = Vec::new();
                        cell.append_to(text, dialect.quote, &mut value);
                        clean(&String::from_utf8_lossy(&value))
                    })
                    .collect();
                if cells.iter().any(|cell| !cell.is_empty()) {
                    let is_damaged = decoded.damaged.iter().any(|line| (row.line..row.line + row.lines).contains(line));
                    rows.push(Candidate { line: row.line, lines: row.lines, cells, is_damaged });
                }
            }
            Scanned::Broken { .. } => {}
            Scanned::Incomplete | Scanned::End => break,
        }
    }
    rows
}

/// What only a text's header can be: one cell because of another delimiter, or text of wide characters.
fn refuse_strange(header: &Candidate, place: &str) -> Result<(), PluginError> {
    let error = |message: String| PluginError::new(ErrorClass::InvalidData, format!("{place}: {message}"));
    if let [only] = &header.cells[..]
        && let Some(sign) = only.chars().find(|c| matches!(c, ',' | ';' | '\t' | '|'))
    {
        let message = format!("the header is one cell, and holds {sign:?}, which probably stands between columns");
        return Err(error(message).hint(format!("set delimiter = {:?}", sign.to_string())).key("delimiter"));
    }
    if header.cells.iter().any(|cell| cell.contains('\0')) {
        return Err(error("the header holds zero bytes: the file is UTF-16 or no text".into()).hint("save it as \"CSV UTF-8\""));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::tests::write;

    fn layout(bytes: &[u8], with: serde_json::Value) -> Result<Option<Layout>, String> {
        let folder = tempfile::tempdir().unwrap();
        let entry = write(&folder, "a.csv", bytes);
        let mut table = serde_json::json!({"path": entry.path});
        table.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        let config: Config = serde_json::from_value(table).unwrap();
        config.validate().unwrap();
        find(&Call::for_tests(), &mut File::open(&entry.path).unwrap(), &entry, &config).map_err(|error| error.to_string())
    }

    fn header(text: &str) -> (String, u64, u64) {
        let layout = layout(text.as_bytes(), serde_json::json!({})).unwrap().unwrap();
        (layout.names.join("|"), layout.offset, layout.line)
    }

    #[test]
    fn the_header_is_found_below_titles() {
        assert_eq!(header("手机,姓名\n13800138000,张三\n"), ("手机|姓名".into(), 14, 2));
        assert_eq!(header("\u{feff} phone ,\u{200b}name\r\n1,b\r\n"), ("phone|name".into(), 20, 2));
        assert_eq!(
            header("会员导出,,\n\n店铺,S001,2024-01-01\nphone,\"full\nname\",store\n1,b,c\n"),
            ("phone|full\nname|store".into(), 63, 6)
        );
        assert_eq!(header("phone,,name\n1,,b"), ("phone|column_2|name".into(), 12, 2));
        assert_eq!(header("phone,name\r1,b\r"), ("phone|name".into(), 11, 2));
    }

    #[test]
    fn the_header_may_be_declared() {
        let found = layout(b"x,y\n1,2\na,b\n3,4\n", serde_json::json!({"header": 3})).unwrap().unwrap();
        assert_eq!((found.names, found.offset, found.line), (vec!["a".into(), "b".into()], 12, 4));
        let found = layout(b"x|y\n", serde_json::json!({"header": "none", "columns": ["a", "b"], "delimiter": "|"})).unwrap().unwrap();
        assert_eq!((found.names.len(), found.offset, found.line), (2, 0, 1));
    }

    #[test]
    fn an_empty_file_has_no_layout() {
        for text in ["", "\u{feff}", " \r\n\n"] {
            assert_eq!(layout(text.as_bytes(), serde_json::json!({})), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_serve_is_named() {
        let of = |bytes: &[u8], with: serde_json::Value| layout(bytes, with).expect_err("an error");
        let errors = [
            of(b"a,b,a\n", serde_json::json!({})),
            of(b"phone;name\n1;b\n", serde_json::json!({})),
            of(b"1,2\n3,4\n", serde_json::json!({})),
            of("13800138000,张三\n".as_bytes(), serde_json::json!({})),
            of(b"a,b\n", serde_json::json!({"header": 2})),
            of(b"\xff\xfea\0,\0b\0\n\0", serde_json::json!({})),
            of(b"a\0,\0b\0\n\0", serde_json::json!({})),
            of(b"\xc3\xfb,b\n1,2\n", serde_json::json!({"encoding": "utf-8"})),
            of(&[b'x'; 300_000], serde_json::json!({"row_bytes_max": 1000})),
        ];
        insta::assert_snapshot!(errors.join("\n"), @r#"
        invalid data: a.csv:1: two columns are named "a", in places 1 and 3; give each column a name of its own
        invalid data: a.csv:1: the header is one cell, and holds ';', which probably stands between columns; set delimiter = ";"
        invalid data: a.csv: no header was found among the first 20 rows; name the header's line with `header = 3`, or use header = "none" with `columns`
        invalid data: a.csv: no header was found: line 1 looks most like one, and it holds numbers of seven digits or more; name the header's line with `header = 3`, or use header = "none" with `columns`
        invalid data: a.csv: no row starts on line 2, where `header` says the header is; name the header's line with `header = 3`, or use header = "none" with `columns`
        invalid data: a.csv is text in UTF-16 ("Unicode text" in Excel), not CSV or TSV; save it as "CSV UTF-8"
        invalid data: a.csv:1: the header holds zero bytes: the file is UTF-16 or no text; save it as "CSV UTF-8"
        invalid data: a.csv:1: the header is not UTF-8; declare the file's encoding
        invalid data: a.csv:1: the first line is longer than row_bytes_max, 1000 bytes; is this a text file?
        "#);
    }
}
