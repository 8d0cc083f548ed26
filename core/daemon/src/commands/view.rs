//! The tables that `query` and `explain` read: the head as Arrow batches, and the ledger's tasks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryBuilder, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::{concat_batches, filter_record_batch, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use reunion_generations::Generation;
use reunion_ledger::{Head, Task, TaskFilter};
use reunion_model::phone::mask;
use reunion_model::record::{CONTENT_HASH, RECORD_ID, RECORD_KEY, ROW_HASH};
use reunion_model::schema::{MEMBER_ID, OTHER_PHONES, timestamp_type};
use reunion_model::{MemberId, Reason, RecordKey};
use reunion_people::PhoneRules;
use reunion_rules::{Derivation, LinkedMembers, Table, TagState, derive};

use crate::app::App;
use crate::failure::{Doing, Failure};
use crate::run::{StoredSchema, linked, stored_tags};
use crate::state::State;

/// Members that were joined to others again and again are followed this far.
const FORWARDS_MAX: usize = 1_000;

/// The head, and what the ledger knows beside it.
pub struct View<'a> {
    app: &'a App,
    /// The state.
    pub state: &'a State,
    /// The head.
    pub head: Head,
    generation: Generation,
}

impl<'a> View<'a> {
    /// Opens the head.
    ///
    /// # Errors
    /// Where there is none, or it is damaged.
    pub fn open(app: &'a App, state: &'a State) -> Result<Self, Failure> {
        let Some((head, generation)) = state.head()? else {
            return Err(Failure::usage("there is nothing to look at yet").help("`reunion once` makes the first generation"));
        };
        Ok(Self { app, state, head, generation })
    }

