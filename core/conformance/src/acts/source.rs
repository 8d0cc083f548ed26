//! Reads: whole, twice, cut off, and gone on with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use reunion_host::{CallOptions, ItemStream, SourceConnector};
use reunion_model::plugin::{ErrorClass, Item, PluginError, ReadMode, ReadRequest};
use serde_json::Value;

use super::Played;
use crate::act::{PartRead, RestRead, WholeRead};
use crate::phones::Heard;
use crate::rows::Rows;
use crate::rules;
use crate::stage::{Stage, Stop, failed, skipped};

/// Numbers that are phones where a source has them as numbers.
const MOBILES: std::ops::Range<i64> = 13_000_000_000..20_000_000_000;
/// Rows beyond which a read should have a resume state.
const MANY_ROWS: u64 = 100_000;

/// A request to read everything, or what is new.
pub fn request(mode: ReadMode, resume: bool) -> ReadRequest {
    ReadRequest { resume, ..ReadRequest::new(mode) }
}

/// What a read gave so far.
#[derive(Default)]
struct Sight {
    rows: Rows,
    rejected: u64,
    states: u64,
    /// States before the last row.
    states_within: u64,
    last_state: Option<Value>,
    resumed: bool,
    unchanged: bool,
    columns: BTreeMap<String, DataType>,
}

impl Sight {
    fn see(&mut self, item: &Item, heard: &Heard) {
        match item {
            Item::Begin { resumed } => self.resumed = *resumed,
            Item::Batch(batch) => {
                know_phones(batch, heard);
                self.rows.add(batch);
                self.states_within = self.states;
                let fields = batch.schema();
                self.columns.extend(fields.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())));
            }
            Item::Rejected(batch) => {
                hear_rejected(batch, heard);
                self.rows.add(batch);
                self.states_within = self.states;
                self.rejected += batch.num_rows() as u64;
            }
            Item::State(state) => {
                self.states += 1;
                self.last_state = Some(state.clone());
            }
            Item::Unchanged { .. } => self.unchanged = true,
            Item::End { .. } => {}
        }
    }
}

/// Notes the phone numbers of a batch.
fn know_phones(batch: &RecordBatch, heard: &Heard) {
    let know = |text: &str| {
        if (11..=20).contains(&text.len()) {
            heard.know(text);
        }
    };
    for column in batch.columns() {
        if let Some(texts) = column.as_string_opt::<i32>() {
            texts.iter().flatten().for_each(know);
        } else if let Some(texts) = column.as_string_opt::<i64>() {
            texts.iter().flatten().for_each(know);
        } else if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
            numbers.iter().flatten().filter(|number| MOBILES.contains(number)).for_each(|number| know(&number.to_string()));
        }
    }
}

fn hear_rejected(batch: &RecordBatch, heard: &Heard) {
    for (column, place) in [(0, "the location of a rejected row"), (2, "the detail of a rejected row")] {
        let texts = batch.columns().get(column).and_then(|column| column.as_string_opt::<i32>());
        texts.into_iter().flatten().flatten().for_each(|text| heard.text(place, text));
    }
}

/// Reads to the end.
fn read_on(stage: &Stage, stream: &mut dyn ItemStream, sight: &mut Sight) -> Result<(), PluginError> {
    while let Some(item) = stream.next()? {
        sight.see(&item, &stage.heard);
    }
    Ok(())
}

fn read_whole(
    stage: &Stage,
    source: &dyn SourceConnector,
    request: &ReadRequest,
    state: Option<&Value>,
    options: &CallOptions,
) -> Result<Sight, PluginError> {
    let mut sight = Sight::default();
    let mut stream = source.read(options, request, state)?;
    read_on(stage, stream.as_mut(), &mut sight)?;
    Ok(sight)
}

/// Reads everything twice, and what is new where it can. Data: a [`WholeRead`].
pub fn read(stage: &Stage, mode: ReadMode) -> Played {
    let source = stage.source()?;
    let manifest = stage.plugin()?.manifest().clone();
    stage.calling("schema ran");
    let schema = source.schema(&stage.options()).map_err(|error| stage.refused("schema", &error, rules::SCHEMA))?;
    stage.calling("a read ran");
    let from = Instant::now();
    let first = read_whole(stage, source.as_ref(), &request(mode, false), None, &stage.options());
    let first = first.map_err(|error| stage.refused("read", &error, rules::READ))?;
    let millis = u64::try_from(from.elapsed().as_millis()).unwrap_or(u64::MAX);
    agrees(&schema, &first)?;
    declared(&schema, &manifest.capabilities.columns)?;
    if first.resumed {
        return Err(failed("a read without a state says that it goes on from one", rules::READ));
    }
    if mode == ReadMode::Snapshot {
        stage.calling("a second read ran");
        let second = read_whole(stage, source.as_ref(), &request(mode, false), first.last_state.as_ref(), &stage.options());
        let second = second.map_err(|error| stage.refused("a second read", &error, rules::READ))?;
        if let Some(difference) = second.rows.difference(first.rows) {
            let seen = format!("a second snapshot of the same source gave other rows than the first: {difference}");
            return Err(failed(seen, rules::SNAPSHOT));
        }
        if let Some(state) = &second.last_state {
            read_again(stage, source.as_ref(), &second, state)?;
        }
    }
    if manifest.capabilities.modes.iter().any(|mode| mode == "incremental") {
        read_new(stage, source.as_ref(), &first)?;
    }
    let mut note = format!("{} rows", first.rows.count - first.rejected);
    if first.rejected > 0 {
        note.push_str(&format!(", {} rejected", first.rejected));
    }
    note.push_str(&format!(", {} states", first.states));
    if first.rows.count > MANY_ROWS && first.states_within == 0 {
        note.push_str("; so many rows without a resume state among them: a crash costs them all");
    }
    let whole = WholeRead { rows: first.rows, states: first.states_within, millis };
    stage.doing("destroy ran");
    drop(source);
    Ok((note, serde_json::to_value(whole).unwrap_or_default()))
}

