//! Whether a workbook may be unpacked: it is a zip archive, and few bytes of one can stand for gigabytes.
//!
//! The sizes that an archive declares are believed: no more of a part is unpacked than that.

use std::io::{Read, Seek};

use reunion_sdk::{ErrorClass, PluginError};
use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use super::{broken, protected, refused, unreadable};

/// Bytes of all parts together. A full sheet of twenty columns has about one gigabyte.
const ALL_BYTES_MAX: u64 = 4 << 30;
/// Bytes of a part that is kept in memory: the table of texts, styles, the list of sheets.
const KEPT_BYTES_MAX: u64 = 256 << 20;
/// Larger parts than this may not be packed more tightly than a sheet can be.
const FREE_BYTES: u64 = 64 << 20;
const RATIO_MAX: u64 = 200;
const PARTS_MAX: usize = 10_000;
/// More than the table of texts needs to say how many it has.
const START_BYTES: u64 = 4096;

/// Looks at the list of a workbook's parts.
///
/// # Errors
/// Invalid data where they are too large, or it is a document of another kind.
pub fn check(file: impl Read + Seek, name: &str) -> Result<(), PluginError> {
    let damaged = |error: &ZipError| damaged(name, error);
    let mut archive = ZipArchive::new(file).map_err(|error| damaged(&error))?;
    refuse_other(&archive, name)?;
    let mut all_bytes = 0u64;
    for at in 0..archive.len() {
        let mut part = archive.by_index(at).map_err(|error| damaged(&error))?;
        let path = part.name().map_err(|error| damaged(&error))?.to_ascii_lowercase();
        // Calamine reads no other.
        if path.ends_with(".xml") || path.ends_with(".rels") {
            all_bytes = all_bytes.saturating_add(part.size());
            check_part(&mut part, &path, name)?;
        }
    }
    if all_bytes > ALL_BYTES_MAX {
        return Err(refused(name, &format!("unpacks to more than {} GiB", ALL_BYTES_MAX >> 30)));
    }
    Ok(())
}

/// An error for an archive that cannot be read.
pub fn damaged(name: &str, error: &ZipError) -> PluginError {
    match error {
        ZipError::Io(error) => unreadable(name, error),
        ZipError::UnsupportedArchive(text) if *text == ZipError::PASSWORD_REQUIRED => protected(name),
        _ => broken(name, "it is damaged or cut off"),
    }
}

fn refuse_other<R: Read + Seek>(archive: &ZipArchive<R>, name: &str) -> Result<(), PluginError> {
    if archive.len() > PARTS_MAX {
        return Err(refused(name, &format!("has {} parts, more than {PARTS_MAX}", archive.len())));
    }
    let has = |path: &str| archive.index_for_name(path).is_some();
    let kinds = [
        ("xl/workbook.bin", "an Excel workbook in binary form (.xlsb)"),
        ("content.xml", "an OpenDocument spreadsheet (.ods)"),
        ("word/document.xml", "a Word document"),
    ];
    let other = kinds.into_iter().find(|(path, _)| has(path)).map(|(_, kind)| kind);
    let Some(other) = other.or_else(|| (!has("[Content_Types].xml")).then_some("a zip archive")) else { return Ok(()) };
    Err(PluginError::new(ErrorClass::InvalidData, format!("{name} is {other}, not an Excel workbook (.xlsx)"))
        .hint("save it as .xlsx or \"CSV UTF-8\""))
}

fn check_part<R: Read>(part: &mut ZipFile<'_, R>, path: &str, name: &str) -> Result<(), PluginError> {
    let (bytes, packed) = (part.size(), part.compressed_size().max(1));
    let is_kept = ["sharedstrings.xml", "styles.xml", "workbook.xml", ".rels"].iter().any(|end| path.ends_with(end));
    if is_kept && bytes > KEPT_BYTES_MAX {
        return Err(refused(name, &format!("has more than {} MiB of texts, which are kept in memory", KEPT_BYTES_MAX >> 20)));
    }
    if bytes > FREE_BYTES && bytes / packed > RATIO_MAX {
        return Err(refused(name, &format!("unpacks to more than {RATIO_MAX} times its size")));
    }
    if path.ends_with("sharedstrings.xml") {
        let mut start = Vec::new();
        part.take(START_BYTES).read_to_end(&mut start).map_err(|error| unreadable(name, &error))?;
        if text_count(&start) > bytes {
            return Err(refused(name, "claims to have more texts than bytes"));
        }
    }
    Ok(())
}

