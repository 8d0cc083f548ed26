//! Invented members of a retailer in China, with known truth: who is one person, and what went wrong with whom.
//!
//! They are what is left after keys have decided: no two rows have the same phone. The same seed gives the same members on
//! every machine. All names and numbers are invented.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};

/// What is wrong with a second row of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// One digit of the phone is another.
    PhoneDigit,
    /// Two neighbouring digits of the phone are exchanged, and the birthday is not known.
    PhoneTransposed,
    /// A digit of the phone is missing or one too many, and the store is another.
    PhoneLength,
    /// Another phone; name and birthday are right.
    PhoneChanged,
    /// Another phone and another store; name and birthday are right.
    PhoneAndStoreChanged,
    /// A character of the same sound in the name, and a digit of the phone.
    Homophone,
    /// The same, and another phone altogether.
    HomophonePhoneChanged,
    /// A character of a like sound in the name, and a digit of the phone.
    NearSound,
    /// Another character in the name, and a digit of the phone.
    NameTypo,
    /// The given name stands first, and a digit of the phone.
    NameSwapped,
    /// The name in Latin letters, and a digit of the phone.
    Romanised,
    /// The surname with a title, and a digit of the phone.
    Abbreviated,
    /// Day and month of the birthday are exchanged, and another phone.
    BirthdaySwapped,
    /// A digit of the birthday, and another phone.
    BirthdayDigit,
    /// Another phone, and no birthday: the name and the store are all there is.
    NameAndStore,
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::PhoneDigit,
        Self::PhoneTransposed,
        Self::PhoneLength,
        Self::PhoneChanged,
        Self::PhoneAndStoreChanged,
        Self::Homophone,
        Self::HomophonePhoneChanged,
        Self::NearSound,
        Self::NameTypo,
        Self::NameSwapped,
        Self::Romanised,
        Self::Abbreviated,
        Self::BirthdaySwapped,
        Self::BirthdayDigit,
        Self::NameAndStore,
    ];
}

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Another seed, other members.
    pub seed: u64,
    /// How many people.
    pub people: usize,
    /// Share of them with a second row.
    pub duplicated: f64,
    /// How many stores.
    pub stores: usize,
}

/// The members and the truth.
pub struct Made {
    /// Columns `member_id`, `phone`, `name`, `birthday`, `gender`, `store`, `created_at`, `last_order_at`, in no order.
    pub batch: RecordBatch,
    /// Of each row the person.
    pub people: Vec<usize>,
    /// Of each row what is wrong with it; `None` for a person's first row.
    #[allow(dead_code, reason = "only the tests of the crate ask for it")]
    pub cases: Vec<Option<Case>>,
    /// Of each row the household.
    #[allow(dead_code, reason = "only the benchmark asks for it")]
    pub households: Vec<usize>,
}

