//! Derived columns: what depends on the run's clock or on all members, and is never stored.
//!
//! [`reunion_model::schema::DERIVED`] says what each one means. A member *has an order* where
//! `order_count` is 1 or more; where that is unknown, where the date of an order is known or
//! `total_spent` is above 0. A column whose inputs no source brings is null for everybody.
//!
//! The cost is linear but for the ranks, which sort each store on its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, Schema, TimestampMicrosecondType};
use hashbrown::{HashMap, HashSet};
use jiff::tz::TimeZone;
use reunion_model::MemberId;
use reunion_model::schema::{ColumnType, DERIVED, MEMBER_ID, PHONE, timestamp_type};
use reunion_model::threads::{both, cores};

use crate::DeriveError;
use crate::calendar::Calendar;
use crate::parallel;

/// The members that have a confirmed link in some channel.
pub type LinkedMembers = HashSet<MemberId>;

/// What derived columns depend on beside the members.
pub struct Derivation<'a> {
    /// The run's clock, microseconds UTC.
    pub clock_us: i64,
    /// Where days are cut.
    pub timezone: &'a TimeZone,
    /// Who is linked.
    pub linked: &'a LinkedMembers,
    /// The derived columns to compute, by name; `None` for all. Names of other columns do no harm, so
    /// [`crate::Rules::columns_used`] fits.
    pub wanted: Option<&'a BTreeSet<String>>,
}

/// The one derived column that the members bring along.
const RECORD_COUNT: &str = "record_count";

/// The members' schema with every derived column at its end.
pub fn derived_schema(members: &Schema) -> Schema {
    schema_with(members, |_| true)
}

/// The schema that rules see where the golden columns are these: the ids, the phone, the golden columns
/// in this order, and all derived ones.
pub fn rule_schema<'a>(golden: impl IntoIterator<Item = (&'a str, ColumnType)>) -> Schema {
    let mut fields = vec![
        Field::new(MEMBER_ID, DataType::FixedSizeBinary(16), false),
        Field::new(PHONE, DataType::UInt64, true),
        Field::new(RECORD_COUNT, DataType::Int64, true),
    ];
    fields.extend(golden.into_iter().map(|(name, kind)| Field::new(name, kind.arrow(), true)));
    derived_schema(&Schema::new(fields))
}

fn schema_with(members: &Schema, wanted: impl Fn(&str) -> bool) -> Schema {
    let mut fields: Vec<Field> = members.fields().iter().map(|field| field.as_ref().clone()).collect();
    for column in DERIVED {
        if column.name != RECORD_COUNT && wanted(column.name) && members.field_with_name(column.name).is_err() {
            fields.push(Field::new(column.name, column.kind.arrow(), true));
        }
    }
    Schema::new_with_metadata(fields, members.metadata().clone())
}

