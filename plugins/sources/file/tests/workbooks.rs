//! Workbooks as the host sees them: .xlsx and .xls in, items out.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::io::{Cursor, Write};
use std::sync::LazyLock;

use common::{Pulled, begin, error, lines, pull, read_with, snapshot, source, write};
use proptest::prelude::*;
use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, ErrorClass, Item, ReadMode, ReadRequest, Source};
use rust_xlsxwriter::{ExcelDateTime, Format, Formula, Workbook};
use serde_json::json;
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A workbook of these parts, its sheets named A, B, … Each sheet is what stands in its `sheetData`, and its state.
fn raw_workbook(texts: &str, workbook: &str, sheets: &[(&str, &str)]) -> Vec<u8> {
    const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
    const MAIN: &str = "xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\"";
    const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let relations = |items: String| {
        format!("{HEAD}<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">{items}</Relationships>")
    };
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let mut part = |path: String, text: String| {
        writer.start_file(path, SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    };
    part("[Content_Types].xml".into(), format!("{HEAD}<Types/>"));
    part("_rels/.rels".into(), relations(format!("<Relationship Id=\"r\" Type=\"{OFFICE}/officeDocument\" Target=\"xl/workbook.xml\"/>")));
    let named = |at: usize| char::from(b'A' + at as u8);
    let list: String = (0..sheets.len())
        .map(|at| format!("<sheet name=\"{}\" sheetId=\"{}\" state=\"{}\" r:id=\"s{at}\"/>", named(at), at + 1, sheets[at].1))
        .collect();
    part("xl/workbook.xml".into(), format!("{HEAD}<workbook {MAIN} xmlns:r=\"{OFFICE}\">{workbook}<sheets>{list}</sheets></workbook>"));
    let targets = (0..sheets.len())
        .map(|at| format!("<Relationship Id=\"s{at}\" Type=\"{OFFICE}/worksheet\" Target=\"worksheets/sheet{at}.xml\"/>"))
        .collect();
    part("xl/_rels/workbook.xml.rels".into(), relations(targets));
    part("xl/sharedStrings.xml".into(), format!("{HEAD}<sst {MAIN}>{texts}</sst>"));
    let formats = "<cellXfs><xf numFmtId=\"0\"/><xf numFmtId=\"14\" applyNumberFormat=\"1\"/></cellXfs>";
    part("xl/styles.xml".into(), format!("{HEAD}<styleSheet {MAIN}>{formats}</styleSheet>"));
    for (at, (rows, _)) in sheets.iter().enumerate() {
        part(format!("xl/worksheets/sheet{at}.xml"), format!("{HEAD}<worksheet {MAIN}>{rows}</worksheet>"));
    }
    writer.finish().unwrap().into_inner()
}

/// The `sheetData` of rows of inline texts.
fn rows_of(rows: &[&[&str]]) -> String {
    let cell = |text: &&str| format!("<c t=\"inlineStr\"><is><t>{text}</t></is></c>");
    let rows: String = rows.iter().map(|row| format!("<row>{}</row>", row.iter().map(cell).collect::<String>())).collect();
    format!("<sheetData>{rows}</sheetData>")
}

fn saved(folder: &TempDir, name: &str, workbook: &mut Workbook) {
    write(folder, name, workbook.save_to_buffer().unwrap());
}

#[test]
fn every_kind_of_cell_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write_row(0, 0, ["手机", "姓名", "开卡", "最近", "金额", "活跃", "合计", "错"]).unwrap();
    let day = Format::new().set_num_format("yyyy年m月d日");
    let moment = Format::new().set_num_format("yyyy-mm-dd hh:mm");
    sheet.write(1, 0, 13_900_001_201.0).unwrap();
    sheet.write_rich_string(1, 1, &[(&Format::new().set_bold(), "张"), (&Format::new(), "三")]).unwrap();
    sheet.write_with_format(1, 2, ExcelDateTime::from_ymd(2024, 1, 31).unwrap(), &day).unwrap();
    sheet.write_with_format(1, 3, ExcelDateTime::from_ymd(2025, 2, 28).unwrap().and_hms(10, 20, 30).unwrap(), &moment).unwrap();
    sheet.write(1, 4, 19.9).unwrap();
    sheet.write(1, 5, true).unwrap();
    sheet.write_formula(1, 6, Formula::new("=E2*2").set_result("39.8")).unwrap();
    sheet.write_formula(1, 7, Formula::new("=NA()").set_result("#N/A")).unwrap();
    sheet.write_row(2, 0, ["13900001202", "李\n四 ☎ 𠮷", "", "", "", "", "", "x"]).unwrap();
    saved(&folder, "a.xlsx", &mut workbook);
    let pulled = pull(&folder, "a.xlsx", json!({}));
    assert_eq!(pulled.columns, ["手机", "姓名", "开卡", "最近", "金额", "活跃", "合计", "错"]);
    assert_eq!(lines(&pulled), ["13900001201|张三|2024-01-31|2025-02-28 10:20:30|19.9|true|39.8|-", "13900001202|李\n四 ☎ 𠮷|-|-|-|-|-|x"]);
    assert_eq!(pulled.rejected, Vec::<String>::new());
}

#[test]
fn a_phone_is_exact_or_its_row_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet().set_name("会员").unwrap();
    sheet.write_row(0, 0, ["card", "phone"]).unwrap();
    let scientific = Format::new().set_num_format("0.00E+00");
    sheet.write(1, 0, "C1").unwrap().write_with_format(1, 1, 13_900_001_201.0, &scientific).unwrap();
    sheet.write_row(2, 0, ["C2", "1.39E+10"]).unwrap();
    sheet.write_row(3, 0, ["C3", "1.3900001203E+10"]).unwrap();
    sheet.write(4, 0, 6_222_021_234_567_890_123.0).unwrap().write(4, 1, "13900001204").unwrap();
    sheet.write_row(5, 0, ["C5", "13900001205"]).unwrap();
    saved(&folder, "a.xlsx", &mut workbook);
    let pulled = pull(&folder, "a.xlsx", json!({}));
    assert_eq!(lines(&pulled), ["C1|13900001201", "C3|13900001203", "C5|13900001205"]);
    assert_eq!(pulled.rejected, ["a.xlsx:会员:3 row_digits_lost", "a.xlsx:会员:5 row_digits_lost"]);
    sheets_of(&folder, "c.xlsx", &[("13900001206", "6.22202E+18")], &["phone", "card"]);
    write(&folder, "b.csv", "phone\n");
    let pulled = pull(&folder, "[bc].*", json!({}));
    assert_eq!((pulled.ids(), pulled.rejected.len()), ("13900001206".into(), 0), "a column that is not read harms no row");
}

