//! The sources of a run: what columns they have, and their pulls, side by side.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use reunion_generations::Generation;
use reunion_host::{CallOptions, SourceConnector};
use reunion_keys::Lookup;
use reunion_ledger::{ComponentKind, ComponentState, Pull};
use reunion_model::RunId;
use reunion_model::plugin::ReadMode;
use reunion_model::schema::ColumnType;
use reunion_people::{Known, Mapping, Normaliser, RecordIdRule, SourcePlan, Unit};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::commands::phone_rules;
use crate::components::{self, Trouble};
use crate::config::{self, Config, Diagnostics, MemberColumn, RecordId, SourceColumns, Sweep};
use crate::failure::{Doing, Failure};
use crate::state::{Hold, now_us};

use super::pull::{PullPlan, Pulled, pull};
use super::setup::Setup;

/// The columns of all sources as a generation was made with them: kept in its manifest, so that a type
/// is fixed at the first commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSchema {
    /// For each source, the types of its columns by our names.
    pub sources: BTreeMap<String, BTreeMap<String, ColumnType>>,
    /// The sources in the order of the members' source bits.
    pub order: Vec<String>,
    /// What decides who is who: where it differs, that is decided anew for everybody.
    #[serde(default)]
    pub identity: String,
    /// What members' columns are made by: where it differs, all members are made anew.
    pub golden: String,
}

impl StoredSchema {
    /// That of a generation; empty without one.
    ///
    /// # Errors
    /// Where the manifest says something that this program does not understand.
    pub fn of(generation: Option<&Generation>) -> Result<Self, Failure> {
        let Some(generation) = generation else { return Ok(Self::default()) };
        serde_json::from_value(generation.manifest().meta.schema.clone())
            .doing(|| format!("the columns of generation {} are not understood", generation.reference().number))
    }
}

/// A source and its columns.
pub struct SourceSchema {
    /// Its name in the config now. The state knows it by the name that it had first.
    pub name: String,
    /// The types of its columns by our names, the phone left out.
    pub columns: BTreeMap<String, ColumnType>,
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
}

