//! The sources of a run: what columns they have, and their pulls, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use jiff::tz::TimeZone;
use reunion_generations::{Generation, SegmentFile};
use reunion_host::{CallOptions, SourceConnector};
use reunion_keys::Lookup;
use reunion_ledger::{ComponentKind, ComponentState, Pull};
use reunion_model::RunId;
use reunion_model::plugin::ReadMode;
use reunion_model::record::{PHONE, RECORD_ID, UNFIT};
use reunion_model::schema::ColumnType;
use reunion_model::threads::one_by_one;
use reunion_people::{GoldenColumn, Known, Mapping, Normaliser, RecordIdRule, SourcePlan, Unit};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::commands::phone_rules;
use crate::components::{self, Trouble};
use crate::config::{self, Config, Diagnostics, MemberColumn, RecordId, SourceColumns, Sweep};
use crate::failure::{Doing, Failure};
use crate::state::{Hold, State, now_us};

use super::people;
use super::pull::{KnownRows, PullPlan, Pulled, pull};
use super::setup::Setup;

/// The columns of all sources as a generation was made with them: kept in its manifest, so that a type
/// is fixed at the first commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSchema {
    /// For each source, the types of its columns by our names.
    pub sources: BTreeMap<String, BTreeMap<String, ColumnType>>,
    /// For each source, the types of columns that it had once: its older records may have them still, so they are
    /// fixed too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub past: BTreeMap<String, BTreeMap<String, ColumnType>>,
    /// For each source, its own names of its columns, by our names.
    #[serde(default)]
    pub names: BTreeMap<String, BTreeMap<String, String>>,
    /// The sources in the order of the members' source bits.
    pub order: Vec<String>,
    /// What decides who is who: where it differs, that is decided anew for everybody.
    #[serde(default)]
    pub identity: String,
    /// What members' columns are made by: where it differs, all members are made anew. Sources stand in it by the
    /// names that the state knows them by.
    #[serde(default)]
    pub columns: Vec<GoldenColumn>,
    /// For each source whose last read was a whole one: by what its rows became records, in hex. Read by the same, rows
    /// that have not changed at the source need not be read again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub read_by: BTreeMap<String, String>,
    /// Sources of which the generation has no row: nothing of theirs is fixed.
    #[serde(skip)]
    without_rows: BTreeSet<String>,
}

impl StoredSchema {
    /// That of a generation; empty without one.
    ///
    /// # Errors
    /// Where the manifest says something that this program does not understand.
    pub fn of(generation: Option<&Generation>) -> Result<Self, Failure> {
        let Some(generation) = generation else { return Ok(Self::default()) };
        let schema = serde_json::from_value::<Self>(generation.manifest().meta.schema.clone());
        let schema = schema.doing(|| format!("the columns of generation {} are not understood", generation.reference().number))?;
        let tables = &generation.manifest().tables;
        let has_rows = |origin: &String| tables.get(&format!("records/{origin}")).is_some_and(|table| !table.files.is_empty());
        let without_rows = schema.sources.keys().filter(|origin| !has_rows(origin)).cloned().collect();
        Ok(Self { without_rows, ..schema })
    }

    /// The types that a source's columns have or had.
    fn types_of(&self, origin: &str) -> BTreeMap<String, ColumnType> {
        if self.without_rows.contains(origin) {
            return BTreeMap::new();
        }
        let of = |columns: &BTreeMap<String, BTreeMap<String, ColumnType>>| columns.get(origin).cloned().unwrap_or_default();
        let mut types = of(&self.past);
        types.extend(of(&self.sources));
        types
    }

    /// What is kept of the columns of the next generation, which has these sources and is made by these rules.
    pub fn next(&self, schemas: &BTreeMap<String, SourceSchema>, identity: String, columns: Vec<GoldenColumn>) -> Self {
        let mut next = Self { order: schemas.keys().cloned().collect(), identity, columns, ..Self::default() };
        for (origin, schema) in schemas.iter().filter(|(_, schema)| !schema.retired && !schema.columns.is_empty()) {
            let mut past = self.types_of(origin);
            past.retain(|column, _| !schema.columns.contains_key(column));
            if !past.is_empty() {
                next.past.insert(origin.clone(), past);
            }
            next.sources.insert(origin.clone(), schema.columns.clone());
            next.names.insert(origin.clone(), schema.names.clone());
        }
        next.read_by = self.read_by.clone();
        next.read_by.retain(|origin, _| next.sources.contains_key(origin));
        next
    }

