//! A list in a workbook without card numbers, by the real binary: its rows are told apart by phone.

#![allow(clippy::unwrap_used)]

use reunion_integration_tests::harness::{OPENING, Retailer, assert_sums, count};
use rust_xlsxwriter::Workbook;

const CONFIG: &str = r#"[sources.regulars]
plugin = "file"
mode = "snapshot"
key = ["phone"]
columns = { phone = "手机", name = "姓名" }
with = { path = "regulars.xlsx", settle_secs = 0 }
[campaigns.hello]
audience = "phone_only"
channel = "lists"
holdout = 0.0
[channels.lists]
plugin = "file"
with = { path = "out/{date}-{run}.csv" }
[pipelines.daily]
sources = ["regulars"]
campaigns = ["hello"]
"#;

fn write(retailer: &Retailer, numbers: impl Iterator<Item = u32>) {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write_row(0, 0, ["手机", "姓名"]).unwrap();
    for (row, number) in (1..).zip(numbers) {
        sheet.write_number(row, 0, f64::from(number) + 13_900_120_000.0).unwrap();
        sheet.write_string(row, 1, format!("客{number}")).unwrap();
    }
    retailer.write_bytes("regulars.xlsx", &workbook.save_to_buffer().unwrap());
}

#[test]
fn a_sheet_that_is_sorted_anew_changes_nothing() {
    let mut retailer = Retailer::new(&format!("{OPENING}{CONFIG}"));
    write(&retailer, 1..51);
    let first = retailer.once();
    assert_sums(&first);
    assert_eq!((count(&first, "/sources/regulars/new"), count(&first, "/channels/lists/sent")), (50, 50));
    let members = retailer.query("select * from members order by member_id");

    retailer.pass_days(1);
    write(&retailer, (1..51).rev());
    let second = retailer.once();
    assert_sums(&second);
    let counts = ["new", "changed", "unchanged", "deleted"].map(|name| count(&second, &format!("/sources/regulars/{name}")));
    assert_eq!(counts, [0, 0, 50, 0]);
    assert_eq!(retailer.query("select * from members order by member_id"), members);

    // A row in the middle goes, another comes: the rows behind it stay who they are.
    retailer.pass_days(1);
    write(&retailer, (1..52).filter(|number| *number != 20));
    let third = retailer.once();
    let counts = ["new", "changed", "unchanged", "deleted"].map(|name| count(&third, &format!("/sources/regulars/{name}")));
    assert_eq!(counts, [1, 0, 49, 1]);
}