/// Writes a workbook of two columns; the folder.
fn sheets_of<'f>(folder: &'f TempDir, name: &str, rows: &[(&str, &str)], header: &[&str]) -> &'f TempDir {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write_row(0, 0, header.iter().copied()).unwrap();
    for (row, (a, b)) in (1..).zip(rows) {
        sheet.write_row(row, 0, [*a, *b]).unwrap();
    }
    saved(folder, name, &mut workbook);
    folder
}

#[test]
fn days_follow_the_epoch_of_the_workbook() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "<sheetData><row><c t=\"inlineStr\"><is><t>day</t></is></c></row><row><c s=\"1\"><v>45322</v></c></row></sheetData>";
    write(&folder, "a.xlsx", raw_workbook("", "", &[(rows, "visible")]));
    assert_eq!(pull(&folder, "a.xlsx", json!({})).ids(), "2024-01-31");
    write(&folder, "a.xlsx", raw_workbook("", "<workbookPr date1904=\"1\"/>", &[(rows, "visible")]));
    assert_eq!(pull(&folder, "a.xlsx", json!({})).ids(), "2028-02-01");
}

#[test]
fn the_header_is_found_below_titles_and_in_merged_cells() {
    let folder = tempfile::tempdir().unwrap();
    let mut workbook = Workbook::new();
    let (sheet, format) = (workbook.add_worksheet(), Format::new());
    sheet.merge_range(0, 0, 0, 3, "会员导出", &format).unwrap();
    sheet.merge_range(2, 0, 3, 0, " 卡号 ", &format).unwrap();
    sheet.merge_range(2, 1, 3, 1, "手机", &format).unwrap();
    sheet.merge_range(2, 2, 2, 3, "消费", &format).unwrap();
    sheet.write_row(3, 2, ["次数", "金额"]).unwrap();
    sheet.write_row(4, 0, ["C1", "13900001201", "2", "19.9"]).unwrap();
    saved(&folder, "a.xlsx", &mut workbook);
    for header in [json!("auto"), json!(4)] {
        let pulled = pull(&folder, "a.xlsx", json!({"header": header}));
        assert_eq!(pulled.columns, ["卡号", "手机", "次数", "金额"]);
        assert_eq!(lines(&pulled), ["C1|13900001201|2|19.9"]);
    }
    let pulled = pull(&folder, "a.xlsx", json!({"header": "none", "columns": ["a", "b"]}));
    assert_eq!(lines(&pulled), ["会员导出|-", " 卡号 |手机", "C1|13900001201"], "cells are as they stand");
    assert_eq!(
        error(&folder, "a.xlsx", json!({"header": 2})),
        "invalid data: a.xlsx:Sheet1: no row starts on line 2, where `header` says the header is; \
         name the header's line with `header = 3`, or use header = \"none\" with `columns`"
    );
}

