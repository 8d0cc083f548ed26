//! Parquet and dBASE tables as the host sees them: files in, items out.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::sync::Arc;

use common::{Pulled, begin, error, lines, pull, read_with, snapshot, source, write};
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use reunion_sdk::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array, ListArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use reunion_sdk::arrow::datatypes::Int32Type;
use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, ErrorClass, Item, ReadMode, ReadRequest, Source};
use serde_json::json;
use tempfile::TempDir;

fn parquet(columns: Vec<(&str, ArrayRef)>, compression: Compression) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    let properties = WriterProperties::builder().set_compression(compression).set_max_row_group_row_count(Some(30_000)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn strings(cells: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(cells.to_vec()))
}

#[test]
fn columns_of_parquet_keep_their_types() {
    let folder = tempfile::tempdir().unwrap();
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)]), None, None]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("phone", Arc::new(Int64Array::from(vec![Some(13_900_001_201), None, Some(13_900_001_203)]))),
        ("name", strings(&[Some("张三"), None, Some("李四")])),
        ("tags", Arc::new(lists)),
        ("store", Arc::new([Some("S1"), None, Some("S2")].into_iter().collect::<DictionaryArray<Int32Type>>())),
        ("spent", Arc::new(Decimal128Array::from(vec![Some(1990), None, Some(5)]).with_precision_and_scale(12, 2).unwrap())),
        ("rate", Arc::new(Float64Array::from(vec![Some(0.5), None, None]))),
        ("active", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("joined", Arc::new(Date32Array::from(vec![Some(19_753), None, None]))),
        ("last", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_706_696_430_000_000), None, None]))),
        ("seen", Arc::new(TimestampMicrosecondArray::from(vec![None, None, None]).with_timezone("UTC"))),
        ("photo", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"x"), None, None]))),
    ];
    write(&folder, "a.parquet", parquet(columns, Compression::SNAPPY));
    let source = source(&folder, "a.parquet", json!({}));
    let schema = source.schema(&Call::for_tests()).unwrap();
    let types: Vec<_> = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    insta::assert_snapshot!(types.join("\n"), @r#"
    phone Int64
    name Utf8
    store Utf8
    spent Decimal128(12, 2)
    rate Float64
    active Boolean
    joined Date32
    last Timestamp(µs)
    seen Timestamp(µs, "UTC")
    "#);
    let pulled = snapshot(&source).unwrap();
    assert_eq!(
        lines(&pulled),
        ["13900001201|张三|S1|19.90|0.5|true|2024-01-31|2024-01-31T10:20:30|-", "13900001203|李四|S2|0.05|-|false|-|-|-"]
    );
    let findings: Vec<_> = source.check(&Call::for_tests()).unwrap().into_iter().map(|finding| finding.message).collect();
    insta::assert_snapshot!(findings.join("\n"), @r#"
    a.parquet: the column "tags" holds lists, which no column of a member can be, and is not read
    a.parquet: the column "photo" holds bytes, which no column of a member can be, and is not read
    "#);
}

#[test]
fn parquet_is_read_by_each_codec() {
    let folder = tempfile::tempdir().unwrap();
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ];
    for codec in codecs {
        write(&folder, "members", parquet(vec![("phone", strings(&[Some("13900001201"), Some("13900001202")]))], codec));
        assert_eq!(pull(&folder, "members", json!({})).ids(), "13900001201 13900001202", "{codec:?}, told by its first bytes");
    }
}

#[test]
fn rows_of_parquet_that_cannot_be_read_harm_none_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(100);
    let names = strings(&[Some("a"), Some(&long), Some("\0"), None, Some("e")]);
    let phones = strings(&[Some("1"), Some("2"), Some("3"), None, Some("5")]);
    write(&folder, "a.parquet", parquet(vec![("phone", phones), ("name", names)], Compression::SNAPPY));
    let pulled = pull(&folder, "a.parquet", json!({"row_bytes_max": 64}));
    assert_eq!(lines(&pulled), ["1|a", "5|e"]);
    assert_eq!(pulled.rejected, ["a.parquet:2 row_too_long", "a.parquet:3 row_nul"]);
}

