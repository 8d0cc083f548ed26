//! Rows by columns, each distinct value once, with what comparing needs to know of it.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use jiff::civil;
use reunion_model::threads::one_by_one;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use crate::intern::{Dictionary, Interner, Texts};
use crate::limits::ROWS_MAX;
use crate::name::Name;
use crate::plan::{Kind, Part, Plan, PlanError};
use crate::text::normalise;

/// No value.
pub(crate) const MISSING: u32 = u32::MAX;
/// Moments are cut into days in UTC.
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// The columns that a plan reads. It keeps the values as they are compared; it is as personal as the rows are.
pub struct Table {
    /// Of each rank the place in the rows as they were given. Ranks are in the order of the rows' keys.
    pub(crate) places: Vec<u32>,
    /// Of each place its rank.
    pub(crate) ranks: Vec<u32>,
    /// Of each rank its side, where the rows come from two sets that have no duplicates in themselves.
    pub(crate) sides: Option<Vec<bool>>,
    /// A number that depends on the rows' keys and on nothing else.
    pub(crate) seed: u64,
    /// The columns of [`Plan::columns`].
    pub(crate) columns: Vec<Column>,
    names: Vec<String>,
}

/// One column.
pub(crate) struct Column {
    /// Of each rank its value's number, or [`MISSING`].
    pub codes: Vec<u32>,
    /// The distinct values as they are compared.
    pub values: Texts,
    /// How many rows have each.
    pub counts: Vec<u32>,
    /// How many rows have a value.
    pub present: u32,
    /// What the values say beyond their texts.
    pub features: Features,
}

/// What the values of a column say beyond their texts.
pub(crate) enum Features {
    /// Nothing.
    None,
    /// Names, and of each id of theirs how many rows have it.
    Names(Vec<Name>, Vec<u32>),
    /// Dates; `None` where the text has other than eight digits.
    Dates(Vec<Option<Date>>),
    /// The elements of sets, sorted; the elements of value `n` end at the second list's `n`.
    Sets(Vec<u32>, Vec<usize>),
    /// Numbers, where the text is one.
    Numbers(Vec<Option<f64>>),
}

/// A date of eight digits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Date {
    pub digits: [u8; 8],
    /// The day's number, where the calendar has it.
    pub day: Option<i32>,
}

/// What the rows are read from.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The rows, in any order and cut anyhow.
    pub batches: &'a [RecordBatch],
    /// A column without nulls, whose values are all different.
    pub key: &'a str,
    /// A column with two different values, where rows are to be linked between two sets alone.
    pub side: Option<&'a str>,
}

/// Why a table cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The plan makes no sense.
    #[error("the plan of comparisons cannot be used")]
    Plan(#[from] PlanError),
    /// A column that the plan names is not there.
    #[error("the rows have no column `{column}`, which the plan names")]
    NoColumn {
        /// The column.
        column: String,
    },
    /// A column of a type that cannot be read.
    #[error("column `{column}` has the type {data_type}, which has no text")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        data_type: DataType,
        /// What the library says.
        source: ArrowError,
    },
    /// A row without a key, or two with the same.
    #[error("the key `{column}` is missing in {missing} rows and taken twice in {twice}: every row needs one of its own")]
    Key {
        /// The column.
        column: String,
        /// Rows without one.
        missing: usize,
        /// Rows with one that another row has.
        twice: usize,
    },
    /// Rows of more or fewer than two sets.
    #[error("`{column}` has {values} different values: rows are linked between two sets, so two were expected")]
    Sides {
        /// The column.
        column: String,
        /// How many values it has.
        values: usize,
    },
    /// More rows than can be counted.
    #[error("{rows} rows are more than {ROWS_MAX}")]
    Rows {
        /// How many there are.
        rows: usize,
    },
}

impl Table {
    /// Reads the columns that the plan names. Texts, numbers, dates, moments, booleans, and lists of them can be read; a
    /// column that is all null is fine.
    ///
    /// # Errors
    /// Where the plan makes no sense, a column is not there or cannot be read, or the keys are not all different.
    pub fn read(plan: &Plan, rows: Rows<'_>) -> Result<Self, TableError> {
        plan.check()?;
        let count: usize = rows.batches.iter().map(RecordBatch::num_rows).sum();
        if count > ROWS_MAX {
            return Err(TableError::Rows { rows: count });
        }
        let keys = keys(rows)?;
        let mut places: Vec<u32> = (0..count as u32).collect();
        places.sort_unstable_by_key(|place| keys[*place as usize]);
        let seed = places.iter().fold(count as u64, |seed, place| {
            let key = keys[*place as usize];
            xxh3_64_with_seed(&key.to_le_bytes(), seed)
        });
        drop(keys);
        let mut ranks = vec![0; count];
        for (rank, place) in places.iter().enumerate() {
            ranks[*place as usize] = rank as u32;
        }
        let sides = rows.side.map(|column| sides(rows.batches, column, &places)).transpose()?;
        let names: Vec<String> = plan.columns().into_iter().map(str::to_owned).collect();
        let read = |name: &String| Column::read(rows.batches, name, plan.kind_of(name), &places);
        let columns = one_by_one(&names, plan.limits.threads_max, read).into_iter().collect::<Result<_, _>>()?;
        Ok(Self { places, ranks, sides, seed, columns, names })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.places.len()
    }