/// The columns of all sources that are or were: those of the pipeline are asked now.
///
/// # Errors
/// Where the config is wrong. A source that cannot be asked is in the result.
pub fn schemas(
    app: &App,
    lookup: &Lookup,
    pipeline: &str,
    components: &[ComponentState],
    stored: &StoredSchema,
) -> Result<BTreeMap<String, SourceSchema>, Failure> {
    let of_source = || components.iter().filter(|component| component.kind == ComponentKind::Source);
    let mut schemas = BTreeMap::new();
    for (origin, columns) in &stored.sources {
        let component = of_source().find(|component| component.origin == *origin);
        let name = component.map_or_else(|| origin.clone(), |component| component.name.clone());
        let retired = component.is_some_and(|component| component.retired_us.is_some()) && !app.config.sources.contains_key(&name);
        schemas.insert(origin.clone(), SourceSchema { name, columns: columns.clone(), retired, ready: None, failed: None });
    }
    for name in &app.config.pipelines[pipeline].sources {
        let origin =
            of_source().find(|component| component.name == *name).map_or_else(|| name.clone(), |component| component.origin.clone());
        let known = stored.sources.get(&origin);
        let connector = match components::source(&app.config, &app.plugins, name) {
            Ok(connector) => Ok(connector),
            Err(Trouble::Config(findings)) => return Err(findings.into()),
            Err(Trouble::Plugin(error)) => Err(error),
        };
        let asked = connector.and_then(|connector| connector.schema(&call(None)).map(|schema| (connector, schema)));
        let asked = match asked {
            Ok((connector, schema)) => {
                ready(app, lookup, name, &origin, connector, &expected_columns(&app.config, name, &schema, known), known)?
            }
            Err(error) => Err(error.to_string()),
        };
        let schema = match asked {
            Ok((columns, ready)) => SourceSchema { name: name.clone(), columns, retired: false, ready: Some(ready), failed: None },
            Err(failed) => {
                let columns = known.cloned().unwrap_or_default();
                SourceSchema { name: name.clone(), columns, retired: false, ready: None, failed: Some(failed) }
            }
        };
        schemas.insert(origin, schema);
    }
    Ok(schemas)
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
    use reunion_model::record::{PHONE, RECORD_ID};
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

type Asked = Result<(BTreeMap<String, ColumnType>, Ready), String>;

fn ready(
    app: &App,
    lookup: &Lookup,
    name: &str,
    origin: &str,
    connector: Box<dyn SourceConnector>,
    schema: &arrow::datatypes::Schema,
    known: Option<&BTreeMap<String, ColumnType>>,
) -> Result<Asked, Failure> {
    let columns = match app.config.source_columns(name, schema) {
        Ok(columns) => columns,
        // A column that the source lost is the source's doing and stops it alone.
        Err(findings) => return Ok(Err(findings.to_string())),
    };
    let types = types(&columns);
    let changed = known.and_then(|known| types.iter().find(|(column, kind)| known.get(*column).is_some_and(|before| before != *kind)));
    if let Some((column, kind)) = changed {
        let before = known.and_then(|known| known.get(column)).copied().unwrap_or(*kind);
        return Ok(Err(format!(
            "`{column}` is {kind} now and was {before} before; a column keeps the type of its first commit: declare it with \
             columns = {{ {column} = {{ from = \"…\", type = \"{before}\" }} }}"
        )));
    }
    let plan = source_plan(&app.config, origin, &columns);
    match Normaliser::new(plan, phone_rules(app)?, lookup.clone(), schema) {
        Ok(normaliser) => Ok(Ok((types, Ready { connector, normaliser }))),
        Err(error) => Ok(Err(error.to_string())),
    }
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

/// The golden columns of members: those that any source has or had, and every canonical one, so that a
/// rule may name it whether or not a source brings it.
///
/// # Errors
/// Where sources do not agree on a type.
pub fn golden_columns(config: &Config, schemas: &BTreeMap<String, SourceSchema>) -> Result<Vec<MemberColumn>, Diagnostics> {
    let live = schemas.values().filter(|schema| !schema.retired);
    let columns = live.map(|schema| (schema.name.as_str(), &schema.columns)).collect::<Vec<_>>();
    config.member_columns_of(&columns)
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
    let known = match setup.base() {
        None => Known::default(),
        Some(base) => {
            let doing = || format!("the records of source {} cannot be read", schema.name);
            let batches = base.live(&format!("records/{origin}"), Some(&Known::COLUMNS)).doing(doing)?;
            let batches = batches.map(|part| part.map(|part| part.batch)).collect::<Result<Vec<_>, _>>().doing(doing)?;
            Known::new(&batches).doing(doing)?
        }
    };
    let plan = PullPlan {
        state: setup.state,
        lease: hold.map(|hold| hold.lease),
        source: &schema.name,
        origin,
        mode,
        overlap_secs: setup.app.config.sources[&schema.name].overlap_secs,
        before,
        known: &known,
        normaliser: &ready.normaliser,
        commit_every: Duration::from_secs(setup.app.config.limits.commit_secs),
        call,
        progress: &setup.progress,
    };
    pull(&plan, ready.connector.as_ref())
}

/// How a source is read now: one that is incremental is read whole where its sweep is due, or asked for.
fn mode(setup: &Setup<'_>, name: &str, read_whole_us: Option<i64>) -> ReadMode {
    let source = &setup.app.config.sources[name];
    let is_asked_for = setup.sweep.iter().any(|asked| asked == name);
    let zone = setup.app.config.timezone.rules();
    if is_asked_for || source.sweep.as_ref().is_some_and(|sweep| is_sweep_due(sweep, read_whole_us, now_us(), zone)) {
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