#[test]
fn parquet_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = parquet(vec![("phone", strings(&[Some("1")]))], Compression::SNAPPY);
    write(&folder, "cut.parquet", &whole[..whole.len() / 2]);
    write(&folder, "bytes.parquet", parquet(vec![("phone", Arc::new(BinaryArray::from_vec(vec![b"1"])))], Compression::SNAPPY));
    let errors = [error(&folder, "cut.parquet", json!({})), error(&folder, "bytes.parquet", json!({}))];
    insta::assert_snapshot!(errors.join("\n"), @r#"
    invalid data: cut.parquet is no whole Parquet file: Parquet error: Invalid Parquet file. Corrupt footer; write it again
    invalid data: bytes.parquet has no column that can be read; the column "phone" holds bytes, which no column of a member can be, and is not read
    "#);
    write(&folder, "x1.parquet", whole);
    write(&folder, "x2.parquet", parquet(vec![("phone", Arc::new(Int64Array::from(vec![1])))], Compression::SNAPPY));
    assert_eq!(
        error(&folder, "x*.parquet", json!({})),
        "invalid data: the column \"phone\" is Int64 in x2.parquet, and Utf8 in the first file; \
         give a column the same type in all files of `path`"
    );
}

/// Parquet of more rows than a state covers, and its columns in another order in a second file.
fn large(folder: &TempDir) -> usize {
    let ids = || Arc::new((0..100_000).collect::<Int64Array>()) as ArrayRef;
    let names = || Arc::new((0..100_000).map(|row| Some(format!("name {row}"))).collect::<StringArray>()) as ArrayRef;
    write(folder, "a.parquet", parquet(vec![("id", ids()), ("name", names())], Compression::SNAPPY));
    write(
        folder,
        "b.parquet",
        parquet(vec![("name", strings(&[Some("x")])), ("id", Arc::new(Int64Array::from(vec![7])))], Compression::SNAPPY),
    );
    100_001
}

#[test]
fn a_pull_of_parquet_goes_on_after_any_state() {
    let folder = tempfile::tempdir().unwrap();
    let all = large(&folder);
    let source = source(&folder, "*.parquet", json!({}));
    let (mut before, mut states) = (Pulled::default(), Vec::new());
    for item in begin(&source, ReadMode::Snapshot, false, None).unwrap() {
        before.add(item.unwrap());
        if let Some(state) = before.state.take() {
            states.push((state, before.rows.len()));
        }
    }
    assert_eq!((states.len(), before.rows.len()), (3, all));
    assert_eq!(before.rows[all - 1], [Some("7".into()), Some("x".into())]);
    for (state, rows) in &states {
        let rest = read_with(&source, ReadMode::Snapshot, true, Some(state.clone())).unwrap();
        assert!(rest.resumed);
        assert_eq!(rows + rest.rows.len(), all);
    }
}

#[test]
fn cancel_ends_the_read_of_a_table() {
    let folder = tempfile::tempdir().unwrap();
    large(&folder);
    let rows: Vec<_> = (0..20_000).map(|_| vec!["1".to_owned()]).collect();
    write(&folder, "c.dbf", dbf(0x03, &[("ID", 'C', 10, 0)], &rows));
    for name in ["a.parquet", "c.dbf"] {
        let (call, canceller) = TestCall::default().start();
        let request = ReadRequest::new(ReadMode::Snapshot);
        let mut items = source(&folder, name, json!({})).read(&call, request, None).unwrap();
        assert!(items.any(|item| matches!(item, Ok(Item::Batch(_)))));
        canceller.cancel();
        assert_eq!(items.find_map(Result::err).expect("cancelled").class, ErrorClass::Cancelled);
    }
}

/// A table of columns (name, type, bytes, flags) and rows, whose cells are filled up with spaces; a row that begins
/// with a star is deleted.
fn dbf(version: u8, columns: &[(&str, char, u8, u8)], rows: &[Vec<String>]) -> Vec<u8> {
    let cells: Vec<Vec<_>> =
        rows.iter().map(|row| row.iter().map(|cell| encoding_rs::GB18030.encode(cell).0.into_owned()).collect()).collect();
    dbf_of_bytes(version, columns, &cells)
}