#[test]
fn names_of_columns_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    sheets_of(&folder, "a.xlsx", &[], &["phone", "", "name", "phone"]);
    assert_eq!(
        error(&folder, "a.xlsx", json!({})),
        "invalid data: a.xlsx:Sheet1:1: two columns are named \"phone\", in places 1 and 4; give each column a name of its own"
    );
    sheets_of(&folder, "a.xlsx", &[("1", "2")], &["phone", "", "name"]);
    assert_eq!(pull(&folder, "a.xlsx", json!({})).columns, ["phone", "column_2", "name"]);
}

#[test]
fn one_sheet_is_read_and_the_others_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let sheets = [
        (rows_of(&[]), "visible"),
        (rows_of(&[&["phone"], &["1"]]), "hidden"),
        (rows_of(&[&["phone"], &["2"]]), "visible"),
        (rows_of(&[&["phone"], &["3"]]), "veryHidden"),
        (rows_of(&[&["phone"], &["4"]]), "visible"),
    ];
    let sheets: Vec<_> = sheets.iter().map(|(rows, state)| (rows.as_str(), *state)).collect();
    write(&folder, "a.xlsx", raw_workbook("", "", &sheets));
    assert_eq!(pull(&folder, "a.xlsx", json!({})).ids(), "2");
    let findings = source(&folder, "a.xlsx", json!({})).check(&Call::for_tests()).unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].message, "a.xlsx: only the sheet \"C\" is read, and not \"E\": `sheet` names the one to read");
    assert_eq!(pull(&folder, "a.xlsx", json!({"sheet": "D"})).ids(), "3");
    assert!(source(&folder, "a.xlsx", json!({"sheet": "D"})).check(&Call::for_tests()).unwrap().is_empty());
    assert_eq!(
        error(&folder, "a.xlsx", json!({"sheet": "X"})),
        "invalid data: a.xlsx has no sheet \"X\"; it has \"A\", \"B\", \"C\", \"D\", \"E\"; name one of them with `sheet`"
    );
    write(&folder, "b.xlsx", raw_workbook("", "", &sheets[..2]));
    assert_eq!(
        error(&folder, "b.xlsx", json!({})),
        "invalid data: b.xlsx shows no sheet that holds anything; hidden are \"B\"; name one of them with `sheet`"
    );
    write(&folder, "c.xlsx", raw_workbook("", "", &sheets[..1]));
    let empty = pull(&folder, "c.xlsx", json!({}));
    assert_eq!((empty.rows.len(), empty.columns.len(), empty.ended), (0, 0, true));
}

#[test]
fn what_programs_other_than_excel_write_is_read() {
    let folder = tempfile::tempdir().unwrap();
    // A wrong dimension, rows and cells without places, empty rows and columns that are formatted, texts
    // of several kinds, and an error that is new.
    let texts = "<si><t>phone</t></si><si><r><t>na</t></r><r><t>me</t></r></si><si/><si><t>张<!-- --></t><rPh><t>zhang</t></rPh></si>";
    let rows = "<dimension ref=\"A1:B2\"/><sheetData>\
        <row><c t=\"s\"><v>0</v></c><c t=\"s\"><v>1</v></c><c s=\"1\"/></row>\
        <row><c><v>13900001201</v></c><c t=\"s\"><v>3</v></c></row>\
        <row><c s=\"1\"/><c s=\"1\"/></row>\
        <row r=\"9\"><c r=\"A9\" t=\"inlineStr\"><is><t>13900001202</t></is></c><c r=\"B9\" t=\"s\"><v>2</v></c></row>\
        <row r=\"10\"><c r=\"A10\" t=\"str\"><f>1</f><v>13900001203</v></c><c r=\"B10\" t=\"e\"><v>#SPILL!</v></c></row>\
        <row r=\"11\"><c r=\"A11\"><v>1.3900001204E10</v></c><c r=\"Z11\"><v>9</v></c></row>\
        <row r=\"12\"><c r=\"Z12\"><v>9</v></c></row>\
        <row r=\"1048576\"><c r=\"A1048576\" s=\"1\"/></row></sheetData>";
    write(&folder, "a.xlsx", raw_workbook(texts, "", &[(rows, "visible")]));
    let pulled = pull(&folder, "a.xlsx", json!({}));
    assert_eq!(pulled.columns, ["phone", "name"]);
    assert_eq!(lines(&pulled), ["13900001201|张", "13900001202|-", "13900001203|-", "13900001204|-"]);
    assert_eq!(pulled.rejected, Vec::<String>::new());
}

