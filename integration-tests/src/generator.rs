//! Makes the exports of an invented retailer, with known truth: who is who, and which rows must be set
//! aside and why.
//!
//! Two exports: `till`, of the stores' old tills, with Chinese headers, and `shop`, of the web shop.
//! The same seed gives the same bytes on every machine. All names and numbers are invented.

use std::collections::HashMap;
use std::fmt::Write as _;

/// What to make.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rows of both exports together, defects included.
    pub rows: usize,
    /// Another seed, another retailer.
    pub seed: u64,
    /// How many stores.
    pub stores: usize,
    /// Share of rows whose orders changed since, each with a new `updated_at`; 0 for the first export.
    pub changed: f64,
    /// With rows that no parser can read: too few cells, zero bytes, bytes of another encoding.
    pub unreadable: bool,
}

/// Rows of one export, each a list of cells, and the header before them.
pub struct Export {
    /// `till` or `shop`.
    pub name: &'static str,
    /// Column names.
    pub header: &'static [&'static str],
    /// The rows, in no order.
    pub rows: Vec<Vec<String>>,
}

/// What is true of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// The export.
    pub source: &'static str,
    /// The row's id in it.
    pub record_id: String,
    /// Whose contact it is: rows with the same number are one member under the default config. `None`
    /// where the row must be quarantined.
    pub person: Option<usize>,
    /// What the row is: `plain`, `household`, `moved`, `many_stores`, `new_holder`, or the quarantine reason that it
    /// must get.
    pub case: &'static str,
}

/// Everything that a plan makes.
pub struct Made {
    /// `till` and `shop`.
    pub exports: [Export; 2],
    /// One entry for each row, in the order of the rows, `till` first.
    pub truth: Vec<Truth>,
}

const TILL_HEADER: &[&str] =
    &["卡号", "姓名", "手机", "门店", "导购", "建卡时间", "修改时间", "最后消费", "消费次数", "消费金额", "短信同意", "unionid"];
const SHOP_HEADER: &[&str] =
    &["id", "name", "mobile", "store", "created", "modified", "last_order", "orders", "spent", "sms", "sms_at", "sms_proof", "unionid"];
const SURNAMES: &str = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗";
const GIVEN: &str = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉萍红玲";
const PREFIXES: &[u64] = &[
    130, 131, 132, 133, 135, 136, 137, 138, 139, 150, 151, 152, 157, 158, 159, 162, 165, 166, 167, 170, 171, 173, 175, 176, 177, 178, 180,
    181, 185, 186, 187, 188, 189, 190, 191, 193, 195, 196, 197, 198, 199,
];
/// Cells that are no usable number, and the reason that each must get.
const BAD_PHONES: &[(&str, &str)] = &[
    ("", "phone_missing"),
    ("1381234", "phone_too_short"),
    ("138123456789", "phone_too_long"),
    ("021-64331234", "phone_landline"),
    ("400-800-8888", "phone_service"),
    ("138****1234", "phone_masked"),
    ("13912345678-1234", "phone_relay"),
    ("13912345678/13812345678", "phone_multiple"),
    ("1.38E+10", "phone_scientific"),
    ("12012345678", "phone_not_mobile"),
    ("13800000000", "phone_placeholder"),
    ("13977777777", "phone_repeated"),
    ("无", "phone_invalid"),
];
/// Rows on one cashier's number.
const CASHIER_CARDS: usize = 12;
/// 2026-09-21T14:13:20Z: everything happened before.
pub const NOW_SECS: i64 = 1_790_000_000;
const DAY: i64 = 86_400;
/// Seconds before [`NOW_SECS`] within which everything happened.
const BEFORE_ALL: i64 = 2_500 * DAY;
/// Cards of one person with a card in each store.
const STORES_OF_ONE: usize = 14;

/// SplitMix64: small, and the same on every machine for ever.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        (self.next() >> 11) as f64 / ((1_u64 << 53) as f64) < share
    }
}

struct Person {
    phone: u64,
    name: String,
    unionid: String,
}

