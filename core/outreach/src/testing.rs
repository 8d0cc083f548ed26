//! Invented members for the tests of this crate.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, FixedSizeBinaryArray, RecordBatch, StringArray, UInt64Array};

use reunion_keys::{KeyRing, Lookup, MasterKey};
use reunion_model::phone::list;
use reunion_model::{MemberId, Phone};

/// The same keyed hashes in every test.
pub fn lookup() -> Lookup {
    let master = MasterKey::from_hex(&"42".repeat(32)).unwrap();
    KeyRing::create(&master).unwrap().0.lookup().clone()
}

/// A member.
#[derive(Debug, Clone)]
pub struct Person {
    pub id: u128,
    pub phone: Option<Phone>,
    pub other_phones: Vec<Phone>,
    pub store: Option<&'static str>,
    pub name: Option<&'static str>,
    pub total_spent: Option<i128>,
    pub do_not_contact: bool,
    pub sms_consent: Option<&'static str>,
    pub sources: u64,
}

impl Person {
    /// A member whom no gate stops.
    pub fn new(number: u64) -> Self {
        Self {
            id: number.into(),
            phone: Some(Phone::from_china_mobile(13_900_001_200 + number)),
            other_phones: Vec::new(),
            store: Some("S01"),
            name: Some("王女士"),
            total_spent: Some(i128::from(number) * 100),
            do_not_contact: false,
            sms_consent: Some("granted"),
            sources: 1,
        }
    }
}

/// The members as batches of at most `rows_max` rows.
pub fn people(persons: &[Person], rows_max: usize) -> Vec<RecordBatch> {
    persons.chunks(rows_max).map(batch).collect()
}

fn batch(persons: &[Person]) -> RecordBatch {
    let ids = persons.iter().map(|person| MemberId::from_u128(person.id).0);
    let phones: UInt64Array = persons.iter().map(|person| person.phone.map(Phone::e164_digits)).collect();
    let others: StringArray = persons.iter().map(|person| list(person.other_phones.iter().copied())).collect();
    let texts = |of: fn(&Person) -> Option<&'static str>| Arc::new(persons.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let spent: Decimal128Array = persons.iter().map(|person| person.total_spent).collect();
    let marked: BooleanArray = persons.iter().map(|person| Some(person.do_not_contact)).collect();
    let sources: UInt64Array = persons.iter().map(|person| Some(person.sources)).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("member_id", Arc::new(FixedSizeBinaryArray::try_from_iter(ids).unwrap()) as ArrayRef, false),
        ("phone", Arc::new(phones) as ArrayRef, true),
        ("other_phones", Arc::new(others) as ArrayRef, true),
        ("store", texts(|person| person.store), true),
        ("name", texts(|person| person.name), true),
        ("sms_consent", texts(|person| person.sms_consent), true),
        ("total_spent", Arc::new(spent.with_precision_and_scale(18, 2).unwrap()) as ArrayRef, true),
        ("do_not_contact", Arc::new(marked) as ArrayRef, true),
        ("source_mask", Arc::new(sources) as ArrayRef, true),
    ])
    .unwrap()
}