    /// Pairs of rows that could be compared.
    pub fn pairs(&self) -> u64 {
        let rows = self.rows() as u64;
        match &self.sides {
            Some(sides) => {
                let right = sides.iter().filter(|side| **side).count() as u64;
                right * (rows - right)
            }
            None => rows * rows.saturating_sub(1) / 2,
        }
    }

    pub(crate) fn column(&self, name: &str) -> Option<(usize, &Column)> {
        let at = self.names.iter().position(|known| known == name)?;
        Some((at, &self.columns[at]))
    }

    pub(crate) fn comparable(&self, a: u32, b: u32) -> bool {
        self.sides.as_ref().is_none_or(|sides| sides[a as usize] != sides[b as usize])
    }
}

/// Every row's key by place, as 128 bits.
fn keys(rows: Rows<'_>) -> Result<Vec<u128>, TableError> {
    let mut keys = Vec::new();
    let mut missing = 0;
    for batch in rows.batches {
        let array = named(batch, rows.key)?;
        missing += array.null_count();
        if let Some(bytes) = array.as_fixed_size_binary_opt().filter(|bytes| bytes.value_length() == 16) {
            keys.extend(bytes.iter().map(|key| key.map_or(0, |key| u128::from_be_bytes(key.try_into().unwrap_or_default()))));
        } else {
            each_text(array, rows.key, &mut |text| keys.push(text.map_or(0, |text| xxh3_128(text.as_bytes()))))?;
        }
    }
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    let twice = sorted.windows(2).filter(|pair| pair[0] == pair[1]).count();
    if missing + twice > 0 {
        return Err(TableError::Key { column: rows.key.to_owned(), missing, twice });
    }
    Ok(keys)
}

/// Of each rank whether it has the greater of the two values.
fn sides(batches: &[RecordBatch], column: &str, places: &[u32]) -> Result<Vec<bool>, TableError> {
    let mut seen: Vec<String> = Vec::new();
    let mut sides = Vec::with_capacity(places.len());
    for batch in batches {
        each_text(named(batch, column)?, column, &mut |text| {
            let text = text.unwrap_or_default();
            let at = seen.iter().position(|known| known == text).unwrap_or_else(|| {
                seen.push(text.to_owned());
                seen.len() - 1
            });
            sides.push(at);
        })?;
    }
    if seen.len() != 2 {
        return Err(TableError::Sides { column: column.to_owned(), values: seen.len() });
    }
    let greater = usize::from(seen[1] > seen[0]);
    Ok(places.iter().map(|place| sides[*place as usize] == greater).collect())
}

fn named<'a>(batch: &'a RecordBatch, column: &str) -> Result<&'a ArrayRef, TableError> {
    batch.column_by_name(column).ok_or_else(|| TableError::NoColumn { column: column.to_owned() })
}

/// What stands between the elements of a list.
const BETWEEN: char = '\u{1f}';

/// Gives every value of an array as text, in order.
fn each_text(array: &ArrayRef, column: &str, take: &mut dyn FnMut(Option<&str>)) -> Result<(), TableError> {
    let unreadable = |source| TableError::Type { column: column.to_owned(), data_type: array.data_type().clone(), source };
    let day = |days: i32| civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok().map(|day| day.to_string());
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().for_each(take),
        DataType::Date32 => {
            array.as_primitive::<Date32Type>().iter().for_each(|days| take(days.and_then(day).as_deref()));
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let days = |moment: i64| i32::try_from(moment.div_euclid(MICROSECONDS_PER_DAY)).ok();
            let moments = array.as_primitive::<TimestampMicrosecondType>();
            moments.iter().for_each(|moment| take(moment.and_then(days).and_then(day).as_deref()));
        }
        DataType::List(_) => {
            for list in array.as_list::<i32>().iter() {
                let Some(list) = list else {
                    take(None);
                    continue;
                };
                let mut joined = String::new();
                each_text(&list, column, &mut |text| {
                    joined.push_str(text.unwrap_or_default());
                    joined.push(BETWEEN);
                })?;
                take(Some(&joined));
            }
        }
        _ => {
            let texts = arrow::compute::cast(array, &DataType::Utf8).map_err(unreadable)?;
            texts.as_string::<i32>().iter().for_each(take);
        }
    }
    Ok(())
}

