//! From a file's bytes to UTF-8.
//!
//! UTF-8 comes first: its text almost never passes for malformed GB18030, so that decoding it as
//! GB18030 would fail silently, while GB18030 text read as UTF-8 is malformed at once.

use std::borrow::Cow;
use std::io::{self, Read};

use encoding_rs::{GB18030, UTF_8};
use serde::{Deserialize, Serialize};

/// The encodings that a config may declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Declared {
    /// Found by [`detect`].
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// UTF-8, with a byte order mark or without.
    #[serde(rename = "utf-8", alias = "utf8", alias = "UTF-8")]
    Utf8,
    /// GB18030, which holds all of GBK and GB2312.
    #[serde(rename = "gb18030", alias = "gbk", alias = "gb2312", alias = "GB18030", alias = "GBK", alias = "GB2312")]
    Gb18030,
}

/// The encoding of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// GB18030.
    Gb18030,
}

impl Encoding {
    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Gb18030 => "GB18030",
        }
    }

    fn codec(self) -> &'static encoding_rs::Encoding {
        match self {
            Self::Utf8 => UTF_8,
            Self::Gb18030 => GB18030,
        }
    }
}

/// A byte order mark of UTF-8.
pub const BOM: &[u8] = b"\xef\xbb\xbf";
/// Bytes of text that are not ASCII at the beginning of which an encoding is told.
const EVIDENCE_BYTES: usize = 64 << 10;

/// The encoding of what `file` yields, by its first lines that are not ASCII: UTF-8 where at least
/// half of those within 64 KiB are well-formed UTF-8, else GB18030. All ASCII is UTF-8.
///
/// Lines that are not ASCII are looked for to the end of the file, so that one whose first Chinese
/// name comes late is still told right. `look` is called before each read, and may end the search.
///
/// # Errors
/// Those of reading and of `look`.
pub fn detect(mut file: impl Read, look: impl Fn() -> io::Result<()>) -> io::Result<Encoding> {
    let mut buffer = vec![0; 2 * EVIDENCE_BYTES];
    // What of the last line has been read and is not ended.
    let mut kept = 0;
    loop {
        look()?;
        let read = fill(&mut file, &mut buffer[kept..])?;
        let filled = kept + read;
        let Some(first) = buffer[..filled].iter().position(|byte| !byte.is_ascii()) else {
            if read == 0 {
                return Ok(Encoding::Utf8);
            }
            kept = 0;
            continue;
        };
        if first > 0 && filled == buffer.len() {
            // Makes room for the lines after the first that is not ASCII.
            let line = memchr::memrchr2(b'\n', b'\r', &buffer[..first]).map_or(first, |at| at + 1);
            buffer.copy_within(line..filled, 0);
            kept = filled - line;
            let read = fill(&mut file, &mut buffer[kept..])?;
            return Ok(judge(&buffer[..kept + read], kept + read < buffer.len()));
        }
        return Ok(judge(&buffer[..filled], filled < buffer.len()));
    }
}

/// Reads until `buffer` is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn judge(sample: &[u8], is_whole: bool) -> Encoding {
    let end = if is_whole { sample.len() } else { memchr::memrchr2(b'\n', b'\r', sample).map_or(sample.len(), |at| at + 1) };
    let (mut well_formed, mut malformed) = (0usize, 0usize);
    for line in sample[..end].split(|&byte| byte == b'\n' || byte == b'\r').filter(|line| !line.is_ascii()) {
        match std::str::from_utf8(line) {
            Ok(_) => well_formed += 1,
            // A line that is cut off at the sample's end.
            Err(error) if error.error_len().is_none() && !is_whole && end == sample.len() => well_formed += 1,
            Err(_) => malformed += 1,
        }
    }
    if well_formed >= malformed { Encoding::Utf8 } else { Encoding::Gb18030 }
}

/// What the first bytes of a file say that it is, where that is no text that can be read.
pub fn foreign(start: &[u8]) -> Option<(&'static str, &'static str)> {
    let text = start.trim_ascii_start();
    let begins = |tag: &[u8]| text.len() >= tag.len() && text[..tag.len()].eq_ignore_ascii_case(tag);
    if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
        Some(("text in UTF-16 (\"Unicode text\" in Excel)", "save it as \"CSV UTF-8\""))
    } else if start.starts_with(&[0x1f, 0x8b]) {
        Some(("compressed by gzip", "unpack it first"))
    } else if begins(b"<html") || begins(b"<!doctype") || begins(b"<?xml") || begins(b"<table") {
        Some(("a web page or XML", "open it in a spreadsheet program and save it as .xlsx or \"CSV UTF-8\""))
    } else {
        None
    }
}

