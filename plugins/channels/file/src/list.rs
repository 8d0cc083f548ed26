//! A work list as text: CSV in UTF-8 with a byte order mark, lines ending with CR LF.
//!
//! A cell that a spreadsheet would run as a formula or change begins with an apostrophe; reading a
//! returned list takes it off again.

use reunion_sdk::arrow::array::{Array, AsArray, RecordBatch};
use reunion_sdk::arrow::datatypes::TimestampMicrosecondType;
use reunion_sdk::{ErrorClass, PluginError};

use crate::config::{Checked, PhoneFormat};

/// The columns of a work list.
pub const COLUMNS: [&str; 11] = ["task_id", "campaign", "store", "staff", "name", "phone", "reason", "message", "due", "result", "note"];

/// Makes spreadsheets read the file as UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The tasks of one dispatch, by column.
pub struct Tasks {
    batch: RecordBatch,
}

impl Tasks {
    /// The tasks of a batch.
    ///
    /// # Errors
    /// Internal, where it is not of the contract's schema.
    pub fn new(batch: RecordBatch) -> Result<Self, PluginError> {
        let expected = reunion_sdk::task_schema();
        let fits = expected.fields().len() == batch.num_columns()
            && expected.fields().iter().zip(batch.schema().fields()).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        if fits {
            Ok(Self { batch })
        } else {
            Err(PluginError::new(ErrorClass::Internal, "the tasks have other columns than the contract says"))
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// The text in a column that has this name.
    pub fn text(&self, column: &str, row: usize) -> Option<&str> {
        let array = self.batch.column_by_name(column)?.as_string_opt::<i32>()?;
        (!array.is_null(row)).then(|| array.value(row))
    }

    /// A task's id.
    pub fn id(&self, row: usize) -> &str {
        self.text("task_id", row).unwrap_or_default()
    }

    /// The value of a column that is the same for all of them, empty where it is null.
    ///
    /// # Errors
    /// Internal, where it is not the same: the host has grouped them by other columns.
    pub fn common(&self, column: &str) -> Result<&str, PluginError> {
        let first = if self.len() == 0 { None } else { self.text(column, 0) };
        if (1..self.len()).all(|row| self.text(column, row) == first) {
            Ok(first.unwrap_or_default())
        } else {
            Err(PluginError::new(ErrorClass::Internal, format!("the tasks of the dispatch differ in {column}, which is in the path")))
        }
    }

    fn due_us(&self, row: usize) -> Option<i64> {
        let array = self.batch.column_by_name("due")?.as_primitive_opt::<TimestampMicrosecondType>()?;
        (!array.is_null(row)).then(|| array.value(row))
    }
}

/// The work list of these tasks.
///
/// # Errors
/// Internal, where the text cannot be put together.
pub fn write(tasks: &Tasks, config: &Checked) -> Result<Vec<u8>, PluginError> {
    let failed = |_| PluginError::new(ErrorClass::Internal, "the work list cannot be put together in memory");
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(BYTE_ORDER_MARK.to_vec());
    writer.write_record(COLUMNS).map_err(failed)?;
    let mut row_text = csv::StringRecord::new();
    for row in 0..tasks.len() {
        row_text.clear();
        for column in COLUMNS {
            match column {
                "phone" => row_text.push_field(&neutral(&phone(tasks.text(column, row).unwrap_or_default(), config.phone_format))),
                "due" => row_text.push_field(&due(tasks.due_us(row), config)),
                // For the clerk to fill in.
                "result" | "note" => row_text.push_field(""),
                _ => row_text.push_field(&neutral(tasks.text(column, row).unwrap_or_default())),
            }
        }
        writer.write_record(&row_text).map_err(failed)?;
    }
    writer.into_inner().map_err(|_| PluginError::new(ErrorClass::Internal, "the work list cannot be put together in memory"))
}

fn phone(number: &str, format: PhoneFormat) -> String {
    let chinese = number.len() == 11 && number.bytes().all(|byte| byte.is_ascii_digit());
    if format == PhoneFormat::Grouped && chinese {
        format!("{} {} {}", &number[..3], &number[3..7], &number[7..])
    } else {
        number.to_owned()
    }
}

fn due(due_us: Option<i64>, config: &Checked) -> String {
    let moment = due_us.and_then(|due| jiff::Timestamp::from_microsecond(due).ok());
    moment.map(|moment| moment.to_zoned(config.timezone.clone()).date().to_string()).unwrap_or_default()
}

/// A cell that no spreadsheet runs: see the module.
pub fn neutral(cell: &str) -> std::borrow::Cow<'_, str> {
    if cell.starts_with(is_hostile) || is_rounded(cell) { format!("'{cell}").into() } else { cell.into() }
}

/// A cell as it was before [`neutral`].
pub fn original(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(rest) if rest.starts_with(is_hostile) || is_rounded(rest) => rest,
        _ => cell,
    }
}

/// A character with which a formula begins, in some spreadsheet or after its import; or an apostrophe,
/// so that one that belongs to the value is told from ours.
fn is_hostile(first: char) -> bool {
    matches!(first, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '\'' | '＝' | '＋' | '－' | '＠')
}

/// Whether a spreadsheet would take the text for a number of more digits than it keeps: a task id of
/// digits alone, or with one `e` among them.
fn is_rounded(cell: &str) -> bool {
    cell.len() > 15
        && cell.bytes().all(|byte| byte.is_ascii_digit() || byte == b'e')
        && cell.bytes().filter(|byte| *byte == b'e').count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_cells_begin_with_an_apostrophe() {
        for cell in [
            "=1+1",
            "+8613900001201",
            "-5",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "＝1",
            "'=1",
            "12345678901234567890123456789012",
            "1234567890123456e890123456789012",
        ] {
            assert_eq!(neutral(cell), format!("'{cell}"));
        }
        for cell in ["王女士", "13900001201", "a=b", "", "00ff00ff00ff00ff00ff00ff00ff00ff"] {
            assert_eq!(neutral(cell), cell);
        }
    }

    #[test]
    fn phones_can_be_grouped() {
        assert_eq!(phone("13900001201", PhoneFormat::Grouped), "139 0000 1201");
        assert_eq!(phone("+85291234567", PhoneFormat::Grouped), "+85291234567");
        assert_eq!(phone("13900001201", PhoneFormat::Plain), "13900001201");
    }

    proptest! {
        #[test]
        fn a_cell_is_read_back_as_it_was(cell in "[=+@'\\-a-c0-9e\\t\\n\"＝]{0,20}") {
            let written = neutral(&cell);
            prop_assert_eq!(original(&written), &cell);
        }
    }
}
