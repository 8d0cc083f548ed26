//! The columns of members that outreach reads, over all batches by one row number.
//!
//! | column | type | without it |
//! |---|---|---|
//! | `member_id` | 16 bytes | an error |
//! | `phone` | unsigned 64 bits, E.164 digits | an error |
//! | `other_phones` | text, as [`reunion_model::phone::list`] makes it | nobody has others |
//! | `source_mask` | unsigned 64 bits, bit n for the nth source | an error where a source is stale |
//! | `store`, `staff`, `name` | text | nobody has one |
//! | `total_spent` | decimal | all count as equal |
//! | `do_not_contact` | boolean | nobody is marked |
//! | `sms_consent`, `call_consent`, `message_consent` | text | nobody has consented |
//!
//! Templates read further columns by name.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Decimal128Type, SchemaRef, UInt64Type};

use reunion_keys::Lookup;
use reunion_model::phone::from_list;
use reunion_model::schema::OTHER_PHONES;
use reunion_model::{Consent, ContactId, MemberId, Phone, Purpose};

/// Bits of the sources whose rows make up a member.
pub const SOURCE_MASK: &str = "source_mask";

/// A column that outreach cannot do with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// It is not there.
    #[error("the members have no column {0:?}")]
    Missing(String),
    /// It has another type.
    #[error("the members' column {column:?} has the type {found}, and outreach reads it as {expected}")]
    Type {
        /// The column.
        column: String,
        /// What outreach reads.
        expected: &'static str,
        /// What it is.
        found: DataType,
    },
    /// A null where there can be none.
    #[error("the members' column {0:?} has a null")]
    Null(String),
    /// Batches of different shapes.
    #[error("batch {0} of the members has other columns than the first")]
    Schemas(usize),
    /// An audience that does not belong to these members.
    #[error("batch {batch} has {members} members, and the audience of {campaign} has {audience} values for it")]
    Audience {
        /// The campaign.
        campaign: String,
        /// The batch, from 0.
        batch: usize,
        /// Its rows.
        members: usize,
        /// The audience's values.
        audience: usize,
    },
    /// More rows than a row number of 32 bits counts.
    #[error("there are {0} members, and a plan takes at most 4294967295")]
    TooMany(usize),
}

/// Members, read through their columns.
pub struct Members<'a> {
    batches: &'a [RecordBatch],
    parts: Vec<Part<'a>>,
    /// The first row of each batch.
    starts: Vec<usize>,
    rows: usize,
}

struct Part<'a> {
    member_id: &'a FixedSizeBinaryArray,
    phone: &'a UInt64Array,
    other_phones: Option<&'a StringArray>,
    sources: Option<&'a UInt64Array>,
    store: Option<&'a StringArray>,
    staff: Option<&'a StringArray>,
    name: Option<&'a StringArray>,
    total_spent: Option<&'a Decimal128Array>,
    do_not_contact: Option<&'a BooleanArray>,
    consents: [Option<&'a StringArray>; Purpose::ALL.len()],
}