    /// Whether every row of a source was made a record by this.
    fn is_held(&self, origin: &str, normaliser: &Normaliser) -> bool {
        let is_by = |read_by: &String| *read_by == hex::encode(normaliser.terms());
        !self.without_rows.contains(origin) && self.read_by.get(origin).is_some_and(is_by)
    }

    /// Notes by what this run has made a source's rows records.
    pub fn note_read(&mut self, origin: &str, pulled: &Pulled, normaliser: &Normaliser) {
        if pulled.is_whole {
            self.read_by.insert(origin.to_owned(), hex::encode(normaliser.terms()));
        } else if !pulled.pulls.is_empty() {
            self.read_by.remove(origin);
        }
    }
}

/// A source and its columns.
pub struct SourceSchema {
    /// Its name in the config now. The state knows it by the name that it had first.
    pub name: String,
    /// The types of its columns by our names, the phone left out.
    pub columns: BTreeMap<String, ColumnType>,
    /// Its own names of them.
    pub names: BTreeMap<String, String>,
    /// Columns that it had and has no more.
    pub lost: Vec<String>,
    /// Some of them matter, and that they are gone was accepted.
    pub accepted: bool,
    /// It left the config for good: its records go.
    pub retired: bool,
    /// How to read it; none for one that this run does not read.
    pub ready: Option<Ready>,
    /// Why it cannot be read.
    pub failed: Option<String>,
}

/// A source that can be read.
pub struct Ready {
    /// The instance of its plugin.
    pub connector: Box<dyn SourceConnector>,
    /// How its rows become records.
    pub normaliser: Normaliser,
    /// The head has every row of its last snapshot, made a record as it would be now.
    pub is_held: bool,
}

/// The columns of all sources that are or were: those of the pipeline are asked now. `accept` has the sources that may
/// lose columns.
///
/// # Errors
/// Where the config is wrong. A source that cannot be asked is in the result.
pub fn schemas(
    app: &App,
    state: &State,
    pipeline: &str,
    components: &[ComponentState],
    stored: &StoredSchema,
    accept: &[String],
) -> Result<BTreeMap<String, SourceSchema>, Failure> {
    let of_source = || components.iter().filter(|component| component.kind == ComponentKind::Source);
    let mut schemas = BTreeMap::new();
    for (origin, columns) in &stored.sources {
        let component = of_source().find(|component| component.origin == *origin);
        let name = component.map_or_else(|| origin.clone(), |component| component.name.clone());
        let retired = component.is_some_and(|component| component.retired_us.is_some()) && !app.config.sources.contains_key(&name);
        let names = stored.names.get(origin).cloned().unwrap_or_default();
        let schema =
            SourceSchema { name, columns: columns.clone(), names, lost: Vec::new(), accepted: false, retired, ready: None, failed: None };
        schemas.insert(origin.clone(), schema);
    }
    let names = &app.config.pipelines[pipeline].sources;
    // Side by side, since each starts a process.
    let asked = one_by_one(names, usize::MAX, |name| {
        let connector = components::source(&app.config, &app.plugins, name)?;
        let schema = connector.schema(&call(None)).map_err(Trouble::Plugin)?;
        Ok((connector, schema))
    });
    for (name, asked) in names.iter().zip(asked) {
        let origin =
            of_source().find(|component| component.name == *name).map_or_else(|| name.clone(), |component| component.origin.clone());
        let known = stored.sources.get(&origin);
        let asked = match asked {
            Ok((connector, schema)) => {
                let before = Before { stored, waiting: waiting_types(state, name)?, accepts: accept.contains(name) };
                ready(app, state.keys.lookup(), name, &origin, connector, &expected_columns(&app.config, name, &schema, known), &before)?
            }
            Err(Trouble::Config(findings)) => return Err(findings.into()),
            Err(Trouble::Plugin(error)) => Err(error.to_string()),
        };
        let schema = match asked {
            Ok(schema) => schema,
            Err(failed) => {
                let columns = known.cloned().unwrap_or_default();
                let names = stored.names.get(&origin).cloned().unwrap_or_default();
                SourceSchema {
                    name: name.clone(),
                    columns,
                    names,
                    lost: Vec::new(),
                    accepted: false,
                    retired: false,
                    ready: None,
                    failed: Some(failed),
                }
            }
        };
        schemas.insert(origin, schema);
    }
    Ok(schemas)
}