impl Column {
    fn read(batches: &[RecordBatch], name: &str, kind: Kind, places: &[u32]) -> Result<Self, TableError> {
        let mut dictionary = Dictionary::default();
        let mut by_place = Vec::with_capacity(places.len());
        for batch in batches {
            each_text(named(batch, name)?, name, &mut |text| {
                by_place.push(text.and_then(|text| normalise(kind, text)).map_or(MISSING, |text| dictionary.id(&text)));
            })?;
        }
        let values = dictionary.texts;
        let mut counts = vec![0; values.len()];
        for code in by_place.iter().filter(|code| **code != MISSING) {
            counts[*code as usize] += 1;
        }
        let present = counts.iter().sum();
        let codes = places.iter().map(|place| by_place[*place as usize]).collect();
        let features = Features::new(kind, &values, &counts);
        Ok(Self { codes, values, counts, present, features })
    }

    pub(crate) fn value(&self, code: u32) -> &str {
        self.values.get(code)
    }

    /// Of each distinct value a hash of a part of it; `None` where it does not have that part.
    pub(crate) fn parts(&self, part: Part, seed: u64) -> Vec<Option<u64>> {
        let hash = |text: &str| Some(xxh3_64_with_seed(text.as_bytes(), seed));
        let id = |id: u32| Some(xxh3_64_with_seed(&id.to_le_bytes(), seed));
        let of = |at: usize, text: &str| match (part, &self.features) {
            (Part::Whole, _) => hash(text),
            (Part::First(length), _) => {
                let length = usize::from(length);
                let (end, _) = text.char_indices().nth(length - 1)?;
                let end = end + text[end..].chars().next().map_or(0, char::len_utf8);
                hash(&text[..end])
            }
            (Part::Last(length), _) => text.char_indices().rev().nth(usize::from(length) - 1).and_then(|(start, _)| hash(&text[start..])),
            (Part::Year, _) => text.get(..4).and_then(hash),
            (Part::MonthDay, _) => text.get(4..8).and_then(hash),
            (Part::Sound, Features::Names(names, _)) => (!names[at].abbreviated).then_some(names[at].letters).and_then(id),
            (Part::SurnameSound, Features::Names(names, _)) => id(names[at].surname_sound),
            (Part::Sound | Part::SurnameSound, _) => None,
            (Part::Characters, _) => {
                let mut characters: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
                characters.sort_unstable();
                hash(&characters.into_iter().collect::<String>())
            }
        };
        self.values.iter().enumerate().map(|(at, text)| of(at, text)).collect()
    }
}

impl Features {
    fn new(kind: Kind, values: &Texts, counts: &[u32]) -> Self {
        match kind {
            Kind::Name => {
                let mut ids = Interner::default();
                let names: Vec<Name> = values.iter().map(|name| Name::new(name, &mut ids)).collect();
                let mut frequencies = vec![0; ids.len()];
                for (name, count) in names.iter().zip(counts) {
                    let own = [name.sound_tone, name.sound, name.near_sound, name.sorted, name.surname, name.given];
                    for id in own.into_iter().filter(|id| *id != Interner::NONE) {
                        frequencies[id as usize] += count;
                    }
                }
                Self::Names(names, frequencies)
            }
            Kind::Date { .. } => Self::Dates(values.iter().map(Date::new).collect()),
            Kind::Set => {
                let mut ids: HashMap<String, u32> = HashMap::new();
                let (mut elements, mut ends) = (Vec::new(), Vec::new());
                for value in values.iter() {
                    let start = elements.len();
                    for element in value.split([BETWEEN, ',', ';', '|', '、']).map(str::trim).filter(|element| !element.is_empty()) {
                        let next = ids.len() as u32;
                        elements.push(*ids.entry(element.to_owned()).or_insert(next));
                    }
                    elements[start..].sort_unstable();
                    let mut kept = start;
                    for at in start..elements.len() {
                        if at == start || elements[at] != elements[kept - 1] {
                            elements[kept] = elements[at];
                            kept += 1;
                        }
                    }
                    elements.truncate(kept);
                    ends.push(kept);
                }
                Self::Sets(elements, ends)
            }
            Kind::Number => Self::Numbers(values.iter().map(|text| text.parse().ok().filter(|number: &f64| number.is_finite())).collect()),
            Kind::LatinName | Kind::Digits | Kind::Text | Kind::Code => Self::None,
        }
    }
}