#[rustfmt::skip]
const SURNAMES: &[(&str, u32)] = &[
    ("王", 720), ("李", 719), ("张", 683), ("刘", 538), ("陈", 453), ("杨", 308), ("黄", 223), ("赵", 229), ("吴", 205), ("周", 212), ("徐", 167),
    ("孙", 154), ("马", 126), ("朱", 126), ("胡", 115), ("郭", 115), ("何", 106), ("林", 107), ("罗", 86), ("高", 100), ("郑", 92), ("梁", 84),
    ("谢", 72), ("宋", 81), ("唐", 63), ("许", 61), ("韩", 68), ("冯", 61), ("邓", 59), ("曹", 60), ("彭", 49), ("曾", 50), ("肖", 55), ("田", 49),
    ("董", 51), ("袁", 47), ("潘", 47), ("于", 48), ("蒋", 47), ("蔡", 46), ("余", 41), ("杜", 47), ("叶", 42), ("程", 42), ("苏", 43), ("魏", 41),
    ("吕", 41), ("丁", 38), ("任", 37), ("沈", 37), ("姚", 35), ("卢", 36), ("姜", 32), ("崔", 31), ("钟", 30), ("谭", 29), ("陆", 30), ("汪", 27),
    ("范", 31), ("金", 28), ("石", 29), ("廖", 26), ("贾", 25), ("夏", 25), ("韦", 23), ("付", 24), ("方", 24), ("白", 24), ("邹", 22), ("孟", 22),
    ("熊", 21), ("秦", 21), ("邱", 21), ("江", 21), ("尹", 19), ("薛", 19), ("闫", 18), ("段", 18), ("雷", 18), ("侯", 18), ("龙", 16), ("史", 16),
    ("陶", 15), ("黎", 15), ("贺", 15), ("顾", 15), ("毛", 15), ("郝", 15), ("龚", 14), ("邵", 14), ("万", 13), ("钱", 13), ("严", 13), ("覃", 12),
    ("武", 12), ("戴", 12), ("莫", 11), ("孔", 11), ("向", 11), ("汤", 10), ("欧阳", 5), ("司马", 1), ("上官", 1), ("诸葛", 1), ("章", 9), ("俞", 7),
    ("颜", 7), ("申", 7), ("单", 5), ("仇", 3), ("解", 3), ("翟", 6), ("傅", 8), ("萧", 3), ("凌", 5), ("柳", 5), ("祝", 5), ("伍", 6),
];
const MALE: &str = "伟强军勇杰涛明超磊洋刚平辉鹏飞斌波宇浩俊峰建国志文海龙华宁健凯东林建子晓家天泽宏博瑞诚毅轩睿晨阳旭昊航逸鑫立新荣德永成春生庆光亮刚震山河清正心诗良康达安岩中茂进有坚和彪元全胜学祥才发武利友裕";
const FEMALE: &str = "芳娜敏静丽艳娟霞秀英玲桂萍红玉兰燕莉颖婷雪琳慧洁梅倩欣佳晓小琴云丹莹露瑶怡馨悦梦思雨涵诗琪雅文晨子萱语嘉凤珍珠淑惠美蓉眉君琴蕊薇菁梦岚苑婕馨瑗琰韵融园艺咏卿聪澜纯毓悦昭冰爽琬茗羽希欣飘育滢馥筠柔竹霭凝";
/// Characters that sound alike, to the tone or nearly.
#[rustfmt::skip]
const HOMOPHONES: &[&str] = &[
    "伟玮炜纬", "芳方", "静敬婧靖", "丽莉利俐", "娟鹃涓", "艳燕雁彦", "洁杰婕", "婷廷庭亭", "欣新鑫馨心昕", "宇雨羽语玉", "佳嘉家加", "晓小筱", "明鸣铭", "军君俊",
    "红宏虹洪鸿", "华花桦", "建健剑", "志智致", "文雯纹", "涛滔", "波博", "莹颖英瑛盈", "梅美玫", "琳林霖", "琴勤芹", "玲灵铃凌", "萍平苹", "辉慧惠徽", "勇永咏", "鹏朋",
    "飞非菲霏", "凤奉", "珍真贞", "秀绣", "梦孟", "思丝", "瑶摇遥", "诗施", "强蔷", "浩昊皓", "峰锋枫", "阳洋扬", "兰岚蓝", "云芸耘", "子紫梓", "瑞睿锐", "轩宣萱", "晨辰臣",
    "张章", "刘柳", "杨阳", "吴伍武", "徐许", "朱祝", "谢解", "沈申", "于余俞", "付傅", "肖萧", "闫严颜", "江姜",
];
/// Characters of which the second half sounds like the first to many.
#[rustfmt::skip]
const NEAR_SOUNDS: &[(char, char)] = &[
    ('陈', '程'), ('周', '邹'), ('林', '凌'), ('敏', '明'), ('珊', '三'), ('欣', '星'), ('兰', '男'), ('娜', '拉'), ('琴', '晴'), ('英', '因'), ('珍', '增'), ('静', '进'),
    ('玲', '琳'), ('婷', '廷'), ('华', '发'), ('红', '冯'), ('志', '自'), ('山', '三'), ('军', '君'), ('丽', '妮'), ('芳', '帆'), ('诗', '思'), ('慧', '费'), ('海', '害'),
    ('春', '村'), ('丹', '当'), ('燕', '样'), ('倩', '强'), ('龙', '农'), ('岚', '楠'), ('宁', '林'), ('萍', '频'), ('鹏', '盆'), ('生', '森'), ('成', '陈'), ('刚', '甘'),
];
const PREFIXES: &[u64] = &[
    130, 131, 132, 133, 135, 136, 137, 138, 139, 150, 151, 152, 157, 158, 159, 166, 173, 175, 176, 177, 178, 180, 181, 185, 186, 187, 188,
    189, 191, 198, 199,
];
/// 2026-09-21: everything happened before.
const TODAY: i32 = 20_717;
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * limit as u128) >> 64) as usize
    }

    fn chance(&mut self, share: f64) -> bool {
        (self.below(1 << 30) as f64) < share * f64::from(1 << 30)
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// The first ones are drawn far more often than the last.
    fn skewed(&mut self, from: &[char]) -> char {
        let at = self.below(1 << 20) as f64 / f64::from(1 << 20);
        from[((from.len() as f64) * at * at) as usize]
    }
}

