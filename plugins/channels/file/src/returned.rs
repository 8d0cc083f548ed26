//! A work list that came back: which tasks are in it, and which results were filled in.
//!
//! It is read as spreadsheets save it: UTF-8 with or without a byte order mark, UTF-16 with one, or
//! GB18030 (and so GBK); commas, semicolons or tabs; columns in any order. Only `task_id`, `result` and
//! `note` are read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use reunion_sdk::{Outcome, Reason};

use crate::config::result_word;
use crate::list::original;

/// Characters of a note that are kept.
const NOTE_CHARS_MAX: usize = 1_000;
const ID_DIGITS: usize = 32;

/// A list that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// The ids of its tasks, in order.
    pub task_ids: Vec<String>,
    /// The rows with a result.
    pub results: Vec<Answer>,
    /// What could not be read.
    pub rejected: Vec<Rejected>,
}

/// A row with a result.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub task_id: String,
    pub outcome: Outcome,
    pub note: Option<String>,
}

/// A row that could not be read. The detail repeats nothing that was typed in.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The line on which it begins, from 1.
    pub line: u64,
    pub reason: Reason,
    pub detail: String,
}

/// Reads a list. `words` are the results' words, as [`result_word`] has them.
pub fn read(bytes: &[u8], words: &BTreeMap<String, Outcome>) -> Returned {
    let text = decode(bytes);
    let Some((delimiter, columns)) = [b',', b';', b'\t'].into_iter().find_map(|delimiter| Some((delimiter, header(&text, delimiter)?)))
    else {
        let detail = "there is no header with the columns task_id and result".to_owned();
        let rejected = vec![Rejected { line: 1, reason: Reason::ReturnUnreadable, detail }];
        return Returned { rejected, ..Returned::default() };
    };
    let mut returned = Returned::default();
    let mut records = reader(&text, delimiter);
    let mut record = csv::StringRecord::new();
    let mut header_seen = false;
    // A quote that is never closed swallows all rows after it, so the last row is none.
    let open_quote = text.bytes().filter(|byte| *byte == b'"').count() % 2 == 1;
    let mut lines = Lines { text: text.as_bytes(), at: 0, line: 1 };
    loop {
        let line = lines.at(records.position().byte());
        match records.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => {
                returned.reject(line, Reason::RowBadEncoding, "the row cannot be read");
                continue;
            }
        }
        if !std::mem::replace(&mut header_seen, true) {
            continue;
        }
        if open_quote && records.position().byte() >= text.len() as u64 {
            returned.reject(
                line,
                Reason::RowTruncated,
                "a quote is opened here and never closed, so this row and all after it were not read",
            );
            break;
        }
        returned.row(line, &record, &columns, words);
    }
    returned
}

impl Returned {
    fn row(&mut self, line: u64, record: &csv::StringRecord, columns: &Columns, words: &BTreeMap<String, Outcome>) {
        let cell = |at: Option<usize>| original(at.and_then(|at| record.get(at)).unwrap_or_default().trim()).trim();
        let id = cell(Some(columns.task_id)).trim_start_matches('\'').to_ascii_lowercase();
        let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let result = result_word(cell(Some(columns.result)));
        if is_id {
            self.task_ids.push(id.clone());
        }
        if result.is_empty() {
            return;
        }
        if !is_id {
            let detail =
                format!("the row has a result, and its task_id has {} characters where an id has 32 hex digits", id.chars().count());
            return self.reject(line, Reason::TaskIdInvalid, &detail);
        }
        let Some(outcome) = words.get(&result) else {
            let known: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
            let detail = format!("task {id}: the result, of {} characters, is none of {}", result.chars().count(), known.join(", "));
            return self.reject(line, Reason::ResultUnknown, &detail);
        };
        let note = cell(columns.note);
        let note = (!note.is_empty()).then(|| note.chars().take(NOTE_CHARS_MAX).collect());
        self.results.push(Answer { task_id: id, outcome: *outcome, note });
    }

    fn reject(&mut self, line: u64, reason: Reason, detail: &str) {
        self.rejected.push(Rejected { line, reason, detail: detail.to_owned() });
    }
}

/// Counts lines as an editor shows them; the parser's own count is one behind after CR LF.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    /// The line on which `at` stands, from 1.
    line: u64,
}

impl Lines<'_> {
    /// The line on which the row begins that follows this byte. Bytes are asked for in their order.
    fn at(&mut self, byte: u64) -> u64 {
        let is_end = |at: usize| match self.text.get(at) {
            Some(b'\n') => true,
            Some(b'\r') => self.text.get(at + 1) != Some(&b'\n'),
            _ => false,
        };
        let from = usize::try_from(byte).unwrap_or(usize::MAX).clamp(self.at, self.text.len());
        let blank = self.text[from..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.line += (self.at..from + blank).filter(|at| is_end(*at)).count() as u64;
        self.at = from + blank;
        self.line
    }
}

