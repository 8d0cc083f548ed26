//! Writes what the demo has beside the two exports of `generate`: the database of a counter's own little ERP, and a
//! list of regulars that somebody keeps by hand. No name or number in them is real.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use reunion_integration_tests::generator::{Made, Plan, make};
use rust_xlsxwriter::{ExcelDateTime, Format, FormatAlign, Workbook};
use sqlx::{ConnectOptions, Connection};

/// Writes counter.db and regulars.xlsx into a folder.
#[derive(Parser)]
struct Arguments {
    /// The folder, with the exports that `generate` has written with its defaults beside.
    folder: PathBuf,
}

const CARDS: usize = 60;
/// Of these, members of the tills too.
const KNOWN: usize = 40;
const REGULARS: usize = 30;
const GOODS: [&str; 4] = ["护肤", "彩妆", "香水", "母婴"];
const NAMES: [&str; 5] = ["王静", "李伟", "张敏", "刘洋", "陈丽"];

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { folder } = Arguments::parse();
    let made = make(&Plan { rows: 3_000, seed: 1, stores: 12, changed: 0.0, unreadable: false });
    let phones = phones(&made);
    write_counter(&folder.join("counter.db"), &phones)?;
    write_regulars(&folder.join("regulars.xlsx"), &phones)
}

/// Phones of members of the tills, spread over the export, and then new ones.
fn phones(made: &Made) -> Vec<String> {
    let plain = |phone: &&String| phone.len() == 11 && phone.bytes().all(|byte| byte.is_ascii_digit());
    let known = made.exports[0].rows.iter().map(|row| &row[2]).filter(plain).step_by(17).take(KNOWN).cloned();
    known.chain((0..CARDS - KNOWN).map(|at| format!("139{}", 21_000 * 1_000 + at * 7 + 10_037))).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn write_counter(path: &Path, phones: &[String]) -> Result<(), Box<dyn Error>> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    let mut database = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await?;
    let mut sql = String::from(
        "create table member (card text primary key, mobile text, name text, opened text, changed text);
         create table sale (number integer primary key, card text, sold text, fen integer, goods text, returns integer);
         create index sale_card on sale (card);",
    );
    let mut number = 0;
    for (at, phone) in phones.iter().enumerate() {
        let (month, day) = (at % 12 + 1, at % 28 + 1);
        let name = NAMES[at % NAMES.len()];
        sql += &format!(
            "insert into member values ('K{at:03}', '{phone}', '{name}', '2024-{month:02}-{day:02}', '2025-{month:02}-{day:02} 10:00:00');"
        );
        for sale in 0..at % 4 + 1 {
            number += 1;
            let (fen, goods) = ((at * 37 + sale * 11) % 400 * 100 + 5_990, GOODS[(at + sale) % GOODS.len()]);
            sql += &format!(
                "insert into sale values ({number}, 'K{at:03}', '2025-{month:02}-{:02} 15:30:00', {fen}, '{goods}', null);",
                day.min(24) + sale
            );
        }
        // Every ninth brings the last thing back.
        if at % 9 == 8 {
            number += 1;
            let of = number - 1;
            sql +=
                &format!("insert into sale select {number}, card, '2025-12-20 11:00:00', -fen, goods, {of} from sale where number = {of};");
        }
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut database).await?;
    sqlx::raw_sql("vacuum").execute(&mut database).await?;
    Ok(database.close().await?)
}

/// A list as people keep it: a title over all columns, phones as numbers, and dates as dates.
fn write_regulars(path: &Path, phones: &[String]) -> Result<(), Box<dyn Error>> {
    let mut workbook = Workbook::new();
    // The same bytes whenever it is written.
    workbook.set_properties(&rust_xlsxwriter::DocProperties::new().set_creation_datetime(&ExcelDateTime::from_ymd(2026, 9, 1)?));
    let sheet = workbook.add_worksheet().set_name("老客")?;
    let title = Format::new().set_bold().set_align(FormatAlign::Center);
    let date = Format::new().set_num_format("yyyy/m/d");
    sheet.merge_range(0, 0, 0, 3, "老客名单(店长手工维护)", &title)?;
    for (column, header) in [(0, "手机"), (1, "姓名"), (2, "生日"), (3, "备注")] {
        sheet.write_with_format(1, column, header, &Format::new().set_bold())?;
    }
    for (at, phone) in phones.iter().rev().step_by(2).take(REGULARS).enumerate() {
        let row = u32::try_from(at)? + 2;
        sheet.write_number(row, 0, phone.parse::<f64>()?)?;
        sheet.write_string(row, 1, NAMES[at % NAMES.len()])?;
        sheet.write_datetime_with_format(
            row,
            2,
            ExcelDateTime::from_ymd(1980 + u16::try_from(at)?, 9, u8::try_from(at % 28 + 1)?)?,
            &date,
        )?;
        sheet.write_string(row, 3, if at % 3 == 0 { "喜欢香水" } else { "" })?;
    }
    Ok(workbook.save(path)?)
}