/// A read that may find that nothing has changed.
fn read_again(stage: &Stage, source: &dyn SourceConnector, before: &Sight, state: &Value) -> Result<(), Stop> {
    stage.calling("a read that may find nothing changed ran");
    let request = ReadRequest { may_be_unchanged: true, ..request(ReadMode::Snapshot, false) };
    let again = read_whole(stage, source, &request, Some(state), &stage.options());
    let again = again.map_err(|error| stage.refused("a read that may find nothing changed", &error, rules::READ))?;
    match again.rows.difference(before.rows) {
        Some(difference) if !again.unchanged => {
            let seen = format!("a read that may find nothing changed gave other rows than the one before: {difference}");
            Err(failed(seen, rules::SNAPSHOT))
        }
        _ => Ok(()),
    }
}

/// An incremental read, and one from the state that it ended with.
fn read_new(stage: &Stage, source: &dyn SourceConnector, whole: &Sight) -> Result<(), Stop> {
    stage.calling("an incremental read ran");
    let new = request(ReadMode::Incremental, false);
    let first = match read_whole(stage, source, &new, None, &stage.options()) {
        Ok(first) => first,
        // What a plugin can do in general need not be what it can do under this config.
        Err(error) if error.class == ErrorClass::InvalidConfig => {
            stage.heard.error(&error);
            return Ok(());
        }
        Err(error) => return Err(stage.refused("an incremental read", &error, rules::READ)),
    };
    stage.calling("an incremental read from the last state ran");
    let next = read_whole(stage, source, &new, first.last_state.as_ref(), &stage.options());
    let next = next.map_err(|error| stage.refused("an incremental read from the last state", &error, rules::READ))?;
    let most = first.rows.count.max(whole.rows.count);
    if next.rows.count > most {
        let seen = format!("an incremental read from the last state gave {} rows, more than the {most} that there are", next.rows.count);
        return Err(failed(seen, rules::READ));
    }
    Ok(())
}

/// The columns of the batches are those that the schema has.
fn agrees(schema: &SchemaRef, read: &Sight) -> Result<(), Stop> {
    for (name, found) in &read.columns {
        match schema.field_with_name(name) {
            Ok(field) if field.data_type() == found => {}
            Ok(field) => {
                let seen = format!("the column {name:?} is {} in the schema, and {found} in a batch", field.data_type());
                return Err(failed(seen, rules::SCHEMA));
            }
            Err(_) => return Err(failed(format!("a batch has the column {name:?}, which the schema does not have"), rules::SCHEMA)),
        }
    }
    let missing = schema.fields().iter().find(|field| !read.columns.is_empty() && !read.columns.contains_key(field.name()));
    match missing {
        Some(field) => Err(failed(format!("the schema has the column {:?}, which no batch has", field.name()), rules::SCHEMA)),
        None => Ok(()),
    }
}

/// The columns that the manifest names are those of the schema.
fn declared(schema: &SchemaRef, columns: &[String]) -> Result<(), Stop> {
    let found: BTreeSet<&String> = schema.fields().iter().map(|field| field.name()).collect();
    let named: BTreeSet<&String> = columns.iter().collect();
    match named.symmetric_difference(&found).next() {
        Some(column) if !columns.is_empty() => {
            Err(failed(format!("the manifest's columns and the schema's differ in {column:?}"), rules::MANIFEST))
        }
        _ => Ok(()),
    }
}

/// Reads up to a state, one item further, and stays there.
pub fn read_until(stage: &Stage, mode: ReadMode, state_number: u64) -> Played {
    let source = stage.source()?;
    stage.calling("a read ran");
    let refused = |error: PluginError| stage.refused("read", &error, rules::READ);
    let mut stream = source.read(&stage.options(), &request(mode, false), None).map_err(refused)?;
    let mut sight = Sight::default();
    while let Some(item) = stream.next().map_err(refused)? {
        sight.see(&item, &stage.heard);
        if let (Item::State(state), true) = (&item, sight.states == state_number) {
            let part = PartRead { rows: sight.rows, state: state.clone() };
            // Further than the state, so that what is killed is at work.
            drop(stream.next().map_err(refused)?);
            stage.stay(serde_json::to_value(part).unwrap_or_default());
        }
    }
    Err(skipped(format!("this time the read gave {} states before its end, and not {state_number}", sight.states)))
}

/// Goes on where a read was killed. Data: a [`RestRead`].
pub fn read_from(stage: &Stage, mode: ReadMode, state: &Value) -> Played {
    let source = stage.source()?;
    stage.calling("a read from the state of one that was killed ran");
    let rest = read_whole(stage, source.as_ref(), &request(mode, true), Some(state), &stage.options());
    let rest = rest.map_err(|error| stage.refused("a read from the state of one that was killed", &error, rules::STATE))?;
    let rest = RestRead { resumed: rest.resumed, rows: rest.rows };
    Ok((String::new(), serde_json::to_value(rest).unwrap_or_default()))
}

/// Reads up to so many items, and looks at none of them.
pub fn read_some(stage: &Stage, source: &dyn SourceConnector, mode: ReadMode, items: usize) -> Result<(), PluginError> {
    let mut stream = source.read(&stage.options(), &request(mode, false), None)?;
    for _ in 0..items {
        if stream.next()?.is_none() {
            break;
        }
    }
    Ok(())
}