/// What a source's columns were.
struct Before<'a> {
    stored: &'a StoredSchema,
    /// The types in rows that were read and wait for a generation.
    waiting: BTreeMap<String, ColumnType>,
    /// Whether columns may be gone.
    accepts: bool,
}

/// The types of the columns in rows that a source's pulls have read to their end and that are in no generation yet,
/// after a run that was killed or a rollback.
fn waiting_types(state: &State, name: &str) -> Result<BTreeMap<String, ColumnType>, Failure> {
    let pending = state.ask(state.ledger.source_state(name))?.pending;
    let mut types = BTreeMap::new();
    for pull in &pending {
        // Rows that cannot be read stop the run where they are needed; a pull that reads everything anew does without.
        let Ok(schema) = pull_schema(state, name, pull) else { continue };
        types.extend(schema.fields().iter().filter_map(|field| Some((field.name().clone(), kind_of(field.data_type())?))));
    }
    types.retain(|column, _| !reunion_model::record::is_own(column));
    Ok(types)
}

/// The columns of the rows that a pull has read so far.
///
/// # Errors
/// Where its segments cannot be read.
pub fn pull_schema(state: &State, name: &str, pull: &Pull) -> Result<SchemaRef, Failure> {
    let segments = pull.segments.iter().map(|segment| {
        let doing = || format!("segment {} of source {name} is not understood", segment.seq);
        serde_json::from_value(segment.document.clone()).doing(doing)
    });
    let segments = segments.collect::<Result<Vec<SegmentFile>, Failure>>()?;
    let batches = state.people.read_segments(&segments, None).doing(|| format!("the segments of source {name} cannot be read"))?;
    Ok(Arc::clone(batches.schema()))
}

fn kind_of(kind: &arrow::datatypes::DataType) -> Option<ColumnType> {
    ColumnType::ALL.into_iter().find(|of| of.arrow() == *kind)
}

/// The columns of a source; for one that is so empty that it has none, as a file of no bytes, those that it
/// should have, so that the guard of snapshots judges it.
fn expected_columns(
    config: &Config,
    name: &str,
    found: &arrow::datatypes::Schema,
    known: Option<&BTreeMap<String, ColumnType>>,
) -> arrow::datatypes::Schema {
    use arrow::datatypes::{Field, Schema};
    if !found.fields().is_empty() {
        return found.clone();
    }
    let mapped = &config.sources[name].columns;
    let known = known.into_iter().flatten().map(|(column, kind)| (column.as_str(), *kind));
    let ours = known.chain([RECORD_ID, PHONE].map(|column| (column, ColumnType::Text))).filter(|(column, _)| !mapped.contains_key(*column));
    let theirs = mapped.values().map(|column| (column.from.as_str(), ColumnType::Text));
    let columns: BTreeMap<&str, ColumnType> = ours.chain(theirs).collect();
    Schema::new(columns.into_iter().map(|(column, kind)| Field::new(column, kind.arrow(), true)).collect::<Vec<_>>())
}

/// Whether a source's newest data is too old at this clock to contact anybody on it. One that was never read
/// to its end has contributed nobody.
pub fn is_stale(source: &config::Source, true_at_us: Option<i64>, clock_us: i64) -> bool {
    let max_age_us = i64::from(source.max_age_hours) * 3_600_000_000;
    true_at_us.is_some_and(|true_at_us| clock_us.saturating_sub(true_at_us) > max_age_us)
}

