//! All members of a run with the columns that rules, gates and templates read, derived ones among them,
//! and what the rules say of them.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef, UInt64Type};
use reunion_generations::Generation;
use reunion_model::MemberId;
use reunion_model::schema::{self, MEMBER_ID, OTHER_PHONES, PHONE};
use reunion_rules::{Derivation, Evaluated, TagDelta, TagState, derive};

use crate::failure::{Doing, Failure};

use super::campaigns::rule_errors;
use super::contacts;
use super::people::{People, golden_plan};
use super::setup::Setup;

/// Columns of members that are not golden, and that every run needs.
const OWN: [&str; 5] = [MEMBER_ID, PHONE, OTHER_PHONES, "source_mask", "record_count"];
/// Golden columns that outreach reads whatever the config says.
const OUTREACH: [&str; 8] = ["store", "staff", "name", "total_spent", "do_not_contact", "sms_consent", "call_consent", "message_consent"];
/// Golden columns that derived ones are made of.
const DERIVED_FROM: [&str; 6] = ["store", "order_count", "total_spent", "first_order_at", "last_order_at", "created_at"];

/// The members and what the rules say of them.
pub struct Population {
    /// All members, derived columns among them.
    pub members: Vec<RecordBatch>,
    /// Tags and audiences.
    pub evaluated: Evaluated,
    /// What changes in the stored tags.
    pub tags: Arc<TagDelta>,
    /// How many have a phone and no confirmed link.
    pub phone_only: u64,
}

/// Gathers the members and evaluates the rules. `tags` are those of the head.
///
/// # Errors
/// Where files cannot be read, or a rule leaves the calendar at this clock.
pub fn population(setup: &Setup<'_>, people: &People, tags: TagState) -> Result<Population, Failure> {
    let members = members(setup, people)?;
    let state = tags.merged(people.merges.iter().copied());
    let bound = setup.rules.bind(setup.clock_us).map_err(|errors| rule_errors(&setup.app.config, errors))?;
    let mut evaluated = bound.evaluate(&members, &state, &[]).doing(|| "the rules cannot be evaluated".to_owned())?;
    let count = |batch: &RecordBatch| batch.column_by_name("phone_only").map_or(0, |column| column.as_boolean().true_count() as u64);
    let phone_only = members.iter().map(count).sum();
    let tags = Arc::new(std::mem::take(&mut evaluated.delta));
    Ok(Population { members, evaluated, tags, phone_only })
}

/// All members with their derived columns.
fn members(setup: &Setup<'_>, people: &People) -> Result<Vec<RecordBatch>, Failure> {
    let wanted = wanted(setup);
    let schema = member_schema(setup)?;
    let mut members = unchanged(setup, people, &schema)?;
    for batch in &people.dirty {
        members.push(align(batch, &schema)?);
    }
    let links = setup.facts.links.iter().map(|link| link.contact).collect();
    let linked = contacts::linked(&members, &links, setup.state.keys.lookup());
    let how = Derivation { clock_us: setup.clock_us, timezone: setup.app.config.timezone.rules(), linked: &linked, wanted: Some(&wanted) };
    derive(&members, &how).doing(|| "derived columns cannot be computed".to_owned())
}

/// The tags as a generation has them.
///
/// # Errors
/// Where files cannot be read.
pub fn stored_tags(generation: &Generation) -> Result<TagState, Failure> {
    let mut state = TagState::default();
    let doing = || format!("the tags of generation {} cannot be read", generation.reference().number);
    let schema = reunion_rules::tag_schema();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    for part in generation.live("tags", Some(&columns)).doing(doing)? {
        let batch = part.doing(doing)?.batch;
        if batch.num_rows() > 0 {
            state.add(&batch).doing(doing)?;
        }
    }
    Ok(state)
}