/// Makes the exports and their truth.
pub fn make(plan: &Plan) -> Made {
    let mut random = Random(plan.seed);
    let people = people(plan, &mut random);
    let mut exports =
        [Export { name: "till", header: TILL_HEADER, rows: Vec::new() }, Export { name: "shop", header: SHOP_HEADER, rows: Vec::new() }];
    let mut truths = [Vec::new(), Vec::new()];
    let mut cashier = (0, 0);
    // The number that a person moved to.
    let mut moved: HashMap<usize, u64> = HashMap::new();
    for at in 0..plan.rows {
        let mut random = Random(plan.seed ^ (at as u64).wrapping_mul(0xD134_2543_DE82_EF95));
        // The first rows are one person each; the rest are further cards of random people.
        let who = if at < people.len() { at } else { random.below(people.len()) };
        let person = &people[who];
        let side = usize::from(random.chance(0.25));
        let mut card = Card::new(at, side, &mut random, plan);
        card.name.clone_from(&person.name);
        card.phone = written(person.phone, &mut random);
        let (case, owner) = match random.below(1000) {
            0..26 => {
                let (cell, reason) = BAD_PHONES[random.below(BAD_PHONES.len())];
                card.phone = cell.to_owned();
                (reason, None)
            }
            26..30 => {
                // Full rounds only: a number on too few cards would be a usable one.
                cashier = if cashier.1 == CASHIER_CARDS { (cashier.0 + 1, 1) } else { (cashier.0, cashier.1 + 1) };
                card.phone = (13_900_000_000 + cashier.0 as u64 * 11 + 1207).to_string();
                ("shared_phone", None)
            }
            30..50 => {
                card.name = name(&mut random);
                // Bought on it from the first day to the last: nobody could take the number for a recycled one.
                card.created = NOW_SECS - BEFORE_ALL;
                card.last_order = NOW_SECS - random.below(90) as i64 * DAY - 1;
                card.updated = card.last_order + 1;
                ("household", Some(who))
            }
            _ if moves(who) && at >= people.len() => {
                let number = *moved.entry(who).or_insert_with(|| phone(&mut random));
                card.phone = written(number, &mut random);
                ("moved", Some(who))
            }
            _ => ("plain", Some(who)),
        };
        // Of those who move every card has it, or nothing would tie the new number to the old one.
        if owner.is_some() && moves(who) || case == "plain" && random.chance(0.15) {
            card.unionid.clone_from(&person.unionid);
        }
        truths[side].push(Truth { source: exports[side].name, record_id: card.id.clone(), person: owner, case });
        exports[side].rows.push(card.cells(side));
    }
    complete_cashier(&mut exports, &mut truths, cashier, plan);
    let [till, shop] = truths;
    Made { exports, truth: till.into_iter().chain(shop).collect() }
}

/// Whether a person's later cards are on a new number, tied to the old one by the unionid alone.
fn moves(who: usize) -> bool {
    who.is_multiple_of(41)
}

/// Adds the cards that the last cashier's number lacks to be on too many.
fn complete_cashier(exports: &mut [Export; 2], truths: &mut [Vec<Truth>; 2], (number, cards): (usize, usize), plan: &Plan) {
    for extra in cards..if cards == 0 { 0 } else { CASHIER_CARDS } {
        let at = plan.rows + extra;
        let mut random = Random(plan.seed ^ (at as u64).wrapping_mul(0xD134_2543_DE82_EF95));
        let mut card = Card::new(at, 0, &mut random, plan);
        card.name = name(&mut random);
        card.phone = (13_900_000_000 + number as u64 * 11 + 1207).to_string();
        truths[0].push(Truth { source: "till", record_id: card.id.clone(), person: None, case: "shared_phone" });
        exports[0].rows.push(card.cells(0));
    }
}