#[derive(Clone)]
struct Row {
    person: usize,
    household: usize,
    case: Option<Case>,
    phone: u64,
    surname: String,
    given: String,
    /// The name as it is written, where that is not surname and given name.
    written: Option<String>,
    birthday: Option<i32>,
    female: bool,
    gender: Option<&'static str>,
    store: usize,
    created: i32,
    last_order: Option<i32>,
}

/// Makes the members.
pub fn make(plan: Plan) -> Made {
    let mut random = Random(plan.seed.wrapping_mul(0xA076_1D64_78BD_642F));
    let mut taken = HashSet::new();
    let mut rows = first_rows(plan, &mut random, &mut taken);
    for at in 0..rows.len() {
        let mut more = random.chance(plan.duplicated);
        while more {
            let second = second_row(&rows[at], plan, &mut random, &mut taken);
            rows.extend(second);
            more = random.chance(0.1);
        }
    }
    // Their order says nothing.
    for at in (1..rows.len()).rev() {
        rows.swap(at, random.below(at + 1));
    }
    table(&rows, &mut random)
}

fn first_rows(plan: Plan, random: &mut Random, taken: &mut HashSet<u64>) -> Vec<Row> {
    let total: u32 = SURNAMES.iter().map(|(_, weight)| weight).sum();
    let characters = [MALE, FEMALE].map(|list| list.chars().collect::<Vec<_>>());
    let mut rows: Vec<Row> = Vec::with_capacity(plan.people);
    while rows.len() < plan.people {
        let household = rows.len();
        // Families shop together: one store, joined together, children with the surname of one of their parents.
        let size = if random.chance(0.2) { 2 + random.below(3) } else { 1 };
        let mut pick = random.below(total as usize) as u32;
        let surname =
            SURNAMES.iter().find(|(_, weight)| pick.checked_sub(*weight).map(|rest| pick = rest).is_none()).map_or("王", |one| one.0);
        let store = (random.below(plan.stores) * (1 + random.below(plan.stores))) / plan.stores;
        let created = TODAY - 1 - random.below(3000) as i32;
        let mut shared = None;
        for member in 0..size {
            let female = if member < 2 { member == 1 || size == 1 && random.chance(0.6) } else { random.chance(0.5) };
            let own = if member == 1 { SURNAMES[random.below(60)].0 } else { surname };
            let list = &characters[usize::from(female)];
            let mut given = String::new();
            // Brothers and sisters often share a character.
            match shared {
                Some(character) if member > 2 && random.chance(0.5) => given.push(character),
                _ => given.push(random.skewed(list)),
            }
            shared = if member == 2 { given.chars().next() } else { shared };
            if random.chance(0.85) {
                given.push(random.skewed(list));
            }
            let age = if member < 2 { 22 + random.below(48) } else { 14 + random.below(8) };
            let twin = member > 2 && random.chance(0.1);
            let birthday =
                if twin { rows.last().and_then(|row| row.birthday) } else { Some(TODAY - (age * 365 + random.below(365)) as i32) };
            let birthday = match random.below(100) {
                0..25 => None,
                // What clerks type when nobody asks.
                25..28 => Some(-25_567),
                28..30 => Some(3_652),
                _ => birthday,
            };
            rows.push(Row {
                person: rows.len(),
                household,
                case: None,
                phone: phone(random, taken),
                surname: own.to_owned(),
                given,
                written: None,
                birthday,
                female,
                gender: (!random.chance(0.2)).then_some(if female { "female" } else { "male" }),
                store,
                created: if random.chance(0.5) { created } else { TODAY - 1 - random.below(3000) as i32 },
                last_order: random.chance(0.8).then(|| TODAY - 1 - random.below(900) as i32),
            });
            if let Some(row) = rows.last_mut().filter(|_| random.chance(0.03)) {
                row.written = Some(format!("{}{}", row.surname, if female { "女士" } else { "先生" }));
            }
        }
    }
    rows.truncate(plan.people);
    rows
}