/// The columns that this run needs of members: golden and derived ones by name.
fn wanted(setup: &Setup<'_>) -> BTreeSet<String> {
    let rules = setup.rules.columns_used().iter().cloned();
    let templates = setup.campaigns.values().flat_map(|campaign| [&campaign.message, &campaign.reason]);
    let templates = templates.flatten().flat_map(|template| template.columns().iter().cloned());
    let fixed = OUTREACH.iter().chain(&DERIVED_FROM).map(|name| (*name).to_owned());
    rules.chain(templates).chain(fixed).chain(["phone_only".to_owned()]).collect()
}

/// The schema of the members' batches before derived columns: null where no source brings a column. Of a member that is
/// made no other column is asked for once it is written.
///
/// # Errors
/// Where sources do not agree on a type.
pub fn member_schema(setup: &Setup<'_>) -> Result<SchemaRef, Failure> {
    let wanted = wanted(setup);
    let table = golden_plan(setup)?.schema();
    let own = OWN.iter().map(|name| table.field_with_name(name).cloned().expect("the table of members has its own columns"));
    let golden = table.fields().iter().filter(|field| wanted.contains(field.name()) && !OWN.contains(&field.name().as_str()));
    let mut fields: Vec<_> = own.chain(golden.map(|field| field.as_ref().clone())).collect();
    for column in schema::COLUMNS.iter().filter(|column| wanted.contains(column.name)) {
        if !fields.iter().any(|field| field.name() == column.name) {
            fields.push(arrow::datatypes::Field::new(column.name, column.kind.arrow(), true));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The members of the head that this run did not touch.
fn unchanged(setup: &Setup<'_>, people: &People, schema: &SchemaRef) -> Result<Vec<RecordBatch>, Failure> {
    let Some(base) = setup.base() else { return Ok(Vec::new()) };
    let doing = || "the members of the head cannot be read".to_owned();
    let mut gone: hashbrown::HashSet<MemberId> = people.removed.iter().copied().collect();
    gone.extend(people.dirty.iter().flat_map(ids));
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut members = Vec::new();
    for part in base.live("members", Some(&columns)).doing(doing)? {
        let batch = part.doing(doing)?.batch;
        let mut of_batch = ids(&batch);
        let stays = BooleanBuffer::collect_bool(batch.num_rows(), |_| of_batch.next().is_some_and(|id| !gone.contains(&id)));
        drop(of_batch);
        let stays = BooleanArray::new(stays, None);
        let batch = if stays.true_count() == batch.num_rows() { batch } else { filter_record_batch(&batch, &stays).doing(doing)? };
        if batch.num_rows() > 0 {
            members.push(align(&batch, schema)?);
        }
    }
    Ok(members)
}

fn ids(batch: &RecordBatch) -> impl Iterator<Item = MemberId> {
    let ids = batch.column_by_name(MEMBER_ID).expect("members have ids").as_fixed_size_binary();
    (0..batch.num_rows()).map(|row| MemberId::from_slice(ids.value(row)).expect("16 bytes"))
}

/// The batch with these columns, null where it has none of the name.
fn align(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Failure> {
    let column = |field: &Arc<arrow::datatypes::Field>| {
        batch.column_by_name(field.name()).cloned().unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()))
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).doing(|| "members cannot be put into columns".to_owned())
}

/// Those of some members that have records of one of the sources in `mask`, as the head has them.
///
/// # Errors
/// Where the head cannot be read.
pub fn members_of_sources(head: &Generation, members: &HashSet<MemberId>, mask: u64) -> Result<HashSet<MemberId>, Failure> {
    let doing = || "the members of the head cannot be read".to_owned();
    let mut found = HashSet::new();
    for part in head.live("members", Some(&[MEMBER_ID, "source_mask"])).doing(doing)? {
        let batch = part.doing(doing)?.batch;
        let masks = batch.column_by_name("source_mask").expect("members have sources").as_primitive::<UInt64Type>();
        let stale =
            ids(&batch).enumerate().filter(|(row, id)| masks.is_valid(*row) && masks.value(*row) & mask != 0 && members.contains(id));
        found.extend(stale.map(|(_, id)| id));
    }
    Ok(found)
}