    /// A table of the head as one batch; `None` where it has no rows.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn table(&self, name: &str) -> Result<Option<RecordBatch>, Failure> {
        let batches = self.batches(name, None)?;
        let Some(first) = batches.first() else { return Ok(None) };
        concat_batches(&first.schema(), &batches).map(Some).doing(|| format!("the table {name} cannot be read"))
    }

    /// The rows of a table that are wanted, as one batch; `None` where there are none. Read part by part, so
    /// that no more than the rows that are wanted stay in memory.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn rows_where(&self, table: &str, wanted: impl Fn(&RecordBatch) -> BooleanArray) -> Result<Option<RecordBatch>, Failure> {
        let mut found = Vec::new();
        self.each(table, None, &wanted, |rows| found.push(rows))?;
        let Some(first) = found.first() else { return Ok(None) };
        concat_batches(&first.schema(), &found).map(Some).doing(|| format!("the table {table} cannot be read"))
    }

    /// These columns of a table, or all, in parts.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn batches(&self, table: &str, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>, Failure> {
        let mut batches = Vec::new();
        self.each_part(table, columns, |batch| {
            batches.push(batch.clone());
            Ok(())
        })?;
        Ok(batches)
    }

    /// Hands over these columns of a table, or all, part by part, so that no more than a part stays in memory.
    ///
    /// # Errors
    /// Where files cannot be read, or the taker's.
    pub fn each_part(
        &self,
        table: &str,
        columns: Option<&[&str]>,
        mut take: impl FnMut(&RecordBatch) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let doing = || format!("the table {table} cannot be read");
        self.generation.live(table, columns).doing(doing)?.try_for_each(|part| take(&part.doing(doing)?.batch))
    }

    /// Hands over the rows of a table that are wanted, part by part.
    fn each(
        &self,
        table: &str,
        columns: Option<&[&str]>,
        wanted: &dyn Fn(&RecordBatch) -> BooleanArray,
        mut take: impl FnMut(RecordBatch),
    ) -> Result<(), Failure> {
        self.each_part(table, columns, |part| {
            let rows = filter_record_batch(part, &wanted(part)).doing(|| format!("the table {table} cannot be read"))?;
            if rows.num_rows() > 0 {
                take(rows);
            }
            Ok(())
        })
    }

    /// Those rows of [`View::records`] that are wanted.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn records_where(&self, wanted: impl Fn(&RecordBatch) -> BooleanArray) -> Result<RecordBatch, Failure> {
        let parts = self.sources()?.into_iter().map(|(origin, name)| {
            let rows = self.rows_where(&format!("records/{origin}"), &wanted)?;
            rows.map(|rows| of_source(&name, &rows)).transpose()
        });
        let parts: Vec<RecordBatch> = parts.filter_map(Result::transpose).collect::<Result<_, Failure>>()?;
        let all = union(&parts)?;
        let keys = record_keys(&all);
        let assignments = self.rows_where("assignments", |batch| is_in(batch, RECORD_KEY, &keys))?;
        with_assignments(&all, assignments.as_ref())
    }

    /// The records of some members.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn records_of(&self, members: &HashSet<[u8; 16]>) -> Result<RecordBatch, Failure> {
        let assignments = self.rows_where("assignments", |batch| is_in(batch, MEMBER_ID, members))?;
        let keys = assignments.map(|batch| record_keys(&batch)).unwrap_or_default();
        self.records_where(|batch| is_in(batch, RECORD_KEY, &keys))
    }

    /// What became of a member that is no more: nothing of one that is there, or never was.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn forwarded(&self, member: MemberId) -> Result<Forwarded, Failure> {
        let mut forwarded = Forwarded::default();
        let Some(batch) = self.table("forwards")? else { return Ok(forwarded) };
        let ids = batch.column(0).as_fixed_size_binary();
        let into = batch.column(1).as_fixed_size_binary();
        let next: HashMap<&[u8], Option<&[u8]>> =
            (0..batch.num_rows()).map(|row| (ids.value(row), into.is_valid(row).then(|| into.value(row)))).collect();
        let mut at = member;
        for _ in 0..FORWARDS_MAX {
            match next.get(at.0.as_slice()) {
                None => break,
                Some(None) => {
                    forwarded.is_gone = true;
                    break;
                }
                Some(Some(into)) => at = MemberId::from_slice(into).unwrap_or(at),
            }
        }
        forwarded.into = (at != member).then_some(at);
        Ok(forwarded)
    }

    /// The members that records are of now, for those of these keys that are of one.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn members_of(&self, keys: &HashSet<[u8; 16]>) -> Result<HashMap<RecordKey, MemberId>, Failure> {
        self.assigned(|rows| is_in(rows, RECORD_KEY, keys))
    }

    /// The records of some members, each with its member.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn keys_of(&self, members: &HashSet<[u8; 16]>) -> Result<HashMap<RecordKey, MemberId>, Failure> {
        self.assigned(|rows| is_in(rows, MEMBER_ID, members))
    }

    fn assigned(&self, wanted: impl Fn(&RecordBatch) -> BooleanArray) -> Result<HashMap<RecordKey, MemberId>, Failure> {
        let mut found = HashMap::new();
        self.each("assignments", Some(&[RECORD_KEY, MEMBER_ID]), &wanted, |rows| {
            let [keys, members] = [0, 1].map(|column| rows.column(column).as_fixed_size_binary());
            for row in (0..rows.num_rows()).filter(|row| members.is_valid(*row)) {
                found.extend(RecordKey::from_slice(keys.value(row)).zip(MemberId::from_slice(members.value(row))));
            }
        })?;
        Ok(found)
    }

    /// The sources and ids of records, by the names that the config has for the sources. One that is gone is missing.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn names_of(&self, keys: &HashSet<[u8; 16]>) -> Result<HashMap<RecordKey, (String, String)>, Failure> {
        let mut found = HashMap::new();
        if keys.is_empty() {
            return Ok(found);
        }
        for (origin, name) in self.sources()? {
            let wanted = |rows: &RecordBatch| is_in(rows, RECORD_KEY, keys);
            self.each(&format!("records/{origin}"), Some(&[RECORD_KEY, RECORD_ID]), &wanted, |rows| {
                let (keys, ids) = (rows.column(0).as_fixed_size_binary(), rows.column(1).as_string::<i32>());
                for row in 0..rows.num_rows() {
                    found.extend(RecordKey::from_slice(keys.value(row)).map(|key| (key, (name.clone(), ids.value(row).to_owned()))));
                }
            })?;
        }
        Ok(found)
    }

    /// The names of the sources that have records: as the state knows them, and as the config does.
    ///
    /// # Errors
    /// Where the ledger does not answer.
    pub fn sources(&self) -> Result<Vec<(String, String)>, Failure> {
        let components = self.state.ask(self.state.ledger.components())?;
        let name = |origin: &str| {
            let found =
                components.iter().find(|component| component.kind == reunion_ledger::ComponentKind::Source && component.origin == origin);
            found.map_or_else(|| origin.to_owned(), |component| component.name.clone())
        };
        Ok(self.generation.sources().map(|origin| (origin.to_owned(), name(origin))).collect())
    }

    /// The columns that the generation was made with.
    ///
    /// # Errors
    /// Where the manifest is not understood.
    pub fn schema(&self) -> Result<StoredSchema, Failure> {
        StoredSchema::of(Some(&self.generation))
    }

    /// `members`: golden and derived columns, then each tag and since when.
    ///
    /// # Errors
    /// Where files cannot be read, or the config's rules do not fit the members.
    pub fn members(&self) -> Result<RecordBatch, Failure> {
        let doing = || "the members cannot be read".to_owned();
        let Some(members) = self.table("members")? else { return empty_members() };
        let linked = self.linked(&members)?;
        let how = Derivation { clock_us: self.head.clock_us, timezone: self.app.config.timezone.rules(), linked: &linked, wanted: None };
        let derived = derive(std::slice::from_ref(&members), &how).doing(doing)?;
        let derived = derived.into_iter().next().ok_or_else(|| Failure::other("the members cannot be derived"))?;
        let hidden = ["founding", "founded_at", "epoch", CONTENT_HASH, "source_mask", OTHER_PHONES];
        let mut fields: Vec<Arc<Field>> = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (field, column) in derived.schema().fields().iter().zip(derived.columns()) {
            if !hidden.contains(&field.name().as_str()) {
                fields.push(Arc::clone(field));
                columns.push(Arc::clone(column));
            }
        }
        let tags = self.tags()?;
        let ids = member_ids(&derived);
        for tag in self.app.config.tags.keys() {
            let since: TimestampMicrosecondArray = ids.iter().map(|id| tags.since_us(tag, *id)).collect();
            let has: BooleanArray = since.iter().map(|since| Some(since.is_some())).collect();
            fields.push(Arc::new(Field::new(tag, DataType::Boolean, false)));
            columns.push(Arc::new(has));
            fields.push(Arc::new(Field::new(format!("{tag}_since"), timestamp_type(), true)));
            columns.push(Arc::new(since.with_timezone("UTC")));
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).doing(doing)
    }

    /// The tags of the head.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn tags(&self) -> Result<TagState, Failure> {
        stored_tags(&self.generation)
    }

    fn linked(&self, members: &RecordBatch) -> Result<LinkedMembers, Failure> {
        let links = self.state.ask(self.state.ledger.facts())?.links;
        Ok(linked(std::slice::from_ref(members), &links.iter().map(|link| link.contact).collect(), self.state.keys.lookup()))
    }

    /// `records`: every row of every source, with its member or the reason why it has none.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn records(&self) -> Result<RecordBatch, Failure> {
        let mut parts: Vec<RecordBatch> = Vec::new();
        for (origin, name) in self.sources()? {
            if let Some(batch) = self.table(&format!("records/{origin}"))? {
                parts.push(of_source(&name, &batch)?);
            }
        }
        with_assignments(&union(&parts)?, self.table("assignments")?.as_ref())
    }

    /// `quarantine`: the records that have a reason and no member.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn quarantine(&self, records: &RecordBatch) -> Result<RecordBatch, Failure> {
        let reasons = records.column_by_name("reason").expect("records have reasons");
        let set_aside = arrow::compute::is_not_null(reasons).doing(|| "the quarantine cannot be read".to_owned())?;
        filter_record_batch(records, &set_aside).doing(|| "the quarantine cannot be read".to_owned())
    }

    /// `tasks`, and those of them that count as touches.
    ///
    /// # Errors
    /// Where the ledger does not answer.
    pub fn tasks(&self) -> Result<(RecordBatch, RecordBatch), Failure> {
        let tasks = self.state.ask(self.state.ledger.tasks(&TaskFilter::default()))?;
        let touches: Vec<Task> = tasks.iter().filter(|task| task.state.is_touch()).cloned().collect();
        Ok((task_batch(&tasks)?, task_batch(&touches)?))
    }

    /// All tables, for a query.
    ///
    /// # Errors
    /// Where files cannot be read, or the ledger does not answer.
    pub fn tables(&self) -> Result<Vec<Table>, Failure> {
        let records = self.records()?;
        let (tasks, touches) = self.tasks()?;
        let quarantine = self.quarantine(&records)?;
        let tables =
            [("members", self.members()?), ("records", records), ("quarantine", quarantine), ("tasks", tasks), ("touches", touches)];
        Ok(tables.into_iter().map(|(name, batch)| Table { name: name.to_owned(), schema: batch.schema(), batches: vec![batch] }).collect())
    }
}