#[test]
fn rows_that_cannot_be_read_harm_none_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(100);
    let rows = rows_of(&[&["phone", "name"], &["1", "a"], &["2", &long], &["3", "_x0000_"], &["4", "NULL"]]);
    write(&folder, "a.xlsx", raw_workbook("", "", &[(&rows, "visible")]));
    let pulled = pull(&folder, "a.xlsx", json!({"row_bytes_max": 64, "nulls": ["NULL"]}));
    assert_eq!(lines(&pulled), ["1|a", "4|-"]);
    assert_eq!(pulled.rejected, ["a.xlsx:A:3 row_too_long", "a.xlsx:A:4 row_nul"]);
}

#[test]
fn a_workbook_that_is_damaged_says_so_and_shows_no_cell() {
    let folder = tempfile::tempdir().unwrap();
    let header = "<row><c t=\"inlineStr\"><is><t>phone</t></is></c></row>";
    let of = |texts: &str, rows: &str| {
        write(&folder, "a.xlsx", raw_workbook(texts, "", &[(&format!("<sheetData>{header}{rows}"), "visible")]));
        error(&folder, "a.xlsx", json!({}))
    };
    let mut whole = raw_workbook("", "", &[(&rows_of(&[&["phone"]]), "visible")]);
    whole.truncate(whole.len() / 2);
    write(&folder, "cut.xlsx", whole);
    write(&folder, "none.xlsx", "");
    write(&folder, "text.parquet", "phone\n1\n");
    write(&folder, "page.xls", "<html><table><tr><td>13900001201</td></tr></table></html>");
    let errors = [
        of("", "<row><c t=\"b\"><v>13900001201</v></c></row></sheetData>"),
        of("", "<row><c t=\"13900001201\"><v>1</v></c></row></sheetData>"),
        of("", "<row><c t=\"s\"><v>13900001201</v></c></row></sheetData>"),
        of("", "<row><c><v>13900001201</v></c>"),
        error(&folder, "cut.xlsx", json!({})),
        error(&folder, "none.xlsx", json!({})),
        error(&folder, "text.parquet", json!({})),
        error(&folder, "page.xls", json!({})),
        error(&folder, "a.xlsx", json!({"format": "csv"})),
        error(&folder, "text.parquet", json!({"format": "xls"})),
    ];
    assert!(errors.iter().all(|error| !error.contains("1390000")));
    insta::assert_snapshot!(errors.join("\n"), @r#"
    invalid data: a.xlsx is no whole workbook: its XML is not that of a workbook; open it in a spreadsheet program and save it again
    invalid data: a.xlsx is no whole workbook: its XML is not that of a workbook; open it in a spreadsheet program and save it again
    invalid data: a.xlsx is no whole workbook: unexpected in its XML: Cell string index not found in shared strings table; open it in a spreadsheet program and save it again
    invalid data: a.xlsx is no whole workbook: its XML ends within "sheetData"; open it in a spreadsheet program and save it again
    invalid data: cut.xlsx is no whole workbook: it is damaged or cut off; open it in a spreadsheet program and save it again
    invalid data: none.xlsx is empty, and not an Excel workbook (.xlsx); write the file again
    invalid data: text.parquet is not a Parquet file; write the file again, or set format = "auto"
    invalid data: page.xls is a web page or XML, not CSV or TSV; open it in a spreadsheet program and save it as .xlsx or "CSV UTF-8"
    invalid data: a.xlsx is an Excel workbook (.xlsx), not CSV or TSV; set format = "auto"
    invalid data: text.parquet is not an old Excel workbook (.xls); write the file again, or set format = "auto"
    "#);
}

#[test]
fn an_old_workbook_is_read_as_a_new_one_is() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in [&include_bytes!("fixtures/members.xls")[..], include_bytes!("fixtures/members-1904.xls")] {
        write(&folder, "a.xls", bytes);
        let pulled = pull(&folder, "a.xls", json!({}));
        assert_eq!(pulled.columns, ["手机", "姓名", "开卡", "最近", "金额", "活跃"]);
        assert_eq!(
            lines(&pulled),
            ["13900001201|张三|2024-01-31|2025-02-28 10:20:30|19.9|true", "13900001203|-|-|-|-|-", "13900001204|-|-|-|-|-"]
        );
        assert_eq!(pulled.rejected, ["a.xls:会员:5 row_digits_lost"]);
        let hidden = source(&folder, "a.xls", json!({"sheet": "旧"})).schema(&Call::for_tests()).unwrap();
        assert_eq!(hidden.field(0).name(), "phone");
    }
    // A file that is too large is not even looked at.
    let file = std::fs::File::options().write(true).open(folder.path().join("a.xls")).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    assert_eq!(
        error(&folder, "a.xls", json!({})),
        "invalid data: a.xls has more than 64 MiB, and an .xls is read whole; save it as .xlsx, which may be larger"
    );
}

