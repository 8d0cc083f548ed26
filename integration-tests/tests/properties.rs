//! What a run comes to depends on what it is told, and not on the order of rows, how they are cut into
//! files, how many cores there are, or what happened before.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use reunion_integration_tests::generator::Plan;
use reunion_integration_tests::harness::{HEADER, Picture, Retailer, assert_sums, comparable, count};
use serde_json::Value;

/// Small numbers that look random, the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at + 1));
        }
    }
}

fn csv_of(header: &[&str], rows: &[Vec<String>]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header).expect("a header");
    rows.iter().for_each(|row| writer.write_record(row).expect("a row"));
    writer.into_inner().expect("a file")
}

#[test]
fn order_cut_and_cores_do_not_matter() {
    for seed in [1, 2, 3] {
        let plan = Plan { rows: 700, seed, stores: 3, changed: 0.0, unreadable: false };
        let (mut retailer, _) = Retailer::generated(&plan);
        retailer.edit_config("per_run_max = 100000", "per_run_max = 25");
        let report = retailer.once();
        let picture = retailer.picture();
        let mut dice = Dice(seed);
        let (mut other, mut made) = Retailer::generated(&plan);
        other.edit_config("per_run_max = 100000", "per_run_max = 25");
        other.edit_config("path = \"till.csv\"", "path = \"till-*.csv\"");
        for export in &mut made.exports {
            dice.shuffle(&mut export.rows);
        }
        // The tills in several files, each with its columns in another order.
        let [till, shop] = &made.exports;
        for (part, rows) in till.rows.chunks(100 + dice.below(200)).enumerate() {
            let mut order: Vec<usize> = (0..till.header.len()).collect();
            dice.shuffle(&mut order);
            let header: Vec<&str> = order.iter().map(|at| till.header[*at]).collect();
            let rows: Vec<Vec<String>> = rows.iter().map(|row| order.iter().map(|at| row[*at].clone()).collect()).collect();
            other.write_bytes(&format!("till-{part}.csv"), &csv_of(&header, &rows));
        }
        other.write_bytes("shop.csv", &csv_of(shop.header, &shop.rows));
        // On one core.
        let mut command = Command::new("taskset");
        let run = other.command(&["once", "--format", "json", "--now", &other.now()]);
        command.args(["-c", "0"]).arg(run.get_program()).args(run.get_args()).current_dir(other.path("."));
        let same = other.finish(command).exits(0).json();
        assert_eq!(comparable(&same), comparable(&report), "seed {seed}");
        assert_eq!(other.picture(), picture, "seed {seed}");
    }
}

/// A shop whose rows change at random: new cards, cards that go, numbers that move, names, unionids.
struct Shop {
    dice: Dice,
    rows: BTreeMap<usize, [String; 5]>,
    next: usize,
}

impl Shop {
    fn new(seed: u64) -> Self {
        let mut shop = Self { dice: Dice(seed), rows: BTreeMap::new(), next: 0 };
        (0..60).for_each(|_| shop.add());
        shop
    }

    fn phone(&mut self) -> String {
        match self.dice.below(12) {
            0 => String::new(),
            1 => "12345".to_owned(),
            _ => format!("1380013{:04}", 8_000 + self.dice.below(45)),
        }
    }

    fn unionid(&mut self) -> String {
        if self.dice.below(4) == 0 { format!("u{}", self.dice.below(12)) } else { String::new() }
    }

    fn add(&mut self) {
        let (phone, unionid) = (self.phone(), self.unionid());
        let name = ["甲", "乙", "丙", ""][self.dice.below(4)].to_owned();
        let (orders, day) =
            (self.dice.below(5).to_string(), format!("2025-0{}-1{}T00:00:00Z", 1 + self.dice.below(9), self.dice.below(10)));
        self.rows.insert(self.next, [phone, name, unionid, orders, day]);
        self.next += 1;
    }

    fn change(&mut self) {
        for _ in 0..self.dice.below(12) {
            let keys: Vec<usize> = self.rows.keys().copied().collect();
            let key = keys[self.dice.below(keys.len())];
            match self.dice.below(6) {
                0 | 1 => self.add(),
                2 => drop(self.rows.remove(&key)),
                3 => {
                    let phone = self.phone();
                    self.rows.get_mut(&key).expect("a row")[0] = phone;
                }
                4 => {
                    let unionid = self.unionid();
                    self.rows.get_mut(&key).expect("a row")[2] = unionid;
                }
                _ => self.rows.get_mut(&key).expect("a row")[1] = "新".to_owned(),
            }
        }
    }

