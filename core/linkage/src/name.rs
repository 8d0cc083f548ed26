//! Names in Chinese characters and in Latin letters: what they sound like, and how alike two are.

use pinyin::ToPinyin;

use crate::intern::Interner;
use crate::text;

/// Surnames of two characters.
const COMPOUND_SURNAMES: &[&str] = &[
    "欧阳", "司马", "上官", "诸葛", "司徒", "皇甫", "夏侯", "东方", "尉迟", "公孙", "令狐", "慕容", "轩辕", "长孙", "宇文", "独孤", "南宫",
    "端木", "百里", "申屠", "澹台", "万俟", "单于", "钟离", "闻人", "歐陽", "司馬", "諸葛", "尉遲", "軒轅",
];
/// Characters that sound otherwise in a surname than most often elsewhere, and how.
const SURNAME_READINGS: &[(char, &str)] = &[
    ('单', "shan4"),
    ('單', "shan4"),
    ('曾', "zeng1"),
    ('解', "xie4"),
    ('仇', "qiu2"),
    ('查', "zha1"),
    ('任', "ren2"),
    ('华', "hua4"),
    ('華', "hua4"),
    ('盖', "ge3"),
    ('区', "ou1"),
    ('區', "ou1"),
    ('朴', "piao2"),
    ('翟', "zhai2"),
    ('覃', "qin2"),
    ('缪', "miao4"),
    ('种', "chong2"),
    ('员', "yun4"),
    ('繁', "po2"),
    ('乐', "yue4"),
    ('樂', "yue4"),
    ('洗', "xian3"),
    ('召', "shao4"),
    ('燕', "yan1"),
    ('应', "ying1"),
    ('應', "ying1"),
    ('葛', "ge3"),
    ('宁', "ning4"),
    ('隗', "wei3"),
    ('折', "she2"),
    ('秘', "bi4"),
    ('卜', "bu3"),
    ('车', "che1"),
    ('車', "che1"),
    ('黑', "he4"),
    ('尉', "wei4"),
    ('那', "na1"),
    ('过', "guo1"),
    ('牟', "mu4"),
    ('纪', "ji3"),
    ('臧', "zang1"),
    ('令', "ling2"),
];
/// What stands after a surname where the given name is not known.
const TITLES: &[&str] = &["先生", "女士", "小姐", "太太", "老师", "阿姨", "大姐", "大哥", "同学", "老板", "经理"];
/// What stands in a masked name.
const MASKS: &[char] = &['*', '某', '×', '＊', 'x', 'X', '?', '？'];

/// A name, once for each distinct text. Ids are those of one [`Interner`]; equal texts have equal ids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    /// Syllables with their tones.
    pub sound_tone: u32,
    /// Syllables without tones, joined: `wangwei` also for a name in Latin letters.
    pub sound: u32,
    /// The same with the given name first.
    pub sound_swapped: u32,
    /// Syllables with sounds that are mixed up made one.
    pub near_sound: u32,
    /// The letters of that in an order of their own: whatever stands first, and in whichever script.
    pub letters: u32,
    /// The same of the surname.
    pub surname_sound: u32,
    /// Characters of a Chinese name, words of a Latin one, in an order of their own.
    pub sorted: u32,
    /// The surname as written.
    pub surname: u32,
    /// The given name as written; [`Interner::NONE`] where there is none.
    pub given: u32,
    /// Whether there are Chinese characters.
    pub han: bool,
    /// Whether the given name is a title or masked.
    pub abbreviated: bool,
}

impl Name {
    pub(crate) fn new(name: &str, ids: &mut Interner) -> Self {
        if name.chars().any(is_han) { Self::han(name, ids) } else { Self::latin(name, ids) }
    }

    fn han(name: &str, ids: &mut Interner) -> Self {
        let (visible, abbreviated) = visible(name);
        let characters: Vec<char> = visible.chars().collect();
        let compound = characters.len() > 2 && COMPOUND_SURNAMES.iter().any(|surname| visible.starts_with(surname));
        let (surname, given) = characters.split_at(if compound { 2 } else { 1.min(characters.len()) });
        let abbreviated = abbreviated || given.is_empty();
        let toned: Vec<String> = surname.iter().map(|c| reading(*c, true)).chain(given.iter().map(|c| reading(*c, false))).collect();
        let plain: Vec<&str> = toned.iter().map(|syllable| syllable.trim_end_matches(|c: char| c.is_ascii_digit())).collect();
        let (surname_sound, given_sound) = (plain[..surname.len()].concat(), plain[surname.len()..].concat());
        let sound = format!("{surname_sound}{given_sound}");
        let mut sorted = characters.clone();
        sorted.sort_unstable();
        Self {
            sound_tone: ids.id("tone", &toned.concat()),
            sound: ids.id("sound", &sound),
            sound_swapped: ids.id("sound", &format!("{given_sound}{surname_sound}")),
            near_sound: ids.id("near", &near(&sound)),
            letters: ids.id("letters", &letters(&sound)),
            surname_sound: ids.id("near", &near(&surname_sound)),
            sorted: ids.id("sorted", &sorted.iter().collect::<String>()),
            surname: ids.id("surname", &surname.iter().collect::<String>()),
            given: if abbreviated { Interner::NONE } else { ids.id("given", &given.iter().collect::<String>()) },
            han: true,
            abbreviated,
        }
    }