fn dbf_of_bytes(version: u8, columns: &[(&str, char, u8, u8)], rows: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let row_bytes = 1 + columns.iter().map(|(_, _, bytes, _)| u16::from(*bytes)).sum::<u16>();
    let start = 32 + 32 * columns.len() as u16 + 1;
    let mut table = vec![version, 124, 1, 31];
    table.extend((rows.len() as u32).to_le_bytes());
    table.extend(start.to_le_bytes());
    table.extend(row_bytes.to_le_bytes());
    table.extend([0; 17]);
    // A mark that says "Western European", as many programs in China write.
    table.extend([0x03, 0, 0]);
    for (name, kind, bytes, flags) in columns {
        let mut field = [0; 32];
        let name = encoding_rs::GB18030.encode(name).0;
        field[..name.len()].copy_from_slice(&name);
        (field[11], field[16], field[18]) = (*kind as u8, *bytes, *flags);
        table.extend(field);
    }
    table.push(0x0d);
    for row in rows {
        let is_deleted = row[0].starts_with(b"*");
        table.push(if is_deleted { b'*' } else { b' ' });
        for (cell, (_, kind, bytes, _)) in row.iter().zip(columns) {
            let (bytes, fill) = (usize::from(*bytes), vec![b' '; usize::from(*bytes).saturating_sub(cell.len())]);
            let cell = if matches!(kind, 'N' | 'F') { [fill, cell.clone()].concat() } else { [cell.clone(), fill].concat() };
            table.extend(&cell[..bytes]);
        }
    }
    table.push(0x1a);
    table
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

#[test]
fn a_dbase_table_is_read_as_gbk_whatever_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let columns = [
        ("卡号", 'C', 6, 0),
        ("PHONE", 'N', 11, 0),
        ("NAME", 'C', 8, 0),
        ("JOINED", 'D', 8, 0),
        ("OK", 'L', 1, 0),
        ("SPENT", 'F', 9, 0),
        ("MEMO", 'M', 10, 0),
    ];
    let rows = [
        row(&["C1", "13900001201", "欧阳小明", "20240131", "T", "19.90", "1"]),
        row(&["*gone", "1", "", "", "", "", ""]),
        row(&["C3", "13900001203", "李四", "00000000", "n", "*********", ""]),
        row(&["", "", "", "", "?", "", ""]),
        row(&["C5", "1.39E+10", "", "        ", " ", "-0.5", ""]),
    ];
    write(&folder, "a.dbf", dbf(0x83, &columns, &rows));
    let source = source(&folder, "a.dbf", json!({}));
    let pulled = snapshot(&source).unwrap();
    assert_eq!(pulled.columns, ["卡号", "PHONE", "NAME", "JOINED", "OK", "SPENT"]);
    assert_eq!(lines(&pulled), ["C1|13900001201|欧阳小明|2024-01-31|true|19.90", "C3|13900001203|李四|-|false|-"]);
    assert_eq!(pulled.rejected, ["a.dbf:5 row_digits_lost"]);
    let findings = source.check(&Call::for_tests()).unwrap();
    assert_eq!(findings[0].message, "a.dbf: the column \"MEMO\" is a memo, which lies in another file, and is not read");
}

#[test]
fn a_foxpro_table_has_moments_and_nulls() {
    let folder = tempfile::tempdir().unwrap();
    let columns =
        [("AT", 'T', 8, 0), ("N", 'I', 4, 2), ("SPENT", 'Y', 8, 0), ("RATE", 'B', 8, 0), ("NAME", 'C', 5, 2), ("_NullFlags", '0', 1, 1)];
    let at = [2_460_341i32.to_le_bytes(), 37_230_000i32.to_le_bytes()].concat();
    let cells = |nulls: u8, name: &[u8]| {
        vec![
            at.clone(),
            7i32.to_le_bytes().to_vec(),
            (-199_005i64).to_le_bytes().to_vec(),
            0.25f64.to_le_bytes().to_vec(),
            name.to_vec(),
            vec![nulls],
        ]
    };
    // A name of three characters of two bytes each, in a column of five.
    let name = encoding_rs::GB18030.encode("欧阳明").0.into_owned();
    write(&folder, "a.dbf", dbf_of_bytes(0x30, &columns, &[cells(0, &name), cells(1, b"x"), cells(2, b"x"), cells(0, b"\xff\xff")]));
    let pulled = pull(&folder, "a.dbf", json!({}));
    assert_eq!(
        lines(&pulled),
        ["2024-01-31 10:20:30|7|-19.9005|0.25|欧阳", "2024-01-31 10:20:30|-|-19.9005|0.25|x", "2024-01-31 10:20:30|7|-19.9005|0.25|-",]
    );
    assert_eq!(pulled.rejected, ["a.dbf:4 row_bad_encoding"]);
}