    fn export(&self) -> String {
        let row = |(key, [phone, name, unionid, orders, day]): (&usize, &[String; 5])| {
            format!("C{key},{phone},{name},S{},2024-01-02T00:00:{:02}Z,{day},{day},{orders},{orders}0.50,{unionid}\n", key % 3, key % 60)
        };
        format!("{HEADER},unionid\n{}", self.rows.iter().map(row).collect::<String>())
    }
}

/// Does to bytes what broken programs and disks do.
fn break_somewhere(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..=dice.below(6) {
        let (at, length) = (dice.below(bytes.len()), dice.below(40));
        let end = (at + length).min(bytes.len());
        match dice.below(7) {
            0 => bytes.truncate(at.max(1)),
            1 => drop(bytes.drain(at..end)),
            2 => bytes[at] = u8::try_from(dice.below(256)).expect("a byte"),
            3 => bytes.insert(at, b'"'),
            4 => bytes.insert(at, b'\n'),
            5 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => drop(bytes.splice(at..end, std::iter::repeat_n(0, length))),
        }
    }
}

#[test]
fn no_bytes_break_a_run() {
    let mut dice = Dice(99);
    let whole = Shop::new(4).export().into_bytes();
    let retailer = Retailer::by_hand(std::str::from_utf8(&whole).expect("text"));
    retailer.once();
    for case in 0..25 {
        let mut bytes = whole.clone();
        break_somewhere(&mut dice, &mut bytes);
        retailer.write_bytes("pos.csv", &bytes);
        // `once_with` fails where the program breaks off. A file that is none stops its source alone.
        let ended = retailer.once_with(&[]);
        assert!(matches!(ended.code, 0 | 3 | 4), "case {case}: {ended:?}");
        if ended.code != 3 {
            assert_sums(&ended.json());
        }
    }
    retailer.write_bytes("pos.csv", &whole);
    let report = retailer.once();
    let (mended, fresh) = (retailer.picture(), Retailer::by_hand(std::str::from_utf8(&whole).expect("text")));
    assert_eq!(report["members"]["total"], fresh.once()["members"]["total"]);
    assert_eq!(without_history(&mended), without_history(&fresh.picture()));
}

/// Who is with whom and why not, and the members' columns, without ids and what depends on history.
fn without_history(picture: &Picture) -> (BTreeSet<Vec<String>>, BTreeSet<String>) {
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in &picture.records {
        let key = record["member_id"].as_str().or(record["reason"].as_str()).unwrap_or_default();
        sets.entry(key.to_owned()).or_default().push(record["record_id"].to_string());
    }
    let member = |member: &Value| {
        let mut member = member.clone();
        let columns = member.as_object_mut().expect("a row");
        columns.remove("member_id");
        columns.retain(|name, _| !name.ends_with("_since"));
        member.to_string()
    };
    (sets.into_values().collect(), picture.members.iter().map(member).collect())
}

#[test]
fn history_leaves_no_trace_but_ids_and_touches() {
    for seed in [7, 8] {
        let mut shop = Shop::new(seed);
        let config = |retailer: &mut Retailer| {
            retailer.edit_config(
                "[tags.dormant]",
                "[identity]\nkeys = [\"phone\", \"unionid\"]\nshared_phone = { cards_max = 3 }\n\n[tags.dormant]",
            );
            retailer.edit_config("holdout = 0.0", "holdout = 0.2");
        };
        let mut retailer = Retailer::by_hand(&shop.export());
        config(&mut retailer);
        let mut greeted: BTreeMap<String, u64> = BTreeMap::new();
        for step in 0..5 {
            retailer.write("pos.csv", &shop.export());
            let plan = retailer.plan();
            let report = retailer.once();
            assert_sums(&report);
            assert_eq!(comparable(&plan), comparable(&report), "seed {seed}, step {step}");
            let mut fresh = Retailer::by_hand(&shop.export());
            config(&mut fresh);
            let expected = fresh.once();
            assert_eq!(report["members"]["total"], expected["members"]["total"], "seed {seed}, step {step}");
            let (picture, expected) = (retailer.picture(), fresh.picture());
            assert_eq!(without_history(&picture), without_history(&expected), "seed {seed}, step {step}");
            assert_eq!(picture.members.len() as u64, count(&report, "/members/total"));
            greeted.clear();
            for (_, row) in picture.listed.values() {
                *greeted.entry(row["phone"].clone()).or_default() += 1;
            }
            assert!(greeted.values().all(|times| *times == 1), "a phone was greeted twice: seed {seed}, step {step}");
            retailer.json(&["verify"]);
            shop.change();
        }
        assert!(!greeted.is_empty());
    }
}