    fn latin(name: &str, ids: &mut Interner) -> Self {
        let letters = |word: &str| word.chars().filter(|c| c.is_alphanumeric()).collect::<String>().replace('ü', "v");
        let mut words: Vec<String> = name.split_whitespace().map(letters).filter(|word| !word.is_empty()).collect();
        let sound = words.concat();
        let first = words.first().cloned().unwrap_or_default();
        let (rest, mut swapped) = (words.iter().skip(1).cloned().collect::<Vec<_>>().concat(), words.clone());
        // The last word of a name written the other way round is the surname.
        swapped.rotate_right(1.min(words.len()));
        words.sort_unstable();
        Self {
            sound_tone: ids.id("latin", &sound),
            sound: ids.id("sound", &sound),
            sound_swapped: ids.id("sound", &swapped.concat()),
            near_sound: ids.id("near", &near(&sound)),
            letters: ids.id("letters", &letters(&sound)),
            surname_sound: ids.id("near", &near(&first)),
            sorted: ids.id("sorted", &words.join(" ")),
            surname: ids.id("surname", &first),
            given: if rest.is_empty() { Interner::NONE } else { ids.id("given", &rest) },
            han: false,
            abbreviated: false,
        }
    }
}

/// The place in the levels of [`crate::Kind::Name`] of two names that differ as texts.
pub(crate) fn level<'t>(a: &Name, b: &Name, texts: impl Fn() -> (&'t str, &'t str)) -> u8 {
    const HOMOPHONE_TONE: u8 = 1;
    const HOMOPHONE: u8 = 2;
    const ROMANISED: u8 = 3;
    const SWAPPED: u8 = 4;
    const NEAR_SOUND: u8 = 5;
    const CLOSE: u8 = 6;
    const ABBREVIATED: u8 = 7;
    const GIVEN_NAME: u8 = 8;
    const SURNAME: u8 = 9;
    const OTHER: u8 = 10;
    if a.abbreviated || b.abbreviated {
        return if a.surname == b.surname && may_be_one(texts()) { ABBREVIATED } else { OTHER };
    }
    if a.han != b.han {
        let same = a.sound == b.sound || a.sound_swapped == b.sound || a.sound == b.sound_swapped;
        return if same { ROMANISED } else { OTHER };
    }
    if a.sound_tone == b.sound_tone {
        // Names in Latin letters that differ in spaces or hyphens alone.
        return if a.han { HOMOPHONE_TONE } else { CLOSE };
    }
    if a.han && a.sound == b.sound {
        return HOMOPHONE;
    }
    if a.sorted == b.sorted {
        return SWAPPED;
    }
    if a.han && a.near_sound == b.near_sound {
        return NEAR_SOUND;
    }
    let close = if a.han {
        a.surname_sound == b.surname_sound && {
            let (a, b) = texts();
            a.chars().count().max(b.chars().count()) >= 3 && text::edits(a, b) == Some(1)
        }
    } else {
        let (a, b) = texts();
        strsim::jaro_winkler(a, b) >= 0.92
    };
    if close {
        CLOSE
    } else if a.given != Interner::NONE && a.given == b.given {
        GIVEN_NAME
    } else if a.surname == b.surname {
        SURNAME
    } else {
        OTHER
    }
}

/// The id whose frequency says how rare an agreement of this level is.
pub(crate) fn class(level: u8, name: &Name) -> Option<u32> {
    match level {
        1 => Some(name.sound_tone),
        2 | 3 => Some(name.sound),
        4 => Some(name.sorted),
        5 => Some(name.near_sound),
        8 => Some(name.given),
        7 | 9 => Some(name.surname),
        _ => None,
    }
}

/// Whether what can be read of two names of one surname is the same.
fn may_be_one((a, b): (&str, &str)) -> bool {
    let (a, b) = (visible(a).0, visible(b).0);
    a.starts_with(b) || b.starts_with(a) || {
        // 王*明 and 王小明: what is not masked stands at the same place.
        a.chars().count() == b.chars().count() && a.chars().zip(b.chars()).all(|(a, b)| a == b || MASKS.contains(&a) || MASKS.contains(&b))
    }
}