/// Where the columns stand that are read.
#[derive(Debug, Clone, Copy)]
struct Columns {
    task_id: usize,
    result: usize,
    note: Option<usize>,
}

fn header(text: &str, delimiter: u8) -> Option<Columns> {
    let mut record = csv::StringRecord::new();
    reader(text, delimiter).read_record(&mut record).ok()?;
    let find = |name: &str| record.iter().position(|cell| cell.trim().eq_ignore_ascii_case(name));
    Some(Columns { task_id: find("task_id")?, result: find("result")?, note: find("note") })
}

fn reader(text: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(text.as_bytes())
}

/// The text. Bytes that are none become U+FFFD, which is in no id and no result.
fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if let Some((encoding, length)) = encoding_rs::Encoding::for_bom(bytes) {
        return encoding.decode_without_bom_handling(&bytes[length..]).0;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => encoding_rs::GB18030.decode_without_bom_handling(bytes).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "00112233445566778899aabbccddeeff";
    const B: &str = "ffeeddccbbaa99887766554433221100";

    fn words() -> BTreeMap<String, Outcome> {
        Outcome::ALL.into_iter().map(|outcome| (outcome.name().to_owned(), outcome)).collect()
    }

    fn answer(task_id: &str, outcome: Outcome, note: Option<&str>) -> Answer {
        Answer { task_id: task_id.into(), outcome, note: note.map(Into::into) }
    }

    #[test]
    fn a_list_is_read_however_it_was_saved() {
        let plain = format!("task_id,name,result,note\r\n{A},王女士,Added,\"下周, 再来\"\r\n{B},,,\r\n");
        let expected =
            Returned {
                task_ids: vec![A.into(), B.into()], results: vec![answer(A, Outcome::Added, Some("下周, 再来"))], rejected: vec![]
            };
        let utf16 = |text: &str| [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect::<Vec<u8>>();
        let semicolons = format!("note;result;task_id;name\n下周, 再来;added;{A};王女士\n;;{B};\n");
        let tabs = format!("\u{feff}Task_ID\tResult\tNote\r\n{}\t added \t下周, 再来\r\n{B}\r\n", A.to_uppercase());
        for bytes in [
            plain.clone().into_bytes(),
            [b"\xef\xbb\xbf", plain.as_bytes()].concat(),
            encoding_rs::GB18030.encode(&plain).0.into_owned(),
            utf16(&plain),
            semicolons.into_bytes(),
            tabs.into_bytes(),
        ] {
            assert_eq!(read(&bytes, &words()), expected);
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let text = format!("task_id,result\n{A},maybe 13900001201\n1.2E+31,added\n{B},do not call\n\n'{A},wrong-number\nx,\n");
        let returned = read(text.as_bytes(), &words());
        assert_eq!(returned.results, [answer(B, Outcome::DoNotCall, None), answer(A, Outcome::WrongNumber, None)]);
        let rejected: Vec<_> = returned.rejected.iter().map(|row| (row.line, row.reason)).collect();
        assert_eq!(rejected, [(2, Reason::ResultUnknown), (3, Reason::TaskIdInvalid)]);
        assert!(returned.rejected.iter().all(|row| !row.detail.contains("139")));
        for end in ["\r\n", "\r"] {
            let again = read(text.replace('\n', end).as_bytes(), &words());
            assert_eq!(again, returned, "lines ending with {end:?}");
        }
        let late = format!("\r\n\r\ntask_id,result,note\r\n{A},added,\"two\r\nlines\"\r\n\r\n{B},maybe,\r\n");
        assert_eq!(read(late.as_bytes(), &words()).rejected.iter().map(|row| row.line).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn a_file_that_is_no_work_list_is_rejected_whole() {
        for text in ["", "a,b\n1,2\n", "PK\u{3}\u{4}\0\0", "task_id,name\n"] {
            let returned = read(text.as_bytes(), &words());
            assert_eq!(returned.rejected.iter().map(|row| row.reason).collect::<Vec<_>>(), [Reason::ReturnUnreadable], "{text:?}");
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_loses_no_row_in_silence() {
        let text = format!("task_id,result,note\n{A},added,\n{B},added,\"late\n{A},refused,\n");
        let returned = read(text.as_bytes(), &words());
        assert_eq!(returned.results, [answer(A, Outcome::Added, None)]);
        assert_eq!(returned.rejected.iter().map(|row| (row.line, row.reason)).collect::<Vec<_>>(), [(3, Reason::RowTruncated)]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
            let head: &[u8] = if header { b"task_id,result\n" } else { b"" };
            read(&[head, &bytes].concat(), &words());
        }
    }
}