/// Lines as UTF-8, and which of them were damaged.
pub struct Decoded<'r> {
    /// The text; what was malformed is U+FFFD in it, all else stands where it stood, line by line.
    pub text: Cow<'r, str>,
    /// The numbers of the lines that hold malformed bytes, ascending.
    pub damaged: Vec<u64>,
}

/// Decodes lines, the first of which has the number `line`.
pub fn decode(raw: &[u8], encoding: Encoding, line_end: u8, line: u64) -> Decoded<'_> {
    let codec = encoding.codec();
    if let Some(text) = codec.decode_without_bom_handling_and_without_replacement(raw) {
        return Decoded { text, damaged: Vec::new() };
    }
    let mut text = String::with_capacity(raw.len() + raw.len() / 2);
    let mut damaged = Vec::new();
    for (bytes, number) in raw.split_inclusive(|&byte| byte == line_end).zip(line..) {
        let (decoded, is_damaged) = codec.decode_without_bom_handling(bytes);
        text.push_str(&decoded);
        if is_damaged {
            damaged.push(number);
        }
    }
    Decoded { text: Cow::Owned(text), damaged }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(bytes: &[u8]) -> io::Result<Encoding> {
        super::detect(bytes, || Ok(()))
    }

    fn gbk(text: &str) -> Vec<u8> {
        GB18030.encode(text).0.into_owned()
    }

    #[test]
    fn the_encoding_is_told_wherever_the_first_name_stands() {
        for ascii_bytes in [0, 10, 100_000, 131_072, 131_080, 500_000] {
            let ascii = "13800138000,x\n".repeat(ascii_bytes / 14);
            assert_eq!(detect(ascii.as_bytes()).unwrap(), Encoding::Utf8);
            assert_eq!(detect((ascii.clone() + "张三\n").as_bytes()).unwrap(), Encoding::Utf8);
            let old = [ascii.as_bytes(), &gbk("张三,李四\n王五")].concat();
            assert_eq!(detect(&old[..]).unwrap(), Encoding::Gb18030, "{ascii_bytes}");
        }
        assert_eq!(detect("张".repeat(100_000).as_bytes()).unwrap(), Encoding::Utf8, "cut off within a character");
        assert_eq!(detect(&gbk(&"张".repeat(100_001))[..]).unwrap(), Encoding::Gb18030);
    }

    #[test]
    fn a_few_damaged_rows_do_not_make_a_file_gb18030() {
        let mut file = "张三\n".repeat(10).into_bytes();
        file.extend(gbk("李四\n王五\n"));
        assert_eq!(detect(&file[..]).unwrap(), Encoding::Utf8);
    }

    #[test]
    fn damage_stays_in_its_line() {
        let raw = [b"a,b\n".as_slice(), b"\xe5\xbc,\"x\n", "张,y\n".as_bytes(), b"z\xff"].concat();
        let decoded = decode(&raw, Encoding::Utf8, b'\n', 7);
        assert_eq!(decoded.text, "a,b\n\u{fffd},\"x\n张,y\nz\u{fffd}");
        assert_eq!(decoded.damaged, [8, 10]);
        let raw = [gbk("张\n"), b"\x81\n\x81,\n".to_vec(), gbk("三\n")].concat();
        let decoded = decode(&raw, Encoding::Gb18030, b'\n', 1);
        assert_eq!(decoded.text, "张\n\u{fffd}\n\u{fffd},\n三\n");
        assert_eq!(decoded.damaged, [2, 3]);
    }

    #[test]
    fn other_formats_are_named() {
        assert!(foreign(b"\xff\xfea\0").is_some());
        assert!(foreign(b"\x1f\x8b").is_some());
        assert!(foreign(b" <HTML>").is_some());
        assert!(foreign("手机,姓名".as_bytes()).is_none());
        assert!(foreign(b"").is_none());
    }
}