/// What stands before a title or a mask at the end, and whether something is hidden anywhere.
fn visible(name: &str) -> (&str, bool) {
    let titled = TITLES.iter().find_map(|title| name.strip_suffix(title)).filter(|rest| !rest.is_empty() && rest.chars().count() <= 2);
    let rest = titled.unwrap_or(name);
    let shown = rest.trim_end_matches(MASKS);
    let shown = if shown.is_empty() { rest } else { shown };
    (shown, titled.is_some() || shown.chars().any(|c| MASKS.contains(&c)) || shown.len() < rest.len())
}

pub(crate) fn is_han(character: char) -> bool {
    matches!(character, '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}' | '〇')
}

/// The syllable of a character with its tone; a character that has none stands for itself.
fn reading(character: char, surname: bool) -> String {
    let known = surname.then(|| SURNAME_READINGS.iter().find(|(c, _)| *c == character)).flatten();
    match (known, character.to_pinyin()) {
        (Some((_, syllable)), _) => (*syllable).to_owned(),
        (None, Some(pinyin)) => pinyin.with_tone_num_end().replace('ü', "v"),
        (None, None) => character.to_string(),
    }
}

/// A sound with those made one that speakers of many dialects mix up.
pub(crate) fn near(sound: &str) -> String {
    sound.replace("zh", "z").replace("ch", "c").replace("sh", "s").replace("ng", "n").replace('n', "l").replace('f', "h")
}

/// The letters of a sound, those mixed up made one, in an order of their own.
fn letters(sound: &str) -> String {
    let mut letters: Vec<char> = near(sound).chars().collect();
    letters.sort_unstable();
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Kind;
    use crate::text::normalise;

    fn level_of(a: &str, b: &str) -> &'static str {
        let mut ids = Interner::default();
        let (a, b) = (normalise(Kind::Name, a).expect("a name"), normalise(Kind::Name, b).expect("a name"));
        if a == b {
            return "exact";
        }
        let (left, right) = (Name::new(&a, &mut ids), Name::new(&b, &mut ids));
        let one = level(&left, &right, || (&a, &b));
        assert_eq!(one, level(&right, &left, || (&b, &a)), "{a} and {b}: the order must not matter");
        Kind::Name.levels()[usize::from(one)]
    }

    #[test]
    fn chinese_names_agree_by_degrees() {
        for (a, b, level) in [
            ("王小明", "王 小 明", "exact"),
            ("王伟", "王玮", "homophone_tone"),
            ("张伟", "章炜", "homophone_tone"),
            ("王芳", "汪方", "homophone"),
            ("王小明", "Wang Xiaoming", "romanised"),
            ("王小明", "xiao ming wang", "romanised"),
            ("王小明", "XIAOMING WANG", "romanised"),
            ("吕娜", "LÜ NA", "romanised"),
            ("明小王", "王小明", "swapped"),
            ("张珊", "臧三", "near_sound"),
            ("李娜", "李拉", "near_sound"),
            ("黄方", "黄航", "near_sound"),
            ("王小明", "王晓鹏", "surname"),
            ("王小明", "王小朋", "close"),
            ("王小明", "王明", "close"),
            ("王小明", "李小明", "given_name"),
            ("王伟", "王芳", "surname"),
            ("王女士", "王小明", "abbreviated"),
            ("王**", "王小明", "abbreviated"),
            ("王*明", "王小明", "abbreviated"),
            ("王*红", "王小明", "other"),
            ("王女士", "李小明", "other"),
            ("王小明", "陈静", "other"),
            ("欧阳娜娜", "欧阳那那", "homophone_tone"),
        ] {
            assert_eq!(level_of(a, b), level, "{a} {b}");
        }
    }

    #[test]
    fn surnames_sound_as_surnames_do() {
        for (a, b) in [("单红", "善红"), ("曾敏", "增敏"), ("仇英", "求英"), ("任静", "仁静"), ("查理", "扎理")] {
            assert!(level_of(a, b).starts_with("homophone"), "{a} {b}: {}", level_of(a, b));
        }
        // The same character in a given name sounds as it most often does.
        assert_eq!(level_of("王单", "王丹"), "homophone_tone");
    }

    #[test]
    fn latin_names_agree_by_degrees() {
        for (a, b, level) in [
            ("Wang Wei", "WANG  WEI", "exact"),
            ("Wang Wei", "Wangwei", "close"),
            ("Wang Wei", "Wei Wang", "swapped"),
            ("Michelle", "Michele", "close"),
            ("Wang Wei", "Wang Fang", "surname"),
            ("John Smith", "Mary Jones", "other"),
        ] {
            assert_eq!(level_of(a, b), level, "{a} {b}");
        }
    }
}
