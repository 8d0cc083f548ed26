//! The `with` table.

use std::path::{Path, PathBuf};

use reunion_sdk::{ErrorClass, PluginError};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use crate::text::encoding;

/// The `with` table of a source with `plugin = "file"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A file, or a pattern with `*`, `?`, `[…]` or `**`.
    pub path: PathBuf,
    /// What the files are.
    #[serde(default)]
    pub format: Format,
    /// The sheet of a workbook that is read; by default the first visible one that holds anything.
    #[serde(default)]
    pub sheet: Option<String>,
    /// Between two cells; by default what the format says.
    #[serde(default)]
    pub delimiter: Option<String>,
    /// Whether double quotes enclose cells.
    #[serde(default = "yes")]
    pub quotes: bool,
    /// The encoding, or that it is to be found.
    #[serde(default)]
    pub encoding: encoding::Declared,
    /// Where the names of the columns stand.
    #[serde(default)]
    pub header: Header,
    /// The names of the columns, where no header has them.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Texts that stand for null, beside the empty one.
    #[serde(default)]
    pub nulls: Vec<String>,
    /// For how long a file has to be still before it is read.
    #[serde(default = "default_settle_secs")]
    pub settle_secs: u64,
    /// What is appended to a file's name to name the file that says it is complete.
    #[serde(default)]
    pub done_marker: Option<String>,
    /// Bytes of the longest row.
    #[serde(default = "default_row_bytes_max")]
    pub row_bytes_max: usize,
}

/// What files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// What its first bytes say; of text, what its name says.
    #[default]
    Auto,
    /// Cells with commas between them.
    Csv,
    /// Cells with tabs between them.
    Tsv,
    /// A workbook of Excel 2007 or later.
    Xlsx,
    /// A workbook of Excel 97 to 2003.
    Xls,
    /// A Parquet file.
    Parquet,
    /// A table of dBASE or FoxPro.
    Dbf,
}

/// Where the names of the columns stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Header {
    /// In the row of the first twenty that looks most like it.
    #[default]
    Auto,
    /// Nowhere; `columns` has them.
    None,
    /// In the row that starts on this line, the first of the file being 1.
    Line(u64),
}

/// The last line that a header may be declared on.
pub const HEADER_LINE_MAX: u64 = 100;
const SETTLE_SECS_MAX: u64 = 86_400;
const ROW_BYTES_MIN: usize = 64;
const ROW_BYTES_MAX: usize = 16 << 20;

fn yes() -> bool {
    true
}

fn default_settle_secs() -> u64 {
    5
}

fn default_row_bytes_max() -> usize {
    1 << 20
}