fn phone(random: &mut Random, taken: &mut HashSet<u64>) -> u64 {
    loop {
        let number = 86 * 100_000_000_000 + random.of(PREFIXES) * 100_000_000 + random.below(100_000_000) as u64;
        if taken.insert(number) {
            return number;
        }
    }
}

/// A second row of a person, who has come again and was not recognised. `None` where what should go wrong cannot, because
/// a name has no such character or there is no birthday.
fn second_row(first: &Row, plan: Plan, random: &mut Random, taken: &mut HashSet<u64>) -> Option<Row> {
    let case = random.of(&Case::ALL);
    let mut row = first.clone();
    row.case = Some(case);
    row.written = None;
    row.created = TODAY - 1 - random.below(3000) as i32;
    row.last_order = random.chance(0.8).then(|| TODAY - 1 - random.below(900) as i32);
    if random.chance(0.2) {
        row.gender = None;
    }
    if random.chance(0.15) {
        row.store = random.below(plan.stores);
    }
    if row.birthday.is_none() && random.chance(0.3) {
        row.birthday = Some(TODAY - (20 * 365 + random.below(40 * 365)) as i32);
    } else if random.chance(0.1) {
        row.birthday = None;
    }
    // Whatever else is wrong, clerks mistype birthdays and genders.
    if random.chance(0.05) {
        let mistake = if random.chance(0.3) { Case::BirthdaySwapped } else { Case::BirthdayDigit };
        row.birthday = row.birthday.map(|day| wrong(day, mistake, random).unwrap_or(day));
    }
    if random.chance(0.01) {
        row.gender = Some(if first.female { "male" } else { "female" });
    }
    let digit = |random: &mut Random, taken: &mut HashSet<u64>| {
        let place = 10_u64.pow(random.below(9) as u32);
        loop {
            let number = first.phone - first.phone / place % 10 * place + random.below(10) as u64 * place;
            if taken.insert(number) {
                return number;
            }
        }
    };
    let need_birthday = |birthday: Option<i32>| birthday.filter(|day| *day != -25_567 && *day != 3_652);
    match case {
        Case::PhoneDigit => row.phone = digit(random, taken),
        Case::PhoneTransposed => {
            row.birthday = None;
            row.phone = transposed(first.phone, random).filter(|number| taken.insert(*number))?;
        }
        Case::PhoneLength => {
            row.store = random.below(plan.stores);
            let text = first.phone.to_string();
            let at = 5 + random.below(8);
            let text = if random.chance(0.5) { [&text[..at], &text[at + 1..]].concat() } else { [&text[..at], &text[at - 1..]].concat() };
            row.phone = text.parse().ok().filter(|number| taken.insert(*number))?;
        }
        Case::PhoneChanged => {
            row.phone = phone(random, taken);
            row.birthday = row.birthday.or(first.birthday);
            need_birthday(first.birthday)?;
        }
        Case::PhoneAndStoreChanged => {
            row.phone = phone(random, taken);
            row.store = random.below(plan.stores);
            row.birthday = row.birthday.or(first.birthday);
            need_birthday(first.birthday)?;
        }
        Case::Homophone | Case::HomophonePhoneChanged => {
            replace(&mut row, random, |character, random| {
                let group = HOMOPHONES.iter().find(|group| group.contains(character))?;
                let others: Vec<char> = group.chars().filter(|other| *other != character).collect();
                Some(random.of(&others))
            })?;
            row.phone = if case == Case::Homophone { digit(random, taken) } else { phone(random, taken) };
            if case == Case::HomophonePhoneChanged {
                row.birthday = row.birthday.or(first.birthday);
                need_birthday(first.birthday)?;
            }
        }
        Case::NearSound => {
            replace(&mut row, random, |character, _| {
                NEAR_SOUNDS.iter().find_map(|(a, b)| if *a == character { Some(*b) } else { (*b == character).then_some(*a) })
            })?;
            row.phone = digit(random, taken);
        }
        Case::NameTypo => {
            let list: Vec<char> = if row.female { FEMALE } else { MALE }.chars().collect();
            let mut given: Vec<char> = row.given.chars().collect();
            let at = random.below(given.len());
            given[at] = random.of(&list);
            row.given = given.into_iter().collect();
            row.phone = digit(random, taken);
        }
        Case::NameSwapped => {
            row.written = Some(format!("{}{}", row.given, row.surname));
            row.phone = digit(random, taken);
        }
        Case::Romanised => {
            let latin = |text: &str| text.chars().map(sound).collect::<Option<String>>();
            row.written = Some(format!("{} {}", latin(&row.surname)?, latin(&row.given)?));
            row.phone = digit(random, taken);
        }
        Case::Abbreviated => {
            row.written = Some(format!("{}{}", row.surname, if row.female { "女士" } else { "先生" }));
            row.phone = digit(random, taken);
        }
        Case::BirthdaySwapped | Case::BirthdayDigit => {
            row.phone = phone(random, taken);
            row.birthday = Some(wrong(need_birthday(first.birthday)?, case, random)?);
        }
        Case::NameAndStore => {
            row.phone = phone(random, taken);
            row.birthday = None;
            row.store = first.store;
        }
    }
    (row.surname != first.surname || row.given != first.given || row.phone != first.phone).then_some(row)
}