/// Adds what a retailer has of the hardest cases, a few for every thousand rows: numbers that were given to somebody
/// else, with a former holder who is lost and one who has a new number; one person with a card in each store; and a
/// number that clerks type for want of a real one, which is on no list.
pub fn add_hard_cases(made: &mut Made, plan: &Plan) {
    let mut random = Random(plan.seed ^ 0x5851_F42D_4C95_7F2D);
    let mut hard = HardCases { next_row: plan.rows + 1_000_000, next_person: plan.rows, made, plan };
    for _ in 0..(plan.rows / 1000).max(1) {
        hard.recycled(&mut random);
        hard.many_stores(&mut random);
    }
    let typed = phone(&mut random);
    for _ in 0..CASHIER_CARDS {
        let name = name(&mut random);
        hard.card(typed, &name, None, "shared_phone", &mut random, |_| ());
    }
}

struct HardCases<'a> {
    made: &'a mut Made,
    plan: &'a Plan,
    next_row: usize,
    next_person: usize,
}

impl HardCases<'_> {
    fn person(&mut self) -> usize {
        self.next_person += 1;
        self.next_person
    }

    fn card(
        &mut self,
        phone: u64,
        name: &str,
        person: Option<usize>,
        case: &'static str,
        random: &mut Random,
        set: impl FnOnce(&mut Card),
    ) {
        let side = usize::from(random.chance(0.25));
        let mut card = Card::new(self.next_row, side, random, self.plan);
        self.next_row += 1;
        card.phone = written(phone, random);
        name.clone_into(&mut card.name);
        set(&mut card);
        let export = &mut self.made.exports[side];
        let truth = Truth { source: export.name, record_id: card.id.clone(), person, case };
        export.rows.push(card.cells(side));
        // The truth of `till` stands before that of `shop`.
        let at = if side == 0 { self.made.truth.partition_point(|truth| truth.source == "till") } else { self.made.truth.len() };
        self.made.truth.insert(at, truth);
    }

    fn recycled(&mut self, random: &mut Random) {
        let then = |days: i64| move |card: &mut Card| card.happened(NOW_SECS - (days + 200) * DAY, NOW_SECS - days * DAY);
        let (lost, old, new) = (phone(random), name(random), format!("{}甲", name(random)));
        self.card(lost, &old, None, "phone_recycled", random, then(1_500));
        let holder = self.person();
        self.card(lost, &new, Some(holder), "new_holder", random, then(100));
        // The second has gone on to another number, which the unionid tells.
        let (given_up, kept, new) = (phone(random), phone(random), format!("{}乙", name(random)));
        let (moved, holder, unionid) = (self.person(), self.person(), format!("o{:016x}", random.next()));
        let with_unionid = |days: i64| {
            let unionid = unionid.clone();
            move |card: &mut Card| {
                then(days)(card);
                card.unionid = unionid;
            }
        };
        self.card(given_up, &old, Some(moved), "moved", random, with_unionid(1_400));
        self.card(kept, &old, Some(moved), "moved", random, with_unionid(50));
        self.card(given_up, &new, Some(holder), "new_holder", random, then(10));
    }

    fn many_stores(&mut self, random: &mut Random) {
        let (number, name, person) = (phone(random), name(random), self.person());
        for store in 1..=STORES_OF_ONE {
            self.card(number, &name, Some(person), "many_stores", random, |card| card.store = store);
        }
    }
}

fn people(plan: &Plan, random: &mut Random) -> Vec<Person> {
    let mut taken = std::collections::HashSet::new();
    let count = (plan.rows * 72 / 100).max(1);
    std::iter::repeat_with(|| phone(random))
        .filter(|number| taken.insert(*number))
        .take(count)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|phone| Person { phone, name: name(random), unionid: format!("o{:016x}", random.next()) })
        .collect()
}

/// A number of a person: none of one digit, none that is a placeholder or a cashier's.
fn phone(random: &mut Random) -> u64 {
    loop {
        let number = PREFIXES[random.below(PREFIXES.len())] * 100_000_000 + random.below(100_000_000) as u64;
        let text = number.to_string();
        let repeated = (b'0'..=b'9').any(|digit| text.as_bytes().windows(6).any(|window| window.iter().all(|byte| *byte == digit)));
        if !repeated && number / 1_000_000 != 13_900 && number != 13_912_345_678 && number != 13_812_345_678 {
            return number;
        }
    }
}