/// How many texts a table of texts claims to have. Room is made for so many before they are read.
fn text_count(start: &[u8]) -> u64 {
    let tag = b"uniqueCount=\"";
    let digits = memchr::memmem::find(start, tag).map_or(&b""[..], |at| &start[at + tag.len()..]);
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0u64, |count, digit| count.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    /// An archive of these parts, and how large each of them is declared to be.
    fn archive(parts: &[(&str, &str, u32)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (path, text, _) in [("[Content_Types].xml", "<Types/>", 8)].iter().chain(parts) {
            writer.start_file(*path, SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        let mut bytes = writer.finish().unwrap().into_inner();
        let headers: Vec<_> = memchr::memmem::find_iter(&bytes, b"PK\x01\x02").skip(1).collect();
        for (header, (_, _, size)) in headers.into_iter().zip(parts) {
            bytes[header + 24..header + 28].copy_from_slice(&size.to_le_bytes());
        }
        bytes
    }

    fn error(parts: &[(&str, &str, u32)]) -> String {
        check(Cursor::new(archive(parts)), "a.xlsx").expect_err("an error").to_string()
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused() {
        let names: Vec<_> = (0..65).map(|at| format!("xl/worksheets/sheet{at}.xml")).collect();
        let sheets: Vec<_> = names.iter().map(|name| (name.as_str(), "<x/>", 64 << 20)).collect();
        let errors = [
            error(&sheets),
            error(&[("xl/worksheets/sheet1.xml", "<x/>", 65 << 20)]),
            error(&[("xl/sharedStrings.xml", "<x/>", 257 << 20)]),
            error(&[("xl/sharedStrings.xml", "<sst uniqueCount=\"99999999999999999999\"/>", 50)]),
        ];
        insta::assert_snapshot!(errors.join("\n"), @r#"
        invalid data: a.xlsx unpacks to more than 4 GiB, and is not read; if it is what it should be, save it as "CSV UTF-8"
        invalid data: a.xlsx unpacks to more than 200 times its size, and is not read; if it is what it should be, save it as "CSV UTF-8"
        invalid data: a.xlsx has more than 256 MiB of texts, which are kept in memory, and is not read; if it is what it should be, save it as "CSV UTF-8"
        invalid data: a.xlsx claims to have more texts than bytes, and is not read; if it is what it should be, save it as "CSV UTF-8"
        "#);
    }

    #[test]
    fn no_more_is_unpacked_than_was_declared() {
        let text = "x".repeat(1 << 20);
        let bytes = archive(&[("xl/worksheets/sheet1.xml", &text, 1000)]);
        check(Cursor::new(&bytes), "a.xlsx").unwrap();
        let mut archive = ZipArchive::new(Cursor::new(&bytes)).unwrap();
        let mut read = Vec::new();
        archive.by_index(1).unwrap().read_to_end(&mut read).expect_err("it is larger");
        assert!(read.len() <= 1001, "{}", read.len());
    }

    #[test]
    fn documents_of_other_kinds_are_named() {
        let errors = [
            error(&[("xl/workbook.bin", "x", 1)]),
            error(&[("content.xml", "<x/>", 4)]),
            check(Cursor::new(b"PK\x03\x04cut off".to_vec()), "a.xlsx").unwrap_err().to_string(),
        ];
        insta::assert_snapshot!(errors.join("\n"), @r#"
        invalid data: a.xlsx is an Excel workbook in binary form (.xlsb), not an Excel workbook (.xlsx); save it as .xlsx or "CSV UTF-8"
        invalid data: a.xlsx is an OpenDocument spreadsheet (.ods), not an Excel workbook (.xlsx); save it as .xlsx or "CSV UTF-8"
        invalid data: a.xlsx is no whole workbook: it is damaged or cut off; open it in a spreadsheet program and save it again
        "#);
    }

    #[test]
    fn what_is_not_read_is_not_counted() {
        let parts = [("xl/media/image.png", "x", 300 << 20), ("xl/sharedStrings.xml", "<sst>", 5)];
        check(Cursor::new(archive(&parts)), "a.xlsx").unwrap();
    }
}