/// The members with the derived columns at the end of each batch, in the order of the reference.
///
/// The batches are all members there are, of one schema: `member_id` (16 bytes), `phone` (unsigned 64
/// bits), and golden columns by name, of which any may be missing. However they are cut, the result is
/// the same.
///
/// # Errors
/// Where a column has not its canonical type, the clock is outside of the calendar, or the batches have
/// several schemas.
pub fn derive(members: &[RecordBatch], how: &Derivation<'_>) -> Result<Vec<RecordBatch>, DeriveError> {
    let Some(first) = members.first() else { return Ok(Vec::new()) };
    let wanted = |name: &str| how.wanted.is_none_or(|wanted| wanted.contains(name));
    let schema = Arc::new(schema_with(&first.schema(), wanted));
    let calendar = Calendar::new(how.timezone, how.clock_us).ok_or(DeriveError::Clock { clock_us: how.clock_us })?;
    let inputs = members.iter().map(Inputs::of).collect::<Result<Vec<_>, _>>()?;

    let segment = wanted("rfm_segment");
    let quintiles = |score: &str, value: &(dyn Fn(Row<'_>) -> Option<i64> + Sync)| {
        if segment || wanted(score) { Quintiles::of(values(&inputs, value)) } else { Quintiles::none() }
    };
    let (recency, money) = both(|| quintiles("rfm_r", &|row| row.recency_us(how.clock_us)), || quintiles("rfm_m", &|row| row.money()));
    let ranks = if wanted("store_rank_by_spent") { ranks(&inputs)? } else { Vec::new() };
    let population = Population { recency, money, ranks };
    let starts = starts(members.iter().map(RecordBatch::num_rows));

    parallel::map(members.len(), cores(), |at| {
        let inputs = &inputs[at];
        let mut columns = members[at].columns().to_vec();
        let clock_day = calendar.day(how.clock_us);
        for field in &schema.fields()[columns.len()..] {
            columns.push(match field.name().as_str() {
                "phone_only" => Arc::new(phone_only(inputs, how.linked)) as ArrayRef,
                "days_since_last_order" => {
                    integers(inputs, |row| row.last_order_us().map(|at| days_since(&calendar, clock_day, at, how.clock_us)))
                }
                "rfm_r" => integers(inputs, |row| row.recency_us(how.clock_us).map(|at| population.recency.score(at))),
                "rfm_f" => integers(inputs, |row| row.frequency()),
                "rfm_m" => integers(inputs, |row| row.money().map(|amount| population.money.score(amount))),
                "rfm_segment" => Arc::new(texts(inputs, 12, |row| {
                    let recency = population.recency.score(row.recency_us(how.clock_us)?);
                    Some(segment_name(recency, row.frequency()?, population.money.score(row.money()?)))
                })),
                "lifecycle" => Arc::new(texts(inputs, 8, |row| lifecycle(row, &calendar, clock_day, how.clock_us))),
                "store_rank_by_spent" => {
                    let ranks = &population.ranks[starts[at]..starts[at] + inputs.rows];
                    Arc::new(Int64Array::from_iter(ranks.iter().map(|rank| (*rank > 0).then_some(i64::from(*rank)))))
                }
                name => unreachable!("`{name}` is in DERIVED and has no kernel"),
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    })
}

/// The golden columns that derived ones are made of.
struct Inputs<'a> {
    rows: usize,
    member_id: Option<&'a FixedSizeBinaryArray>,
    phone: Option<&'a ArrayRef>,
    store: Option<&'a StringArray>,
    first_order_at: Option<&'a TimestampMicrosecondArray>,
    last_order_at: Option<&'a TimestampMicrosecondArray>,
    order_count: Option<&'a Int64Array>,
    total_spent: Option<&'a Decimal128Array>,
}

impl<'a> Inputs<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, DeriveError> {
        let column = |name: &str, expected: &DataType| match batch.column_by_name(name) {
            Some(column) if column.data_type() == expected => Ok(Some(column)),
            Some(column) => {
                Err(DeriveError::Type { column: name.to_owned(), expected: expected.to_string(), found: column.data_type().to_string() })
            }
            None => Ok(None),
        };
        let moment = timestamp_type();
        Ok(Self {
            rows: batch.num_rows(),
            member_id: column(MEMBER_ID, &DataType::FixedSizeBinary(16))?.map(|array| array.as_fixed_size_binary()),
            phone: column(PHONE, &DataType::UInt64)?,
            store: column("store", &DataType::Utf8)?.map(|array| array.as_string()),
            first_order_at: column("first_order_at", &moment)?.map(|array| array.as_primitive::<TimestampMicrosecondType>()),
            last_order_at: column("last_order_at", &moment)?.map(|array| array.as_primitive::<TimestampMicrosecondType>()),
            order_count: column("order_count", &DataType::Int64)?.map(|array| array.as_primitive::<Int64Type>()),
            total_spent: column("total_spent", &ColumnType::Decimal.arrow())?.map(|array| array.as_primitive::<Decimal128Type>()),
        })
    }

    fn row(&self, at: usize) -> Row<'_> {
        Row { inputs: self, at }
    }

    fn tells_of_orders(&self) -> bool {
        self.first_order_at.is_some() || self.last_order_at.is_some() || self.order_count.is_some() || self.total_spent.is_some()
    }
}

#[derive(Clone, Copy)]
struct Row<'a> {
    inputs: &'a Inputs<'a>,
    at: usize,
}

