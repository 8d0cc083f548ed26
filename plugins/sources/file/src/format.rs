//! What a file is, by its first bytes, and the reader for it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use reunion_sdk::{Call, ErrorClass, PluginError};

use crate::config::{Config, Format};
use crate::listing::{Entry, read_error};
use crate::table::Table;
use crate::{dbf, parquet, sheet, text};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Xlsx,
    Xls,
    Parquet,
    Dbf,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "CSV or TSV",
            Self::Xlsx => "an Excel workbook (.xlsx)",
            Self::Xls => "an old Excel workbook (.xls)",
            Self::Parquet => "a Parquet file",
            Self::Dbf => "a dBASE table (.dbf)",
        }
    }

    /// What the config says that a file is.
    const fn declared(format: Format) -> Option<Self> {
        match format {
            Format::Auto => None,
            Format::Csv | Format::Tsv => Some(Self::Text),
            Format::Xlsx => Some(Self::Xlsx),
            Format::Xls => Some(Self::Xls),
            Format::Parquet => Some(Self::Parquet),
            Format::Dbf => Some(Self::Dbf),
        }
    }

    /// What the first bytes say. A text and a dBASE table have none of their own.
    fn sniffed(start: &[u8]) -> Option<Self> {
        let xls = [0xd0, 0xcf, 0x11, 0xe0];
        let tags = [(&b"PK\x03\x04"[..], Self::Xlsx), (&xls, Self::Xls), (b"PAR1", Self::Parquet), (b"PARE", Self::Parquet)];
        tags.into_iter().find(|(tag, _)| start.starts_with(tag)).map(|(_, kind)| kind)
    }

    /// What the end of the name says. Much that is called .xls is text.
    fn named(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "xlsx" | "xlsm" => Some(Self::Xlsx),
            "xls" => Some(Self::Xls),
            "parquet" => Some(Self::Parquet),
            "dbf" => Some(Self::Dbf),
            _ => None,
        }
    }
}

/// Looks at a file, of which about `chunk_bytes` will be read at once. `None`: there is nothing in it.
///
/// # Errors
/// Invalid data where it is not what the config or its name says, or as its reader says.
pub fn open(
    call: &Call,
    mut file: File,
    entry: &Entry,
    config: &Arc<Config>,
    chunk_bytes: usize,
) -> Result<Option<Box<dyn Table>>, PluginError> {
    match kind_of(&mut file, entry, config.format)? {
        Kind::Text => text::open(call, file, entry, config, chunk_bytes),
        Kind::Xlsx => sheet::open_xlsx(call, file, entry, config),
        Kind::Xls => sheet::open_xls(call, file, entry, config),
        Kind::Parquet => parquet::open(call, file, entry, config).map(Some),
        Kind::Dbf => dbf::open(call, file, entry, config).map(Some),
    }
}

fn kind_of(file: &mut File, entry: &Entry, format: Format) -> Result<Kind, PluginError> {
    let failed = |error| read_error(&entry.name, &error);
    let mut start = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.take(8).read_to_end(&mut start).map_err(failed)?;
    let sniffed = Kind::sniffed(&start);
    let (declared, named) = (Kind::declared(format), Kind::named(&entry.path));
    let error = |message: String| PluginError::new(ErrorClass::InvalidData, message);
    if let Some(expected) = declared.or(named).filter(|kind| start.is_empty() && *kind != Kind::Text) {
        return Err(error(format!("{} is empty, and not {}", entry.name, expected.name())).hint("write the file again"));
    }
    match (declared, sniffed, named) {
        (Some(declared), Some(sniffed), _) if declared != sniffed => {
            let message = format!("{} is {}, not {}", entry.name, sniffed.name(), declared.name());
            Err(error(message).hint("set format = \"auto\"").key("format"))
        }
        (Some(declared @ (Kind::Text | Kind::Dbf)), ..) => Ok(declared),
        (None, Some(sniffed), _) => Ok(sniffed),
        (Some(declared), Some(_), _) => Ok(declared),
        (Some(expected), None, _) | (None, None, Some(expected @ Kind::Parquet)) => {
            Err(error(format!("{} is not {}", entry.name, expected.name())).hint("write the file again, or set format = \"auto\""))
        }
        (None, None, Some(Kind::Dbf)) => Ok(Kind::Dbf),
        (None, None, _) => Ok(Kind::Text),
    }
}