impl Config {
    /// What the schema cannot say.
    ///
    /// # Errors
    /// Invalid config, with the key to blame.
    pub fn validate(&self) -> Result<(), PluginError> {
        let wrong = |key: &str, message: String| Err(PluginError::new(ErrorClass::InvalidConfig, message).key(key));
        if self.path.as_os_str().is_empty() {
            return wrong("path", "`path` is empty: it names a file or a pattern such as /data/in/*.csv".into());
        }
        if let Some(text) = &self.delimiter {
            let [byte] = text.as_bytes() else {
                return wrong("delimiter", format!("`delimiter` is one ASCII character, and {text:?} is not"));
            };
            if !byte.is_ascii() || matches!(byte, b'"' | b'\n' | b'\r' | 0) {
                return wrong("delimiter", format!("`delimiter` cannot be {text:?}: it has to be told from text, quotes and line ends"));
            }
        }
        match self.header {
            Header::None if self.columns.is_empty() => {
                return wrong("columns", "header = \"none\" needs `columns`, the names of the columns in their order".into());
            }
            Header::Auto | Header::Line(_) if !self.columns.is_empty() => {
                return wrong("columns", "`columns` names the columns of files without a header, and `header` is not \"none\"".into());
            }
            Header::Line(line) if line == 0 || line > HEADER_LINE_MAX => {
                return wrong("header", format!("`header` is a line from 1 to {HEADER_LINE_MAX}, and {line} is not"));
            }
            _ => {}
        }
        for (at, name) in self.columns.iter().enumerate() {
            if name.trim().is_empty() || self.columns[..at].contains(name) {
                return wrong("columns", format!("`columns` has {name:?} in place {}: each name is needed once and not empty", at + 1));
            }
        }
        if self.columns.len() > reunion_sdk::limits::COLUMNS_MAX {
            return wrong("columns", format!("`columns` has more than {} names", reunion_sdk::limits::COLUMNS_MAX));
        }
        if self.sheet.as_deref().is_some_and(str::is_empty) {
            return wrong("sheet", "`sheet` is empty: it is the name of a sheet, as its tab shows it".into());
        }
        if self.settle_secs > SETTLE_SECS_MAX {
            return wrong("settle_secs", format!("`settle_secs` is at most {SETTLE_SECS_MAX}, a day, and {} is not", self.settle_secs));
        }
        if self.done_marker.as_deref().is_some_and(|suffix| suffix.is_empty() || suffix.contains('/')) {
            return wrong("done_marker", "`done_marker` is the end of a file's name, such as \".done\"".into());
        }
        if !(ROW_BYTES_MIN..=ROW_BYTES_MAX).contains(&self.row_bytes_max) {
            let message = format!("`row_bytes_max` is from {ROW_BYTES_MIN} to {ROW_BYTES_MAX}, and {} is not", self.row_bytes_max);
            return wrong("row_bytes_max", message);
        }
        Ok(())
    }

    /// The byte between two cells of this text, which starts with `start`.
    pub fn delimiter_of(&self, file: &Path, start: &[u8]) -> u8 {
        if let Some(byte) = self.delimiter.as_ref().and_then(|text| text.bytes().next()) {
            return byte;
        }
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        match (self.format, extension.as_deref()) {
            (Format::Tsv, _) | (Format::Auto, Some("tsv" | "tab")) => b'\t',
            // What programs call a workbook and is text has tabs, most of the time.
            (Format::Auto, Some("xls" | "xlsx")) if start.contains(&b'\t') => b'\t',
            _ => b',',
        }
    }