impl Row<'_> {
    fn first_order_us(self) -> Option<i64> {
        self.inputs.first_order_at.and_then(|array| array.is_valid(self.at).then(|| array.value(self.at)))
    }

    fn last_order_us(self) -> Option<i64> {
        self.inputs.last_order_at.and_then(|array| array.is_valid(self.at).then(|| array.value(self.at)))
    }

    fn order_count(self) -> Option<i64> {
        self.inputs.order_count.and_then(|array| array.is_valid(self.at).then(|| array.value(self.at)))
    }

    /// In the smallest unit of the amount, which fits 64 bits: an amount has at most 18 digits.
    fn total_spent(self) -> Option<i64> {
        let array = self.inputs.total_spent?;
        array
            .is_valid(self.at)
            .then(|| i64::try_from(array.value(self.at)).unwrap_or(if array.value(self.at) < 0 { i64::MIN } else { i64::MAX }))
    }

    fn has_order(self) -> bool {
        match self.order_count() {
            Some(count) => count >= 1,
            None => {
                self.last_order_us().is_some() || self.first_order_us().is_some() || self.total_spent().is_some_and(|amount| amount > 0)
            }
        }
    }

    fn recency_us(self, clock_us: i64) -> Option<i64> {
        self.last_order_us().filter(|_| self.has_order()).map(|at| at.min(clock_us))
    }

    fn money(self) -> Option<i64> {
        self.total_spent().filter(|_| self.has_order())
    }

    /// Fixed edges, since most members of a retailer have one order and quintiles would cut at random.
    fn frequency(self) -> Option<i64> {
        self.order_count().filter(|count| *count >= 1).map(|count| match count {
            1 => 1,
            2 => 2,
            3..=4 => 3,
            5..=7 => 4,
            _ => 5,
        })
    }
}

/// What is computed over all members.
struct Population {
    recency: Quintiles,
    money: Quintiles,
    /// The rank in the store of each member, over all batches; 0 where there is none.
    ranks: Vec<u32>,
}

fn values(inputs: &[Inputs<'_>], value: &dyn Fn(Row<'_>) -> Option<i64>) -> Vec<i64> {
    let mut values = Vec::new();
    for batch in inputs {
        values.extend((0..batch.rows).filter_map(|at| value(Row { inputs: batch, at })));
    }
    values
}

/// The four values at which a higher score begins.
///
/// A value's score is the share of values that are not greater, in fifths, rounded up. So equal values
/// share the higher score, the greatest value always has 5, and with fewer than five distinct values
/// some scores do not occur: where all are equal, all have 5.
struct Quintiles {
    begins: [i64; 4],
}

impl Quintiles {
    fn none() -> Self {
        Self { begins: [i64::MAX; 4] }
    }

    fn of(mut values: Vec<i64>) -> Self {
        let count = values.len();
        if count == 0 {
            return Self::none();
        }
        // The score is above k where more than k fifths of the values are not greater: from the value
        // that stands at k·n/5 of the sorted values on.
        let begins = [1, 2, 3, 4].map(|k| *values.select_nth_unstable(k * count / 5).1);
        Self { begins }
    }

    fn score(&self, value: i64) -> i64 {
        1 + self.begins.iter().map(|begin| i64::from(value >= *begin)).sum::<i64>()
    }
}