#[test]
fn a_workbook_under_a_password_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = include_bytes!("fixtures/members.xls").to_vec();
    // The record behind the first becomes the one that says how to decrypt the others.
    old[512 + 20..512 + 22].copy_from_slice(&[0x2f, 0]);
    write(&folder, "protected.xls", old);
    write(&folder, "protected.xlsx", include_bytes!("fixtures/protected.xlsx"));
    for name in ["protected.xlsx", "protected.xls"] {
        assert_eq!(error(&folder, name, json!({})), format!("invalid data: {name} is protected by a password; save it without one"));
    }
    write(&folder, "cut.xls", &include_bytes!("fixtures/members.xls")[..600]);
    assert_eq!(
        error(&folder, "cut.xls", json!({})),
        "invalid data: cut.xls is no whole workbook: it is damaged or cut off; \
         open it in a spreadsheet program and save it again"
    );
}

#[test]
fn text_that_is_called_a_workbook_is_read_as_text() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.xls", encoding_rs::GB18030.encode("手机\t姓名\n13900001201\t张三\n").0);
    assert_eq!(lines(&pull(&folder, "a.xls", json!({}))), ["13900001201|张三"]);
    write(&folder, "a.xls", "手机,姓名\n13900001201,张三\n");
    assert_eq!(lines(&pull(&folder, "a.xls", json!({}))), ["13900001201|张三"]);
}

#[test]
fn a_sheet_that_is_sorted_anew_has_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<_> = (0..50).map(|row| (format!("139000012{row:02}"), format!("member {row}"))).collect();
    let read = |order: &mut dyn Iterator<Item = &(String, String)>| {
        let rows: Vec<_> = order.map(|(phone, name)| (phone.as_str(), name.as_str())).collect();
        sheets_of(&folder, "a.xlsx", &rows, &["phone", "name"]);
        let mut lines = lines(&pull(&folder, "a.xlsx", json!({})));
        lines.sort();
        lines
    };
    assert_eq!(read(&mut rows.iter()), read(&mut rows.iter().rev()));
}

/// Two workbooks, the first of more rows than a state covers.
fn large(folder: &TempDir) -> usize {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut workbook = Workbook::new();
        let sheet = workbook.add_worksheet();
        sheet.write(0, 0, "id").unwrap().write(0, 1, "text").unwrap();
        for row in 1..=80_000 {
            sheet.write(row, 0, row).unwrap().write(row, 1, if row % 20_000 == 0 { "1.39E+10" } else { "x" }).unwrap();
        }
        workbook.save_to_buffer().unwrap()
    });
    write(folder, "a.xlsx", &*BYTES);
    sheets_of(folder, "b.xlsx", &[("90000", "y")], &["text", "id"]);
    80_001
}