fn name(random: &mut Random) -> String {
    let mut pick = |from: &str| from.chars().nth(random.below(from.chars().count())).unwrap_or('王');
    [pick(SURNAMES), pick(GIVEN), pick(GIVEN)].iter().collect()
}

/// The same number as people and programs write it.
fn written(number: u64, random: &mut Random) -> String {
    let text = number.to_string();
    match random.below(16) {
        0 => format!("+86{text}"),
        1 => format!("+86 {text}"),
        2 => format!("0086{text}"),
        3 => format!("{}-{}-{}", &text[..3], &text[3..7], &text[7..]),
        4 => format!(" {} {} {} ", &text[..3], &text[3..7], &text[7..]),
        5 => format!("'{text}"),
        6 => text.chars().map(|digit| char::from_u32(digit as u32 + 0xFEE0).unwrap_or(digit)).collect(),
        7 => format!("{text}.0"),
        8 => format!("\u{202d}{text}\u{202c}"),
        9 => format!("0{text}"),
        _ => text,
    }
}

struct Card {
    id: String,
    name: String,
    phone: String,
    store: usize,
    created: i64,
    updated: i64,
    last_order: i64,
    orders: usize,
    cents: u64,
    sms: usize,
    unionid: String,
}

impl Card {
    fn new(at: usize, side: usize, random: &mut Random, plan: &Plan) -> Self {
        let last_order = NOW_SECS - random.below(900) as i64 * DAY - random.below(DAY as usize) as i64;
        let mut card = Self {
            id: format!("{}{at:09}", if side == 0 { 'T' } else { 'W' }),
            name: String::new(),
            phone: String::new(),
            store: random.below(plan.stores.max(1)) + 1,
            created: last_order - random.below(1500) as i64 * DAY - 1,
            updated: last_order + random.below(600) as i64,
            last_order,
            orders: 1 + random.below(3) * random.below(3),
            cents: 0,
            sms: random.below(10),
            unionid: String::new(),
        };
        card.cents = card.orders as u64 * (500 + random.below(60_000) as u64);
        if random.chance(plan.changed) {
            card.orders += 1;
            card.cents += 9_900;
            card.last_order = NOW_SECS;
            card.updated = NOW_SECS;
        }
        card
    }

    fn happened(&mut self, from: i64, to: i64) {
        (self.created, self.last_order, self.updated) = (from, to, to + 60);
    }

    fn cells(self, side: usize) -> Vec<String> {
        let store = format!("S{:04}", self.store);
        let spent = format!("{}.{:02}", self.cents / 100, self.cents % 100);
        let mut cells = vec![self.id, self.name, self.phone, store];
        if side == 0 {
            // The tills write local time without an offset, and consent as a word without proof.
            let consent = ["否", "是", "", "", "", "", "", "", "", ""][self.sms];
            let staff = format!("G{:03}", self.store * 10 + self.orders % 3);
            cells.extend([staff, moment(self.created + 8 * 3600, ' ', ""), moment(self.updated + 8 * 3600, ' ', "")]);
            cells.extend([moment(self.last_order + 8 * 3600, ' ', ""), self.orders.to_string(), spent, consent.to_owned(), self.unionid]);
        } else {
            let (consent, at, proof) = match self.sms {
                0 => ("withdrawn", moment(self.updated, 'T', "Z"), String::new()),
                1..=4 => ("granted", moment(self.created, 'T', "Z"), format!("form-{}", cells[0])),
                _ => ("", String::new(), String::new()),
            };
            cells.extend([moment(self.created, 'T', "Z"), moment(self.updated, 'T', "Z"), moment(self.last_order, 'T', "Z")]);
            cells.extend([self.orders.to_string(), spent, consent.to_owned(), at, proof, self.unionid]);
        }
        cells
    }
}