fn transposed(number: u64, random: &mut Random) -> Option<u64> {
    let mut digits = number.to_string().into_bytes();
    let at = 3 + random.below(9);
    digits.swap(at, at + 1);
    String::from_utf8(digits).ok()?.parse().ok()
}

fn replace(row: &mut Row, random: &mut Random, other: impl Fn(char, &mut Random) -> Option<char>) -> Option<()> {
    let mut name: Vec<char> = row.surname.chars().chain(row.given.chars()).collect();
    let surname = row.surname.chars().count();
    let start = random.below(name.len());
    let (at, character) =
        (0..name.len()).map(|step| (start + step) % name.len()).find_map(|at| other(name[at], random).map(|new| (at, new)))?;
    name[at] = character;
    row.surname = name[..surname].iter().collect();
    row.given = name[surname..].iter().collect();
    Some(())
}

fn wrong(day: i32, case: Case, random: &mut Random) -> Option<i32> {
    let epoch = jiff::civil::date(1970, 1, 1);
    let date = epoch.checked_add(jiff::Span::new().days(day)).ok()?;
    let other = if case == Case::BirthdaySwapped {
        jiff::civil::Date::new(date.year(), date.day(), date.month()).ok().filter(|other| *other != date)?
    } else if random.chance(0.5) {
        date.with().year(date.year() - i16::try_from(random.below(9)).ok()? % 10 + 4).build().ok().filter(|other| *other != date)?
    } else {
        date.with().day(date.day() / 10 * 10 + i8::try_from(random.below(10)).ok()?).build().ok().filter(|other| *other != date)?
    };
    Some((other - epoch).get_days())
}