#[test]
fn a_table_in_utf_8_is_read_where_the_config_says_so() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.dbf", dbf_of_bytes(0x03, &[("NAME", 'C', 10, 0)], &[vec!["张三".as_bytes().to_vec()]]));
    assert_eq!(pull(&folder, "a.dbf", json!({"encoding": "utf-8"})).ids(), "张三");
}

#[test]
fn a_table_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = dbf(0x03, &[("ID", 'C', 4, 0)], &[row(&["1"]), row(&["2"])]);
    let of = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut table = whole.clone();
        change(&mut table);
        write(&folder, "a.dbf", table);
        error(&folder, "a.dbf", json!({}))
    };
    let errors = [
        of(&|table| table.truncate(20)),
        of(&|table| table.truncate(table.len() - 4)),
        of(&|table| table[0] = b'x'),
        of(&|table| table[0] = 0x04),
        of(&|table| table[10] = 9),
        of(&|table| table[15] = 1),
    ];
    insta::assert_snapshot!(errors.join("\n"), @r"
    invalid data: a.dbf is not a dBASE table (.dbf); write the file again, or set `format`
    invalid data: a.dbf says that it has 2 rows, and ends after 1; it was cut off while being written or copied: copy it again
    invalid data: a.dbf is not a dBASE table (.dbf); write the file again, or set `format`
    invalid data: a.dbf is a table of dBASE 7, which is not read; save it as dBASE IV or CSV
    invalid data: a.dbf is not a dBASE table (.dbf); write the file again, or set `format`
    invalid data: a.dbf is encrypted; save it without encryption
    ");
    write(&folder, "b.dbf", dbf(0x03, &[("ID", 'C', 4, 0), ("ID", 'C', 4, 0)], &[]));
    assert!(error(&folder, "b.dbf", json!({})).contains("two columns are named \"ID\", in places 1 and 2"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_written_to_a_table_is_read(rows in prop::collection::vec(("[a-c张三 ]{0,6}", prop::option::of(0u64..10_u64.pow(18))), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let cells: Vec<_> = rows.iter().map(|(name, number)| vec![name.clone(), number.map(|number| number.to_string()).unwrap_or_default()]).collect();
        write(&folder, "a.dbf", dbf(0x03, &[("NAME", 'C', 12, 0), ("NUMBER", 'N', 18, 0)], &cells));
        let value = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let expected: Vec<Vec<_>> = cells.iter().map(|row| vec![value(row[0].trim_end_matches(' ')), value(&row[1])]).filter(|row| row.iter().any(Option::is_some)).collect();
        prop_assert_eq!(pull(&folder, "a.dbf", json!({})).rows, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_table_is_read_or_named(
        is_dbf in any::<bool>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), kept in any::<prop::sample::Index>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let phones = strings(&[Some("13900001201"), None, Some("13900001203")]);
        let ids = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let mut bytes = if is_dbf {
            dbf(0x03, &[("ID", 'N', 4, 0), ("PHONE", 'C', 11, 0)], &[row(&["1", "13900001201"]), row(&["2", ""])])
        } else {
            parquet(vec![("id", ids), ("phone", phones)], Compression::SNAPPY)
        };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if kept.index(4) == 0 {
            bytes.truncate(kept.index(bytes.len()));
        }
        let name = if is_dbf { "a.dbf" } else { "a.parquet" };
        write(&folder, name, bytes);
        if let Err(error) = snapshot(&source(&folder, name, json!({}))) {
            prop_assert!(error.class == ErrorClass::InvalidData, "{}", error);
            prop_assert!(!error.message.contains("1390000"), "{}", error);
        }
    }
}