    /// The JSON Schema of the table.
    pub fn schema() -> serde_json::Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["path"],
            "properties": {
                "path": {
                    "format": "path","type": "string", "minLength": 1, "description": "a file, or a pattern with *, ?, [...] or **"},
                "format": {"type": "string", "default": "auto",
                    "enum": ["auto", "csv", "tsv", "xlsx", "xls", "parquet", "dbf"],
                    "description": "auto: by the first bytes; a text is tsv for .tsv and .tab, else csv"},
                "sheet": {"type": "string", "minLength": 1,
                    "description": "the sheet of a workbook; by default the first visible one that holds anything"},
                "delimiter": {"type": "string", "minLength": 1, "description": "one ASCII character; by default what the format says"},
                "quotes": {"type": "boolean", "default": true, "description": "double quotes enclose cells"},
                "encoding": {"type": "string", "default": "auto",
                    "enum": ["auto", "utf-8", "utf8", "UTF-8", "gb18030", "GB18030", "gbk", "GBK", "gb2312", "GB2312"],
                    "description": "gb18030 holds all of gbk and gb2312"},
                "header": {"default": "auto", "description": "auto: found; none: `columns` has the names; or the header's line",
                    "oneOf": [{"type": "string", "enum": ["auto", "none"]}, {"type": "integer", "minimum": 1, "maximum": HEADER_LINE_MAX}]},
                "columns": {"type": "array", "items": {"type": "string", "minLength": 1}, "default": [],
                    "description": "names of the columns where header = \"none\""},
                "nulls": {"type": "array", "items": {"type": "string"}, "default": [],
                    "description": "texts that stand for null, beside the empty one"},
                "settle_secs": {"type": "integer", "minimum": 0, "maximum": SETTLE_SECS_MAX, "default": default_settle_secs(),
                    "description": "a file is read when its size and time have been still for so long"},
                "done_marker": {"type": "string", "minLength": 1,
                    "description": "a file of this suffix beside a file says that it is complete: it is read at once"},
                "row_bytes_max": {"type": "integer", "minimum": ROW_BYTES_MIN, "maximum": ROW_BYTES_MAX,
                    "default": default_row_bytes_max(), "description": "a longer row is rejected"},
            },
        })
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str("none"),
            Self::Line(line) => serializer.serialize_u64(*line),
        }
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl Visitor<'_> for Words {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"auto\", \"none\" or the number of the header's line")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Header, E> {
                match text {
                    "auto" => Ok(Header::Auto),
                    "none" => Ok(Header::None),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, line: u64) -> Result<Header, E> {
                Ok(Header::Line(line))
            }

            fn visit_i64<E: de::Error>(self, line: i64) -> Result<Header, E> {
                u64::try_from(line).map(Header::Line).map_err(|_| E::invalid_value(de::Unexpected::Signed(line), &self))
            }
        }

        deserializer.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: serde_json::Value) -> Result<Config, String> {
        let config: Config = serde_json::from_value(value).map_err(|error| error.to_string())?;
        config.validate().map_err(|error| format!("{}: {error}", error.key.as_deref().unwrap_or_default()))?;
        Ok(config)
    }

    #[test]
    fn only_the_path_is_needed() {
        let config = parse(json!({"path": "/in/a.csv"})).unwrap();
        assert_eq!((config.header, config.settle_secs, config.row_bytes_max), (Header::Auto, 5, 1 << 20));
        assert_eq!(config.delimiter_of(Path::new("a.TSV"), b""), b'\t');
        assert_eq!(config.delimiter_of(Path::new("a.txt"), b"a\tb"), b',');
        assert_eq!(config.delimiter_of(Path::new("a.xls"), b"a\tb"), b'\t');
        assert_eq!(config.delimiter_of(Path::new("a.xls"), b"a,b"), b',');
        let config = parse(json!({"path": "a", "delimiter": "|", "encoding": "gbk", "header": 3})).unwrap();
        assert_eq!((config.delimiter_of(Path::new("a.tsv"), b""), config.header), (b'|', Header::Line(3)));
        assert_eq!(serde_json::from_value::<Config>(serde_json::to_value(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let of = |extra: serde_json::Value| {
            let mut value = json!({"path": "a.csv"});
            value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            parse(value).expect_err("a wrong config")
        };
        let errors = [
            of(json!({"delimiter": "，"})),
            of(json!({"delimiter": "\""})),
            of(json!({"header": "none"})),
            of(json!({"columns": ["a"]})),
            of(json!({"header": "first"})),
            of(json!({"header": 0})),
            of(json!({"header": "none", "columns": ["a", "b", "a"]})),
            of(json!({"sheet": ""})),
            of(json!({"settle_secs": 90_000})),
            of(json!({"done_marker": "x/done"})),
            of(json!({"row_bytes_max": 1})),
        ];
        insta::assert_snapshot!(errors.join("\n"), @r#"
        delimiter: invalid config: `delimiter` is one ASCII character, and "，" is not
        delimiter: invalid config: `delimiter` cannot be "\"": it has to be told from text, quotes and line ends
        columns: invalid config: header = "none" needs `columns`, the names of the columns in their order
        columns: invalid config: `columns` names the columns of files without a header, and `header` is not "none"
        invalid value: string "first", expected "auto", "none" or the number of the header's line
        header: invalid config: `header` is a line from 1 to 100, and 0 is not
        columns: invalid config: `columns` has "a" in place 3: each name is needed once and not empty
        sheet: invalid config: `sheet` is empty: it is the name of a sheet, as its tab shows it
        settle_secs: invalid config: `settle_secs` is at most 86400, a day, and 90000 is not
        done_marker: invalid config: `done_marker` is the end of a file's name, such as ".done"
        row_bytes_max: invalid config: `row_bytes_max` is from 64 to 16777216, and 1 is not
        "#);
    }
}