/// When the data of a pull was true: where the source does not say, when the pull began.
pub fn true_at(pull: &Pull) -> i64 {
    pull.as_of_us.unwrap_or(pull.started_us)
}

/// A source that can be read, or why it cannot.
type Asked = Result<SourceSchema, String>;

fn ready(
    app: &App,
    lookup: &Lookup,
    name: &str,
    origin: &str,
    connector: Box<dyn SourceConnector>,
    schema: &arrow::datatypes::Schema,
    before: &Before<'_>,
) -> Result<Asked, Failure> {
    let columns = match app.config.source_columns(name, schema) {
        Ok(columns) => columns,
        // A column that the source lost is the source's doing and stops it alone.
        Err(findings) => return Ok(Err(findings.to_string())),
    };
    let types = types(&columns);
    let mut fixed = before.stored.types_of(origin);
    fixed.extend(before.waiting.clone());
    if let Some((column, kind)) = types.iter().find(|(column, kind)| fixed.get(*column).is_some_and(|fixed| fixed != *kind)) {
        let fixed = fixed[column];
        return Ok(Err(format!(
            "`{column}` is {kind} now and was {fixed} before; a column keeps the type of its first commit: declare it with \
             columns = {{ {column} = {{ from = \"…\", type = \"{fixed}\" }} }}, or keep the new one under another name"
        )));
    }
    let mut names: BTreeMap<String, String> = columns.columns.iter().map(|column| (column.to.clone(), column.from.clone())).collect();
    if let RecordId::Column(from) = &columns.record_id {
        names.insert(RECORD_ID.to_owned(), from.clone());
    }
    let lost = lost(before.stored, origin, &names, schema);
    let needed: Vec<String> =
        lost.iter().filter(|column| is_needed(&app.config, name, column)).map(|column| format!("`{column}`")).collect();
    if !needed.is_empty() && !before.accepts {
        return Ok(Err(format!(
            "it has no {} {} any more; where that is right, accept it once: --accept {name}",
            if needed.len() == 1 { "column" } else { "columns" },
            needed.join(", ")
        )));
    }
    let accepted = !needed.is_empty();
    let plan = source_plan(&app.config, origin, &columns);
    match Normaliser::new(plan, phone_rules(app)?, lookup.clone(), schema) {
        Ok(normaliser) => {
            let is_held = before.stored.is_held(origin, &normaliser);
            let ready = Some(Ready { connector, normaliser, is_held });
            Ok(Ok(SourceSchema { name: name.to_owned(), columns: types, names, lost, accepted, retired: false, ready, failed: None }))
        }
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// The columns that a source had and has no more. One that the config maps otherwise now is not lost.
fn lost(stored: &StoredSchema, origin: &str, names: &BTreeMap<String, String>, schema: &arrow::datatypes::Schema) -> Vec<String> {
    let Some(known) = stored.names.get(origin).filter(|_| !stored.without_rows.contains(origin)) else { return Vec::new() };
    let is_gone = |(column, from): &(&String, &String)| !names.contains_key(*column) && schema.field_with_name(from).is_err();
    known.iter().filter(is_gone).map(|(column, _)| column.clone()).collect()
}

/// Whether it matters that a source loses a column: whom nobody may contact, and who is who, may depend on it. Columns
/// that came by themselves and that nobody has made use of come and go.
fn is_needed(config: &Config, source: &str, column: &str) -> bool {
    let identity = &config.identity;
    let is_own = column == RECORD_ID || column == PHONE || reunion_model::schema::canonical(column).is_some();
    let is_key = identity.keys.iter().flatten().chain(&config.sources[source].key).any(|key| key == column);
    let rules = config.tags.values().map(|tag| &tag.when);
    let of_campaigns = config.campaigns.values().flat_map(|of| [Some(&of.audience), of.message.as_ref(), of.reason.as_ref()]);
    // A name that stands in a text for something else costs no more than a question.
    let is_named = rules.chain(of_campaigns.flatten()).any(|text| text.contains(column));
    is_own || is_key || is_named || identity.survivorship.contains_key(column)
}

fn types(columns: &SourceColumns) -> BTreeMap<String, ColumnType> {
    let others = columns.columns.iter().filter(|column| column.to != reunion_model::record::PHONE);
    others.map(|column| (column.to.clone(), column.kind)).collect()
}

fn source_plan(config: &Config, origin: &str, columns: &SourceColumns) -> SourcePlan {
    let zone = |zone: &config::Zone| -> TimeZone { zone.rules().clone() };
    SourcePlan {
        source: origin.to_owned(),
        record_id: match &columns.record_id {
            RecordId::Column(column) => RecordIdRule::Column(column.clone()),
            RecordId::Key(key) => RecordIdRule::Key(key.clone()),
        },
        columns: columns
            .columns
            .iter()
            .map(|column| Mapping {
                to: column.to.clone(),
                from: column.from.clone(),
                kind: column.kind,
                unit: column.unit.map(|unit| match unit {
                    config::Unit::Yuan => Unit::Yuan,
                    config::Unit::Fen => Unit::Fen,
                }),
                format: column.format.clone(),
                timezone: Some(zone(&column.timezone)),
                values: column.values.iter().cloned().collect(),
            })
            .collect(),
        timezone: zone(&config.timezone),
    }
}

/// The golden columns of members: those that any source has, as the functions of people take them.
///
/// # Errors
/// Where sources do not agree on a type.
pub fn golden_columns(config: &Config, schemas: &BTreeMap<String, SourceSchema>) -> Result<Vec<GoldenColumn>, Diagnostics> {
    let live = schemas.values().filter(|schema| !schema.retired);
    let columns = live.map(|schema| (schema.name.as_str(), &schema.columns)).collect::<Vec<_>>();
    let origin = |name: &String| {
        let known = schemas.iter().find(|(_, schema)| schema.name == *name);
        known.map_or_else(|| name.clone(), |(origin, _)| origin.clone())
    };
    let golden = |MemberColumn { name, kind, mut rule }| {
        // A source that is renamed is believed as much as before.
        rule.sources = rule.sources.iter().map(origin).collect();
        GoldenColumn { name, kind, rule }
    };
    Ok(config.member_columns_of(&columns)?.into_iter().map(golden).collect())
}

/// What pulling came to, by the name that the state knows.
pub type PulledSources = BTreeMap<String, Pulled>;

/// Pulls every source of the pipeline that can be read, side by side.
///
/// # Errors
/// Where the disk or the ledger refuses.
pub fn pull_all(setup: &Setup<'_>, hold: Option<&Hold>, run_id: RunId) -> Result<PulledSources, Failure> {
    let call = call(Some(run_id));
    let ready = setup.schemas.iter().filter_map(|(origin, schema)| schema.ready.as_ref().map(|ready| (origin, schema, ready)));
    std::thread::scope(|scope| {
        let pulls: Vec<_> = ready
            .map(|(origin, schema, ready)| {
                let call = &call;
                (origin, scope.spawn(move || pull_one(setup, hold, origin, schema, ready, call)))
            })
            .collect();
        let join = |(origin, pull): (&String, std::thread::ScopedJoinHandle<'_, Result<Pulled, Failure>>)| {
            let pulled =
                pull.join().unwrap_or_else(|_| Err(Failure::other(format!("reading the source {origin} broke off; this is a defect"))))?;
            Ok((origin.clone(), pulled))
        };
        pulls.into_iter().map(join).collect()
    })
}

fn pull_one(
    setup: &Setup<'_>,
    hold: Option<&Hold>,
    origin: &str,
    schema: &SourceSchema,
    ready: &Ready,
    call: &CallOptions,
) -> Result<Pulled, Failure> {
    let before = setup.state.ask(setup.state.ledger.source_state(&schema.name))?;
    let mode = mode(setup, &schema.name, before.read_whole_us);
    let read_known = || {
        let batches = stored_records(setup, origin, schema, &Known::COLUMNS)?;
        Known::new(&batches).doing(|| format!("the records of source {} cannot be compared", schema.name))
    };
    let known = KnownRows::new(&read_known);
    let plan = PullPlan {
        state: setup.state,
        lease: hold.map(|hold| hold.lease),
        source: &schema.name,
        origin,
        mode,
        overlap_secs: setup.app.config.sources[&schema.name].overlap_secs,
        before,
        known: &known,
        is_held: ready.is_held && !is_asked_for(setup, &schema.name),
        normaliser: &ready.normaliser,
        kept_columns: &reunion_people::index_columns(&people::identity_config(&setup.app.config)),
        commit_every: Duration::from_secs(setup.app.config.limits.commit_secs),
        call,
        progress: &setup.progress,
    };
    let mut pulled = pull(&plan, ready.connector.as_ref())?;
    if pulled.confirms {
        pulled.unfit = reunion_people::unfit_values(&stored_records(setup, origin, schema, &[UNFIT])?)
            .doing(|| format!("the records of source {} cannot be counted", schema.name))?;
    }
    Ok(pulled)
}

/// These columns of a source's records that live.
fn stored_records(setup: &Setup<'_>, origin: &str, schema: &SourceSchema, columns: &[&str]) -> Result<Vec<RecordBatch>, Failure> {
    let Some(base) = setup.base() else { return Ok(Vec::new()) };
    let doing = || format!("the records of source {} cannot be read", schema.name);
    people::collect(base.live(&format!("records/{origin}"), Some(columns)).doing(doing)?).doing(doing)
}

/// Whether the operator wants a source to be read whole.
fn is_asked_for(setup: &Setup<'_>, name: &str) -> bool {
    setup.sweep.iter().any(|asked| asked == name)
}

/// How a source is read now: one that is incremental is read whole where its sweep is due, or asked for.
fn mode(setup: &Setup<'_>, name: &str, read_whole_us: Option<i64>) -> ReadMode {
    let source = &setup.app.config.sources[name];
    let zone = setup.app.config.timezone.rules();
    if is_asked_for(setup, name) || source.sweep.as_ref().is_some_and(|sweep| is_sweep_due(sweep, read_whole_us, now_us(), zone)) {
        tracing::info!(source = name, "it is read whole");
        return ReadMode::Snapshot;
    }
    source.mode
}

/// Whether the schedule's moment has come since everything was read last. What was never read is read whole
/// anyway.
fn is_sweep_due(sweep: &Sweep, read_whole_us: Option<i64>, now_us: i64, zone: &TimeZone) -> bool {
    let (Sweep::At(schedule), Some(read_whole_us)) = (sweep, read_whole_us) else { return false };
    let zoned = |us| jiff::Timestamp::from_microsecond(us).unwrap_or_default().to_zoned(zone.clone());
    let due = schedule.cron().find_next_occurrence(&zoned(read_whole_us), false);
    due.is_ok_and(|due| due <= zoned(now_us))
}

fn call(run_id: Option<RunId>) -> CallOptions {
    CallOptions { dry_run: false, deadline_unix_ms: None, run_id: run_id.map(|id| id.to_string()).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_is_due_once_for_each_of_its_moments() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_microsecond();
        let zone = TimeZone::get("Asia/Shanghai").expect("a timezone");
        let nightly = Sweep::At("0 3 * * *".parse().expect("a schedule"));
        let due = |read: &str, now: &str| is_sweep_due(&nightly, Some(at(read)), at(now), &zone);
        assert!(!due("2026-03-01T02:00:00+08:00", "2026-03-01T02:59:59+08:00"));
        assert!(due("2026-03-01T02:00:00+08:00", "2026-03-01T03:00:00+08:00"));
        assert!(!due("2026-03-01T03:00:00+08:00", "2026-03-02T02:00:00+08:00"));
        assert!(due("2026-03-01T03:00:00+08:00", "2026-03-09T02:00:00+08:00"), "the program was off");
        assert!(!is_sweep_due(&nightly, None, at("2026-03-09T02:00:00+08:00"), &zone), "nothing was read yet");
        assert!(!is_sweep_due(&Sweep::Never, Some(0), at("2026-03-09T02:00:00+08:00"), &zone));
    }
}