/// What became of a member that is no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The member that it was joined to in the end.
    pub into: Option<MemberId>,
    /// All of its records left.
    pub is_gone: bool,
}

/// A row's id as it may be shown: some sources take the phone for one.
pub fn shown_id(rules: &PhoneRules, id: &str) -> String {
    let is_no_phone = |reason| !matches!(reason, Reason::PhonePlaceholder | Reason::PhoneRepeated);
    if rules.parse(id).is_err_and(is_no_phone) { id.to_owned() } else { mask(id) }
}

/// The rows of a source with its name before them.
fn of_source(name: &str, rows: &RecordBatch) -> Result<RecordBatch, Failure> {
    let mut fields = vec![Arc::new(Field::new("source", DataType::Utf8, false))];
    fields.extend(rows.schema().fields().iter().cloned());
    let source: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, rows.num_rows())));
    let columns = std::iter::once(source).chain(rows.columns().iter().cloned()).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).doing(|| "the records cannot be read".to_owned())
}

fn record_keys(rows: &RecordBatch) -> HashSet<[u8; 16]> {
    let keys = rows.column_by_name(RECORD_KEY).expect("records have keys").as_fixed_size_binary();
    keys.iter().flatten().filter_map(|key| key.try_into().ok()).collect()
}

/// For each row whether its id in this column is one of these.
pub fn is_in(rows: &RecordBatch, column: &str, ids: &HashSet<[u8; 16]>) -> BooleanArray {
    let column = rows.column_by_name(column).expect("the table has this column").as_fixed_size_binary();
    column.iter().map(|id| Some(id.and_then(|id| id.try_into().ok()).is_some_and(|id: [u8; 16]| ids.contains(&id)))).collect()
}