/// Rank by amount among the members of each store, 1 the most, equal amounts alike; 0 for none.
fn ranks(inputs: &[Inputs<'_>]) -> Result<Vec<u32>, DeriveError> {
    let rows: usize = inputs.iter().map(|batch| batch.rows).sum();
    if u32::try_from(rows).is_err() {
        return Err(DeriveError::TooMany(rows));
    }
    let mut ranks = vec![0; rows];
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut sizes: Vec<u32> = Vec::new();
    // (store, amount, row) of the members that have both.
    let mut ranked: Vec<(u32, i64, u32)> = Vec::new();
    let mut row: u32 = 0;
    for batch in inputs {
        for at in 0..batch.rows {
            if let (Some(store), Some(amount)) = (batch.store.filter(|stores| stores.is_valid(at)), batch.row(at).total_spent()) {
                let next = sizes.len() as u32;
                let store = *numbers.entry(store.value(at)).or_insert(next);
                if store == next {
                    sizes.push(0);
                }
                sizes[store as usize] += 1;
                ranked.push((store, amount, row));
            }
            row += 1;
        }
    }
    // Counting sort by store, then each store on its own: its members fit the cache.
    let mut ends = starts(sizes.iter().map(|size| *size as usize));
    let mut by_store = vec![(0_i64, 0_u32); ranked.len()];
    for (store, amount, row) in ranked {
        let end = &mut ends[store as usize];
        by_store[*end] = (amount, row);
        *end += 1;
    }
    let mut rest = by_store.as_mut_slice();
    for size in sizes {
        let (store, others) = rest.split_at_mut(size as usize);
        rest = others;
        store.sort_unstable_by_key(|(amount, _)| std::cmp::Reverse(*amount));
        let mut rank = 0;
        for at in 0..store.len() {
            if at == 0 || store[at].0 != store[at - 1].0 {
                rank = at as u32 + 1;
            }
            ranks[store[at].1 as usize] = rank;
        }
    }
    Ok(ranks)
}

/// Where each of these runs of rows begins.
fn starts(sizes: impl Iterator<Item = usize>) -> Vec<usize> {
    let begin = |next: &mut usize, size: usize| {
        let begin = *next;
        *next += size;
        Some(begin)
    };
    sizes.scan(0, begin).collect()
}

fn days_since(calendar: &Calendar, clock_day: i64, at_us: i64, clock_us: i64) -> i64 {
    clock_day.saturating_sub(calendar.day(at_us.min(clock_us)))
}

fn segment_name(recency: i64, frequency: i64, money: i64) -> &'static str {
    match (recency >= 4, frequency >= 3, money >= 4) {
        (true, true, true) => "champion",
        (true, false, true) => "potential",
        (false, true, true) => "must_keep",
        (false, false, true) => "must_win_back",
        (true, true, false) => "loyal",
        (true, false, false) => "promising",
        (false, true, false) => "regular",
        (false, false, false) => "hibernating",
    }
}

fn lifecycle(row: Row<'_>, calendar: &Calendar, clock_day: i64, clock_us: i64) -> Option<&'static str> {
    if !row.has_order() {
        return row.inputs.tells_of_orders().then_some("prospect");
    }
    let days = |at_us| days_since(calendar, clock_day, at_us, clock_us);
    if row.first_order_us().is_some_and(|at| days(at) <= 30) {
        return Some("new");
    }
    Some(match days(row.last_order_us()?) {
        ..=90 => "active",
        91..=180 => "cooling",
        181..=365 => "dormant",
        _ => "lost",
    })
}

/// Null where the members have no phones or no ids at all.
fn phone_only(inputs: &Inputs<'_>, linked: &LinkedMembers) -> BooleanArray {
    let (Some(ids), Some(phones)) = (inputs.member_id, inputs.phone) else { return BooleanArray::new_null(inputs.rows) };
    let has_phone = phones.nulls().map_or_else(|| BooleanBuffer::new_set(inputs.rows), |nulls| nulls.inner().clone());
    if linked.is_empty() {
        return BooleanArray::new(has_phone, None);
    }
    let is_linked = |at: usize| MemberId::from_slice(ids.value(at)).is_some_and(|id| linked.contains(&id));
    BooleanArray::new(BooleanBuffer::collect_bool(inputs.rows, |at| has_phone.value(at) && !is_linked(at)), None)
}

fn integers(inputs: &Inputs<'_>, value: impl Fn(Row<'_>) -> Option<i64>) -> ArrayRef {
    let mut values = vec![0; inputs.rows];
    let valid = BooleanBuffer::collect_bool(inputs.rows, |at| match value(inputs.row(at)) {
        Some(value) => {
            values[at] = value;
            true
        }
        None => false,
    });
    Arc::new(Int64Array::new(values.into(), Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0)))
}

fn texts(inputs: &Inputs<'_>, bytes_each: usize, value: impl Fn(Row<'_>) -> Option<&'static str>) -> StringArray {
    let mut texts = StringBuilder::with_capacity(inputs.rows, inputs.rows * bytes_each);
    (0..inputs.rows).for_each(|at| texts.append_option(value(inputs.row(at))));
    texts.finish()
}

#[cfg(test)]
#[path = "derive_tests.rs"]
mod tests;