/// The sound of some characters, written down here so that the library's is not tested by itself.
fn sound(character: char) -> Option<&'static str> {
    #[rustfmt::skip]
    const SOUNDS: &[(&str, &str)] = &[
        ("王", "wang"), ("李", "li"), ("张", "zhang"), ("刘", "liu"), ("陈", "chen"), ("杨", "yang"), ("赵", "zhao"), ("黄", "huang"), ("周", "zhou"), ("吴", "wu"),
        ("徐", "xu"), ("孙", "sun"), ("马", "ma"), ("朱", "zhu"), ("胡", "hu"), ("郭", "guo"), ("何", "he"), ("林", "lin"), ("罗", "luo"), ("高", "gao"), ("曾", "zeng"),
        ("伟玮炜", "wei"), ("强", "qiang"), ("军君俊", "jun"), ("勇永咏", "yong"), ("杰洁婕", "jie"), ("涛", "tao"), ("明", "ming"), ("超", "chao"), ("磊", "lei"),
        ("洋阳", "yang"), ("刚", "gang"), ("平萍", "ping"), ("辉慧惠", "hui"), ("鹏", "peng"), ("飞", "fei"), ("斌", "bin"), ("波博", "bo"), ("宇玉雨语羽", "yu"),
        ("浩昊", "hao"), ("峰凤", "feng"), ("建健", "jian"), ("国", "guo"), ("志", "zhi"), ("文", "wen"), ("海", "hai"), ("龙", "long"), ("华", "hua"), ("芳", "fang"),
        ("娜", "na"), ("敏", "min"), ("静", "jing"), ("丽莉立利", "li"), ("艳燕", "yan"), ("娟", "juan"), ("霞", "xia"), ("秀", "xiu"), ("英莹颖", "ying"), ("玲", "ling"),
        ("红宏", "hong"), ("兰岚", "lan"), ("婷", "ting"), ("雪学", "xue"), ("琳", "lin"), ("梅美眉", "mei"), ("倩", "qian"), ("欣馨新鑫心", "xin"), ("佳嘉家", "jia"),
        ("晓小", "xiao"), ("琴", "qin"), ("云韵", "yun"), ("丹", "dan"), ("桂", "gui"), ("子", "zi"), ("宁", "ning"),
    ];
    SOUNDS.iter().find(|(characters, _)| characters.contains(character)).map(|(_, sound)| *sound)
}

fn table(rows: &[Row], random: &mut Random) -> Made {
    let days = |day: Option<i32>| day.map(|day| i64::from(day) * MICROSECONDS_PER_DAY + 36_000_000_000);
    let ids: Vec<String> = rows.iter().map(|_| format!("{:08x}{:08x}", random.below(1 << 32), random.below(1 << 32))).collect();
    let name = |row: &Row| row.written.clone().unwrap_or_else(|| format!("{}{}", row.surname, row.given));
    let columns: [(&str, ArrayRef); 8] = [
        ("member_id", Arc::new(StringArray::from(ids))),
        ("phone", Arc::new(rows.iter().map(|row| Some(row.phone)).collect::<UInt64Array>())),
        ("name", Arc::new(rows.iter().map(|row| Some(name(row))).collect::<StringArray>())),
        ("birthday", Arc::new(rows.iter().map(|row| row.birthday).collect::<Date32Array>())),
        ("gender", Arc::new(rows.iter().map(|row| row.gender).collect::<StringArray>())),
        ("store", Arc::new(rows.iter().map(|row| Some(format!("S{:04}", row.store))).collect::<StringArray>())),
        (
            "created_at",
            Arc::new(rows.iter().map(|row| days(Some(row.created))).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        ),
        (
            "last_order_at",
            Arc::new(rows.iter().map(|row| days(row.last_order)).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        ),
    ];
    Made {
        batch: RecordBatch::try_from_iter(columns).expect("columns of one length"),
        people: rows.iter().map(|row| row.person).collect(),
        cases: rows.iter().map(|row| row.case).collect(),
        households: rows.iter().map(|row| row.household).collect(),
    }
}