#[test]
fn a_pull_goes_on_after_any_state_unless_the_workbook_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let all = large(&folder);
    let source = source(&folder, "*.xlsx", json!({}));
    let (mut before, mut states) = (Pulled::default(), Vec::new());
    for item in begin(&source, ReadMode::Snapshot, false, None).unwrap() {
        before.add(item.unwrap());
        if let Some(state) = before.state.take() {
            states.push((state, before.rows.len(), before.rejected.len()));
        }
    }
    assert_eq!((states.len(), before.rows.len() + before.rejected.len(), before.rejected.len()), (3, all, 4));
    for (state, rows, rejected) in &states {
        let rest = read_with(&source, ReadMode::Snapshot, true, Some(state.clone())).unwrap();
        assert!(rest.resumed);
        assert_eq!((rows + rest.rows.len(), rejected + rest.rejected.len()), (all - 4, 4));
    }
    let path = folder.path().join("a.xlsx");
    let (time, mut bytes) = (path.metadata().unwrap().modified().unwrap(), std::fs::read(&path).unwrap());
    // Any byte counts, of the same size and time.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes[..]).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let anew = read_with(&source, ReadMode::Snapshot, true, Some(states[0].0.clone()));
    assert!(anew.is_err() || !anew.unwrap().resumed);
}

#[test]
fn cancel_ends_the_read_of_a_workbook() {
    let folder = tempfile::tempdir().unwrap();
    large(&folder);
    let (call, canceller) = TestCall::default().start();
    let request = ReadRequest::new(ReadMode::Snapshot);
    let mut items = source(&folder, "a.xlsx", json!({})).read(&call, request.clone(), None).unwrap();
    assert!(matches!(items.find(|item| !matches!(item, Ok(Item::Begin { .. }))), Some(Ok(Item::Batch(_)))));
    canceller.cancel();
    assert_eq!(items.find_map(Result::err).expect("cancelled").class, ErrorClass::Cancelled);
    let error = source(&folder, "a.xlsx", json!({})).read(&call, request, None).map(|_| ()).unwrap_err();
    assert_eq!(error.class, ErrorClass::Cancelled);
}

#[test]
fn a_workbook_that_changes_under_the_read_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    large(&folder);
    let mut items = begin(&source(&folder, "a.xlsx", json!({})), ReadMode::Snapshot, false, None).unwrap();
    assert!(items.any(|item| matches!(item, Ok(Item::Batch(_)))));
    let path = folder.path().join("a.xlsx");
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    let error = items.find_map(Result::err).expect("it changed");
    assert_eq!((error.class, error.message.as_str()), (ErrorClass::Unavailable, "a.xlsx changed while it was being read"));
}

#[test]
fn workbooks_and_texts_are_one_source() {
    let folder = tempfile::tempdir().unwrap();
    sheets_of(&folder, "a.xlsx", &[("13900001201", "张三")], &["phone", "name"]);
    write(&folder, "b.csv", "name,phone\n李四,13900001202\n");
    assert_eq!(lines(&pull(&folder, "*", json!({}))), ["13900001201|张三", "13900001202|李四"]);
}

/// Texts that Excel may hold, and that are no numbers in scientific notation.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![Just("张"), Just("𠮷"), Just("a"), Just("&<>\""), Just("\n"), Just("0"), Just("'"), Just("_")];
    prop::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_written_to_a_sheet_is_read(rows in prop::collection::vec((prop::option::of(text()), prop::option::of(0u64..10_u64.pow(15))), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let mut workbook = Workbook::new();
        let sheet = workbook.add_worksheet();
        sheet.write_row(0, 0, ["name", "phone"]).unwrap();
        for (row, (name, phone)) in (1..).zip(&rows) {
            name.as_ref().map(|name| sheet.write(row, 0, name).unwrap().write_blank(row, 5, &Format::new()).unwrap());
            phone.map(|phone| sheet.write(row, 1, phone).map(|_| ()).unwrap());
        }
        saved(&folder, "a.xlsx", &mut workbook);
        let expected: Vec<Vec<_>> =
            rows.iter().filter(|row| **row != (None, None)).map(|(name, phone)| vec![name.clone(), phone.map(|phone| phone.to_string())]).collect();
        prop_assert_eq!(pull(&folder, "a.xlsx", json!({})).rows, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_workbook_is_read_or_named(old in any::<bool>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), kept in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = if old { include_bytes!("fixtures/members.xls").to_vec() } else { raw_workbook("<si><t>x</t></si>", "", &[(&rows_of(&[&["phone"], &["13900001201"]]), "visible")]) };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if kept.index(4) == 0 {
            bytes.truncate(kept.index(bytes.len()));
        }
        write(&folder, "a.xls", bytes);
        if let Err(error) = snapshot(&source(&folder, "a.xls", json!({}))) {
            prop_assert!(error.class == ErrorClass::InvalidData, "{}", error);
            prop_assert!(!error.message.contains("1390000"), "{}", error);
        }
    }
}