impl Date {
    pub(crate) fn new(text: &str) -> Option<Self> {
        let digits: [u8; 8] = text.as_bytes().try_into().ok().filter(|digits: &[u8; 8]| digits.iter().all(u8::is_ascii_digit))?;
        let number = |from: usize, to: usize| digits[from..to].iter().fold(0_i16, |number, digit| number * 10 + i16::from(digit - b'0'));
        let (year, month, day) = (number(0, 4), number(4, 6), number(6, 8));
        let date = i8::try_from(month).ok().zip(i8::try_from(day).ok()).and_then(|(month, day)| civil::Date::new(year, month, day).ok());
        Some(Self { digits, day: date.map(|date| (date - civil::date(1970, 1, 1)).get_days()) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Int64Array, ListArray, StringArray, TimestampMicrosecondArray,
        UInt64Array,
    };
    use arrow::datatypes::Int32Type;

    use super::*;
    use crate::plan::{BlockingKey, Comparison, Limits};

    /// Of each row, by its key, what a column holds.
    fn values(kind: Kind, array: ArrayRef) -> Vec<Option<String>> {
        // Keys in the opposite order of the places.
        let keys = (0..array.len()).map(|at| [255 - at as u8; 16]);
        let keys = FixedSizeBinaryArray::try_from_iter(keys).expect("keys of one length");
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("key", Arc::new(keys) as ArrayRef, false),
            ("it", array.clone(), true),
            ("other", array, true),
        ]);
        let plan = Plan {
            comparisons: vec![Comparison::new("it", kind), Comparison::new("other", Kind::Text)],
            blocking: vec![BlockingKey::new(&[("it", Part::Whole)])],
            probability_min: 0.5,
            limits: Limits::default(),
        };
        let table = Table::read(&plan, Rows { batches: &[batch.expect("a batch")], key: "key", side: None }).expect("a table");
        let column = &table.columns[0];
        let value =
            |rank: &u32| Some(column.codes[*rank as usize]).filter(|code| *code != MISSING).map(|code| column.value(code).to_owned());
        assert!(table.ranks.is_sorted_by(|a, b| a > b));
        table.ranks.iter().map(value).collect()
    }

    #[test]
    fn columns_of_many_types_are_read() {
        let some = |texts: &[&str]| texts.iter().map(|text| (!text.is_empty()).then(|| (*text).to_owned())).collect::<Vec<_>>();
        let date = Kind::Date { near_days: 1 };
        let moments = TimestampMicrosecondArray::from(vec![Some(0), Some(-1), None]).with_timezone("UTC");
        let amounts = Decimal128Array::from(vec![Some(1250), None]).with_precision_and_scale(18, 2).expect("a scale");
        let sets = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(3), Some(1)]), None]);
        for (kind, array, expected) in [
            (Kind::Text, Arc::new(StringArray::from(vec![Some(" Ab  C "), Some(" "), None])) as ArrayRef, some(&["ab c", "", ""])),
            (Kind::Digits, Arc::new(UInt64Array::from(vec![8_613_900_000_001])) as ArrayRef, some(&["8613900000001"])),
            (Kind::Number, Arc::new(Int64Array::from(vec![Some(-3), None])) as ArrayRef, some(&["-3", ""])),
            (Kind::Number, Arc::new(amounts) as ArrayRef, some(&["12.50", ""])),
            (Kind::Code, Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef, some(&["true", "false"])),
            (date, Arc::new(Date32Array::from(vec![0, 5539])) as ArrayRef, some(&["19700101", "19850302"])),
            (date, Arc::new(moments) as ArrayRef, some(&["19700101", "19691231", ""])),
            (Kind::Set, Arc::new(sets) as ArrayRef, some(&["3\u{1f}1\u{1f}", ""])),
        ] {
            assert_eq!(values(kind, array), expected, "{kind:?}");
        }
    }

    #[test]
    fn sets_are_sorted_and_without_doubles() {
        let array: ArrayRef = Arc::new(StringArray::from(vec!["b, a;b|c", "x"]));
        let mut dictionary = Dictionary::default();
        for text in array.as_string::<i32>().iter().flatten() {
            dictionary.id(text);
        }
        let Features::Sets(elements, ends) = Features::new(Kind::Set, &dictionary.texts, &[1, 1]) else { panic!("no sets") };
        assert_eq!((elements, ends), (vec![0, 1, 2, 3], vec![3, 4]));
    }
}