/// The civil time of a moment, as `2026-09-21T14:13:20` with what is between and after.
fn moment(secs: i64, between: char, after: &str) -> String {
    let (days, rest) = (secs.div_euclid(DAY), secs.rem_euclid(DAY));
    // Days to a date of the Gregorian calendar, by Howard Hinnant's civil_from_days.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}{after}")
}

/// How an export is written to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8 without a byte order mark.
    Utf8,
    /// GB18030, as old tills write.
    Gb18030,
}

/// The bytes of an export's file. With `unreadable`, rows that must be quarantined for what they are,
/// not for what they say, are strewn in, and the last lines are empty.
///
/// # Errors
/// Where the CSV writer fails, which it does not in memory.
pub fn file(export: &Export, encoding: Encoding, unreadable: bool) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(export.header)?;
    for row in &export.rows {
        writer.write_record(row)?;
    }
    let text = String::from_utf8(writer.into_inner().map_err(|error| error.into_error())?).expect("cells are text");
    let encode = |text: &str| match encoding {
        Encoding::Utf8 => text.as_bytes().to_vec(),
        Encoding::Gb18030 => encoding_rs::GB18030.encode(text).0.into_owned(),
    };
    if !unreadable {
        return Ok(encode(&text));
    }
    let mut bytes = Vec::new();
    let middle = export.rows.len() / 2;
    for (at, line) in text.lines().enumerate() {
        bytes.extend(encode(line));
        bytes.push(b'\n');
        if at == middle {
            bytes.extend(unreadable_rows(export.header.len(), &encode));
        }
    }
    let empty = ",".repeat(export.header.len() - 1);
    bytes.extend(format!("{empty}\n{empty}\n\n").bytes());
    Ok(bytes)
}

/// One row with too few cells, one with a zero byte, one with bytes of no encoding, and a good one
/// whose name has a line break and a formula in it.
fn unreadable_rows(columns: usize, encode: &dyn Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let rest = ",".repeat(columns - 3);
    let mut good = String::new();
    let _ = writeln!(good, "X000000004,\"=HYPERLINK(\"\"http://example.invalid\"\")\n二行\",13712340004{rest}");
    let mut bytes = encode("X000000001,少了几列,13712340001\n");
    bytes.extend(encode("X000000002,零\0字节,13712340002"));
    bytes.extend(encode(&format!("{rest}\n")));
    bytes.extend(b"X000000003,\xff\xfe,13712340003");
    bytes.extend(encode(&format!("{rest}\n")));
    bytes.extend(encode(&good));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { rows: 5_000, seed: 1, stores: 20, changed: 0.0, unreadable: false };

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let bytes = |plan: &Plan| file(&make(plan).exports[0], Encoding::Gb18030, true).expect("a file");
        assert!(bytes(&PLAN) == bytes(&PLAN));
        assert!(bytes(&PLAN) != bytes(&Plan { seed: 2, ..PLAN }));
    }

    #[test]
    fn a_change_touches_about_its_share_of_rows_and_no_truth() {
        let (before, after) = (make(&PLAN), make(&Plan { changed: 0.1, ..PLAN }));
        assert_eq!(before.truth, after.truth);
        let differ =
            before.exports.iter().zip(&after.exports).flat_map(|(a, b)| a.rows.iter().zip(&b.rows)).filter(|(a, b)| a != b).count();
        assert!((400..600).contains(&differ), "{differ}");
    }

    #[test]
    fn every_defect_is_there() {
        let made = make(&PLAN);
        for (_, reason) in BAD_PHONES {
            assert!(made.truth.iter().any(|truth| truth.case == *reason && truth.person.is_none()), "{reason}");
        }
        let cashiers = made.truth.iter().filter(|truth| truth.case == "shared_phone").count();
        assert!(cashiers > 0 && cashiers % CASHIER_CARDS == 0, "{cashiers}");
    }

    #[test]
    fn moments_are_civil() {
        assert_eq!(moment(NOW_SECS, 'T', "Z"), "2026-09-21T14:13:20Z");
        assert_eq!(moment(951_782_400, ' ', ""), "2000-02-29 00:00:00");
    }
}