impl<'a> Members<'a> {
    /// The members of these batches, which all have the same columns.
    ///
    /// # Errors
    /// Where a column is missing that has to be there, or one has another type than it should.
    pub fn new(batches: &'a [RecordBatch]) -> Result<Self, MembersError> {
        let mut starts = Vec::with_capacity(batches.len());
        let mut rows = 0;
        for (at, batch) in batches.iter().enumerate() {
            if batch.schema_ref().fields() != batches[0].schema_ref().fields() {
                return Err(MembersError::Schemas(at));
            }
            starts.push(rows);
            rows += batch.num_rows();
        }
        if u32::try_from(rows).is_err() {
            return Err(MembersError::TooMany(rows));
        }
        let parts = batches.iter().map(Part::new).collect::<Result<_, _>>()?;
        Ok(Self { batches, parts, starts, rows })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The columns; `None` where there is no batch to have any.
    pub fn schema(&self) -> Option<SchemaRef> {
        self.batches.first().map(RecordBatch::schema)
    }

    /// The member's id.
    pub fn member_id(&self, row: usize) -> MemberId {
        let (part, row) = self.locate(row);
        MemberId(part.member_id.value(row).try_into().expect("the column's values have 16 bytes"))
    }

    /// The member's phone.
    pub fn phone(&self, row: usize) -> Option<Phone> {
        let (part, row) = self.locate(row);
        (!part.phone.is_null(row)).then(|| Phone::from_e164_digits(part.phone.value(row)))
    }

    /// The contact points of the member's other numbers; of most members there are none.
    pub fn other_contacts(&self, row: usize, lookup: &Lookup) -> Vec<ContactId> {
        let (part, row) = self.locate(row);
        text(part.other_phones, row).map_or_else(Vec::new, |phones| from_list(phones).map(|phone| lookup.contact(phone)).collect())
    }

    /// Whether the member has other numbers than its phone.
    pub fn has_other_phones(&self, row: usize) -> bool {
        let (part, row) = self.locate(row);
        text(part.other_phones, row).is_some()
    }

    /// The member's store.
    pub fn store(&self, row: usize) -> Option<&'a str> {
        let (part, row) = self.locate(row);
        text(part.store, row)
    }

    /// The clerk who serves the member.
    pub fn staff(&self, row: usize) -> Option<&'a str> {
        let (part, row) = self.locate(row);
        text(part.staff, row)
    }

    /// The member's name.
    pub fn name(&self, row: usize) -> Option<&'a str> {
        let (part, row) = self.locate(row);
        text(part.name, row)
    }

    /// Hundredths of a yuan over all orders.
    pub fn total_spent(&self, row: usize) -> Option<i128> {
        let (part, row) = self.locate(row);
        part.total_spent.filter(|column| !column.is_null(row)).map(|column| column.value(row))
    }

    /// Whether a source says that the member must not be contacted.
    pub fn do_not_contact(&self, row: usize) -> bool {
        let (part, row) = self.locate(row);
        part.do_not_contact.is_some_and(|column| !column.is_null(row) && column.value(row))
    }

    /// Whether the member has granted this consent.
    pub fn has_consent(&self, row: usize, purpose: Purpose) -> bool {
        let (part, row) = self.locate(row);
        let column = part.consents[Purpose::ALL.iter().position(|other| *other == purpose).expect("all purposes are in ALL")];
        text(column, row) == Some(Consent::Granted.name())
    }

    /// The bits of the member's sources.
    pub fn sources(&self, row: usize) -> u64 {
        let (part, row) = self.locate(row);
        part.sources.filter(|column| !column.is_null(row)).map_or(0, |column| column.value(row))
    }

    /// Whether the members say which sources they come from.
    pub fn know_sources(&self) -> bool {
        self.parts.iter().all(|part| part.sources.is_some())
    }

    /// A column by name.
    ///
    /// # Errors
    /// Where it is missing.
    pub fn column(&self, name: &str) -> Result<Column<'_>, MembersError> {
        let arrays = self.batches.iter().map(|batch| batch.column_by_name(name).ok_or_else(|| MembersError::Missing(name.to_owned())));
        Ok(Column { arrays: arrays.collect::<Result<_, _>>()?, starts: &self.starts })
    }

    /// Whether an audience has one value for each row of each batch.
    ///
    /// # Errors
    /// Names the first batch for which it has not.
    pub fn check_audience(&self, campaign: &str, audience: &[BooleanArray]) -> Result<(), MembersError> {
        for (at, batch) in self.batches.iter().enumerate() {
            let (members, audience) = (batch.num_rows(), audience.get(at).map_or(0, BooleanArray::len));
            if members != audience {
                return Err(MembersError::Audience { campaign: campaign.to_owned(), batch: at, members, audience });
            }
        }
        Ok(())
    }

    /// Whether the row is in an audience that [`Members::check_audience`] let pass.
    pub fn is_in(&self, audience: &[BooleanArray], row: usize) -> bool {
        let at = locate(&self.starts, row);
        let (values, row) = (&audience[at], row - self.starts[at]);
        !values.is_null(row) && values.value(row)
    }

    /// The rows for which the audience (one array per batch) is true, in order.
    ///
    /// # Errors
    /// Where its lengths are not those of the batches.
    pub fn audience(&self, campaign: &str, audience: &[BooleanArray]) -> Result<Vec<u32>, MembersError> {
        self.check_audience(campaign, audience)?;
        let mut rows = Vec::new();
        for (values, start) in audience.iter().zip(&self.starts) {
            let selected = match values.nulls() {
                None => values.values().clone(),
                Some(nulls) => values.values() & nulls.inner(),
            };
            rows.extend(selected.set_indices().map(|row| u32::try_from(start + row).expect("`new` has counted the rows")));
        }
        Ok(rows)
    }

    fn locate(&self, row: usize) -> (&Part<'a>, usize) {
        let at = locate(&self.starts, row);
        (&self.parts[at], row - self.starts[at])
    }
}