/// Puts beside each record its member, and the reason that decides in the end.
fn with_assignments(records: &RecordBatch, assignments: Option<&RecordBatch>) -> Result<RecordBatch, Failure> {
    let doing = || "the assignments of records cannot be read".to_owned();
    let mut rows = HashMap::new();
    if let Some(batch) = assignments {
        let keys = batch.column_by_name(RECORD_KEY).expect("assignments have keys").as_fixed_size_binary();
        rows.extend((0..batch.num_rows()).map(|row| (keys.value(row), row as u64)));
    }
    let keys = records.column_by_name(RECORD_KEY).expect("records have keys").as_fixed_size_binary();
    let at: arrow::array::UInt64Array = keys.iter().map(|key| key.and_then(|key| rows.get(key).copied())).collect();
    let from = |name: &str, kind: &DataType| match assignments {
        Some(batch) => take(batch.column_by_name(name).expect("assignments have this column"), &at, None).doing(doing),
        None => Ok(new_null_array(kind, records.num_rows())),
    };
    let member = from(MEMBER_ID, &DataType::FixedSizeBinary(16))?;
    let reason = from("reason", &DataType::Utf8)?;
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in records.schema().fields().iter().zip(records.columns()) {
        match field.name().as_str() {
            RECORD_KEY | CONTENT_HASH | ROW_HASH => {}
            "record_id" => {
                fields.push(Arc::clone(field));
                columns.push(Arc::clone(column));
                fields.push(Arc::new(Field::new(MEMBER_ID, DataType::FixedSizeBinary(16), true)));
                columns.push(Arc::clone(&member));
            }
            "reason" => {
                fields.push(Arc::clone(field));
                columns.push(Arc::clone(&reason));
            }
            _ => {
                fields.push(Arc::clone(field));
                columns.push(Arc::clone(column));
            }
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).doing(doing)
}

/// The ids of a batch of members.
pub fn member_ids(batch: &RecordBatch) -> Vec<MemberId> {
    let ids = batch.column_by_name(MEMBER_ID).expect("members have ids").as_fixed_size_binary();
    (0..batch.num_rows()).filter_map(|row| MemberId::from_slice(ids.value(row))).collect()
}

fn empty_members() -> Result<RecordBatch, Failure> {
    let schema = reunion_rules::rule_schema([]);
    Ok(RecordBatch::new_empty(Arc::new(schema)))
}

/// Batches of different sources one under the other, null where a source lacks a column.
fn union(parts: &[RecordBatch]) -> Result<RecordBatch, Failure> {
    let doing = || "the records of sources cannot be put together".to_owned();
    let mut fields: Vec<Field> = vec![Field::new("source", DataType::Utf8, false)];
    fields.extend(reunion_model::record::own_fields());
    for field in parts.iter().flat_map(|part| part.schema().fields().iter().cloned().collect::<Vec<_>>()) {
        if fields.iter().all(|known| known.name() != field.name()) {
            fields.push(field.as_ref().clone().with_nullable(true));
        }
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let aligned = parts.iter().map(|part| {
        let column = |field: &Arc<Field>| {
            part.column_by_name(field.name()).cloned().unwrap_or_else(|| new_null_array(field.data_type(), part.num_rows()))
        };
        RecordBatch::try_new(Arc::clone(&schema), schema.fields().iter().map(column).collect())
    });
    let aligned = aligned.collect::<Result<Vec<_>, _>>().doing(doing)?;
    concat_batches(&schema, &aligned).doing(doing)
}

fn task_batch(tasks: &[Task]) -> Result<RecordBatch, Failure> {
    let doing = || "tasks cannot be put into columns".to_owned();
    let text = |name: &str, of: &dyn Fn(&Task) -> Option<String>| -> (Field, ArrayRef) {
        (Field::new(name, DataType::Utf8, true), Arc::new(tasks.iter().map(of).collect::<StringArray>()))
    };
    let id = |name: &str, of: &dyn Fn(&Task) -> [u8; 16]| -> Result<(Field, ArrayRef), Failure> {
        let mut ids = FixedSizeBinaryBuilder::with_capacity(tasks.len(), 16);
        for task in tasks {
            ids.append_value(of(task)).doing(doing)?;
        }
        Ok((Field::new(name, DataType::FixedSizeBinary(16), false), Arc::new(ids.finish())))
    };
    let moment = |name: &str, of: &dyn Fn(&Task) -> Option<i64>| -> (Field, ArrayRef) {
        let moments: TimestampMicrosecondArray = tasks.iter().map(of).collect();
        (Field::new(name, timestamp_type(), true), Arc::new(moments.with_timezone("UTC")))
    };
    let number = |name: &str, of: &dyn Fn(&Task) -> i64| -> (Field, ArrayRef) {
        (Field::new(name, DataType::Int64, false), Arc::new(tasks.iter().map(of).collect::<Int64Array>()))
    };
    let columns = vec![
        id("task_id", &|task| task.task_id.0)?,
        text("campaign", &|task| Some(task.campaign.clone())),
        id(MEMBER_ID, &|task| task.member.0)?,
        id("contact", &|task| task.contact.0)?,
        number("touch", &|task| i64::from(task.touch)),
        text("channel", &|task| Some(task.channel.clone())),
        text("store", &|task| task.store.clone()),
        text("staff", &|task| task.staff.clone()),
        text("state", &|task| Some(task.state.name().to_owned())),
        number("attempts", &|task| i64::from(task.attempts)),
        moment("planned_at", &|task| Some(task.planned_us)),
        moment("sent_at", &|task| task.sent_us),
        moment("due", &|task| task.due_us),
        moment("changed_at", &|task| Some(task.changed_us)),
        text("code", &|task| task.code.clone()),
        text("message", &|task| task.message.clone()),
        text("outcome", &|task| task.outcome.clone()),
        id("run_id", &|task| task.run_id.0)?,
        number("generation", &|task| task.generation as i64),
    ];
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).doing(doing)
}