/// The batch that holds a row. Most runs have few batches, so this is a handful of comparisons.
fn locate(starts: &[usize], row: usize) -> usize {
    starts.partition_point(|start| *start <= row) - 1
}

impl<'a> Part<'a> {
    fn new(batch: &'a RecordBatch) -> Result<Self, MembersError> {
        let required = |name: &str| batch.column_by_name(name).ok_or_else(|| MembersError::Missing(name.to_owned()));
        let wrong = |column: &str, expected, array: &ArrayRef| MembersError::Type {
            column: column.to_owned(),
            expected,
            found: array.data_type().clone(),
        };
        let id = required("member_id")?;
        let member_id = id.as_fixed_size_binary_opt().filter(|ids| ids.value_length() == 16);
        let member_id = member_id.ok_or_else(|| wrong("member_id", "16 bytes", id))?;
        if member_id.null_count() > 0 {
            return Err(MembersError::Null("member_id".into()));
        }
        let phone = required("phone")?;
        let texts = |name: &str| -> Result<Option<&'a StringArray>, MembersError> {
            let Some(array) = batch.column_by_name(name) else { return Ok(None) };
            array.as_string_opt().map(Some).ok_or_else(|| wrong(name, "text", array))
        };
        let optional = |name: &str| batch.column_by_name(name);
        let consents = Purpose::ALL.map(|purpose| texts(&format!("{}_consent", purpose.name())));
        let [sms, call, message] = consents;
        Ok(Self {
            member_id,
            phone: phone.as_primitive_opt::<UInt64Type>().ok_or_else(|| wrong("phone", "unsigned 64 bits", phone))?,
            other_phones: texts(OTHER_PHONES)?,
            sources: optional(SOURCE_MASK)
                .map(|array| array.as_primitive_opt::<UInt64Type>().ok_or_else(|| wrong(SOURCE_MASK, "unsigned 64 bits", array)))
                .transpose()?,
            store: texts("store")?,
            staff: texts("staff")?,
            name: texts("name")?,
            total_spent: optional("total_spent")
                .map(|array| array.as_primitive_opt::<Decimal128Type>().ok_or_else(|| wrong("total_spent", "decimal", array)))
                .transpose()?,
            do_not_contact: optional("do_not_contact")
                .map(|array| array.as_boolean_opt().ok_or_else(|| wrong("do_not_contact", "boolean", array)))
                .transpose()?,
            consents: [sms?, call?, message?],
        })
    }
}

fn text(column: Option<&StringArray>, row: usize) -> Option<&str> {
    column.filter(|column| !column.is_null(row)).map(|column| column.value(row))
}

/// One column over all batches.
pub struct Column<'a> {
    arrays: Vec<&'a ArrayRef>,
    starts: &'a [usize],
}

impl<'a> Column<'a> {
    /// Whether the value is null.
    pub fn is_null(&self, row: usize) -> bool {
        let (array, row) = self.locate(row);
        array.is_null(row)
    }

    /// The array that holds the row, and the row's place in it.
    pub fn locate(&self, row: usize) -> (&'a ArrayRef, usize) {
        let at = locate(self.starts, row);
        (self.arrays[at], row - self.starts[at])
    }
}
