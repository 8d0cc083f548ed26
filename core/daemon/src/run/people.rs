//! The people stage: from pulled rows to members, by the functions of `reunion_people`.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use reunion_generations::{Batches, SegmentFile};
use reunion_model::{MemberId, PullId, RecordKey};
use reunion_people::identity::PREVIOUS_MEMBER_COLUMNS;
use reunion_people::{
    Chunk, GoldenColumn, GoldenPlan, Identified, IdentityConfig, Loaded, PreviousMembers, Pull, PullInput, Resolved, SharedPhonePolicy,
    SourceCounts, golden, index_columns,
};

use crate::config::{Config, SharedPolicy};
use crate::failure::{Doing, Failure};

use super::pull::{Kept, PulledRows};
use super::setup::Setup;
use super::sources::{PulledSources, StoredSchema};

/// The members after the run, and what changed.
pub struct People {
    /// For each source, in the order of the members' source bits, its counts.
    pub counts: Vec<SourceCounts>,
    /// For each source, the records that are gone.
    pub tombstones: Vec<Vec<RecordKey>>,
    /// For each source, records to be written once more after its segments.
    pub restored: BTreeMap<usize, Vec<RecordBatch>>,
    /// Assignments that are new or changed.
    pub assignments: RecordBatch,
    /// Members whose records changed, with their golden columns.
    pub dirty: RecordBatch,
    /// Members that are no more.
    pub removed: Vec<MemberId>,
    /// Members that were joined to others: from, into.
    pub merges: Vec<(MemberId, MemberId)>,
    /// How many members there are.
    pub total: u64,
    /// Of these, how many are new.
    pub new: u64,
    /// And how many have other golden columns than before.
    pub changed: u64,
    /// The pulls that are taken in, and their segments.
    pub pulls: BTreeMap<String, Vec<PullId>>,
    /// In the order in which they were written, each with its rows that count as never written.
    pub segments: Vec<(SegmentFile, Vec<u32>)>,
    /// Sums that do not fit their column and count as missing.
    pub overflows: Vec<(String, u64)>,
    /// What the manifest keeps of the columns.
    pub schema: StoredSchema,
    /// Sources whose acceptance the guard made use of.
    pub accepted: Vec<String>,
}

/// Works out who is who.
///
/// # Errors
/// Where a guard refuses, or files cannot be read.
pub fn identify(setup: &Setup<'_>, pulled: &mut PulledSources) -> Result<People, Failure> {
    let config = &setup.app.config;
    let identity = identity_config(config);
    let columns = index_columns(&identity);
    let sources: Vec<String> = setup.schemas.keys().cloned().collect();
    let mut chunks = Chunks::default();
    for (source, origin) in sources.iter().enumerate() {
        chunks.previous(setup, source, origin, &columns)?;
    }
    let previous_chunks = chunks.chunks.len();
    let mut pulls = Vec::new();
    let mut taken = (BTreeMap::new(), Vec::new());
    for (source, origin) in sources.iter().enumerate() {
        if setup.schemas[origin].retired {
            pulls.push(Pull { source: source as u16, complete_snapshot: true, ..Pull::default() });
        } else if let Some(pulled) = pulled.get_mut(origin) {
            let keyed = setup.schemas[origin].ready.as_ref().is_some_and(|ready| ready.normaliser.is_keyed());
            for rows in &mut pulled.pulls {
                let from = chunks.chunks.len();
                let seen = chunks.pulled(setup, source, rows)?;
                let chunks = from..chunks.chunks.len();
                pulls.push(Pull { source: source as u16, chunks, seen, complete_snapshot: rows.deletes, keyed });
                taken.0.entry(origin.clone()).or_insert_with(Vec::new).push(rows.pull_id);
                taken.1.extend(rows.segments.iter().cloned());
            }
        }
    }
    let assignments = table(setup, "assignments", None)?;
    let doing = || "members cannot be worked out".to_owned();
    let input = PullInput { sources: &sources, chunks: &chunks.chunks, previous_chunks, pulls: &pulls, assignments: &assignments };
    let resolved = Resolved::new(input).doing(doing)?;
    let accepted = guard(setup, &sources, &pulls, &resolved)?;
    let members = table(setup, "members", Some(&PREVIOUS_MEMBER_COLUMNS))?;
    let forwarded = forwarded(setup)?;
    let (schema, recompute) = schema(setup)?;
    let previous = PreviousMembers { members: &members, forwarded: &forwarded };
    let repeated = chunks.repeated(resolved.repeated());
    let identified = reunion_people::identify(resolved, &identity, setup.state.keys.lookup(), previous, recompute).doing(doing)?;
    let restored = chunks.restored(setup, &identified)?;
    let full = chunks.full(setup, &identified)?;
    let plan = golden_plan(setup)?;
    let made = golden(&plan, setup.state.keys.lookup(), &identified, &full).doing(|| "golden columns cannot be worked out".to_owned())?;
    let segments = taken.1.into_iter().zip(repeated).collect();
    Ok(People {
        total: identified.members.len() as u64,
        new: made.new,
        changed: made.changed,
        overflows: made.overflows,
        counts: identified.counts,
        tombstones: identified.tombstones,
        restored,
        assignments: identified.assignments,
        dirty: made.members,
        removed: identified.removed,
        merges: identified.merges,
        pulls: taken.0,
        segments,
        schema,
        accepted,
    })
}

/// `[identity]` as the functions of people take it.
pub fn identity_config(config: &Config) -> IdentityConfig {
    IdentityConfig {
        keys: config.identity.keys.clone(),
        cards_max: config.identity.shared_phone.cards_max,
        policy: match config.identity.shared_phone.policy {
            SharedPolicy::Merge => SharedPhonePolicy::Merge,
            SharedPolicy::Household => SharedPhonePolicy::Household,
            SharedPolicy::Quarantine => SharedPhonePolicy::Quarantine,
        },
    }
}

/// The golden columns of members as the functions of people take them.
///
/// # Errors
/// Where sources do not agree on a type.
pub fn golden_plan(setup: &Setup<'_>) -> Result<GoldenPlan, Failure> {
    let columns = super::golden_columns(&setup.app.config, &setup.schemas)?;
    let columns = columns.into_iter().map(|column| GoldenColumn { name: column.name, kind: column.kind, rule: column.survivorship });
    GoldenPlan::new(columns.collect()).doing(|| "the columns of members do not fit together".to_owned())
}

/// All batches of a table of the head.
fn table(setup: &Setup<'_>, name: &str, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>, Failure> {
    let Some(base) = setup.base() else { return Ok(Vec::new()) };
    let doing = || format!("the table {name} of generation {} cannot be read", base.reference().number);
    collect(base.live(name, columns).doing(doing)?).doing(doing)
}

fn collect(batches: Batches) -> Result<Vec<RecordBatch>, reunion_generations::GenerationError> {
    batches.map(|part| part.map(|part| part.batch)).collect()
}

fn forwarded(setup: &Setup<'_>) -> Result<Vec<MemberId>, Failure> {
    let batches = table(setup, "forwards", Some(&["member_id"]))?;
    let ids = batches.iter().flat_map(|batch| batch.column(0).as_fixed_size_binary().iter().flatten());
    Ok(ids.filter_map(MemberId::from_slice).collect())
}

/// What the manifest keeps of the columns, and whether all members have to be made anew.
fn schema(setup: &Setup<'_>) -> Result<(StoredSchema, bool), Failure> {
    let config = &setup.app.config;
    let before = StoredSchema::of(setup.base())?;
    let live = setup.schemas.iter().filter(|(_, schema)| !schema.retired && !schema.columns.is_empty());
    let sources = live.map(|(origin, schema)| (origin.clone(), schema.columns.clone())).collect::<BTreeMap<_, _>>();
    let columns = super::golden_columns(config, &setup.schemas)?;
    let rules: Vec<String> =
        columns.iter().map(|column| format!("{} {} {}", column.name, column.kind, column.survivorship.name())).collect();
    let order: Vec<String> = setup.schemas.keys().cloned().collect();
    let golden = rules.join(",");
    let recompute = setup.base().is_some() && (before.golden != golden || before.order != order);
    Ok((StoredSchema { sources, order, golden }, recompute))
}

/// The guard of snapshots: one that is empty, or that would delete too much, is probably half a file.
fn guard(setup: &Setup<'_>, sources: &[String], pulls: &[Pull], resolved: &Resolved<'_>) -> Result<Vec<String>, Failure> {
    let mut accepted = Vec::new();
    for (source, origin) in sources.iter().enumerate() {
        let schema = &setup.schemas[origin];
        let Some(pull) = pulls.iter().rfind(|pull| usize::from(pull.source) == source && pull.complete_snapshot && !schema.retired) else {
            continue;
        };
        let deletions = resolved.deletions()[source];
        let is_empty = pull.chunks.is_empty() && pull.seen.is_empty();
        let share = deletions.deleted as f64 / deletions.live_before.max(1) as f64;
        let share_max = setup.app.config.sources[&schema.name].deleted_share_max;
        if !is_empty && share <= share_max {
            continue;
        }
        if setup.accept.contains(&schema.name) {
            accepted.push(schema.name.clone());
            continue;
        }
        let message = if is_empty {
            format!("the source `{}` is empty; before it had {} rows", schema.name, deletions.live_before)
        } else {
            format!(
                "the source `{}` lost {} of its {} rows ({:.1} %), and deleted_share_max allows {:.1} %",
                schema.name,
                deletions.deleted,
                deletions.live_before,
                share * 100.0,
                share_max * 100.0
            )
        };
        let help = format!("see whether the export is whole; if the rows are really gone, accept it once: --accept {}", schema.name);
        return Err(Failure::guard(message).help(help));
    }
    Ok(accepted)
}

/// Where the full rows of a chunk are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the head: the source, and the batch's place in its records.
    Head(usize, usize),
    /// In a segment of this run: its place among them, and the chunk's first row in it.
    Segment(usize, u64),
    /// Nowhere but here.
    Memory,
}

/// The records of a run in chunks, and where each chunk's full rows are.
#[derive(Default)]
struct Chunks {
    chunks: Vec<Chunk>,
    places: Vec<Place>,
    segments: usize,
}

impl Chunks {
    fn push(&mut self, source: usize, batch: RecordBatch, place: Place) {
        self.chunks.push(Chunk { source: source as u16, batch });
        self.places.push(place);
    }

    fn is_head(&self, chunk: usize) -> bool {
        matches!(self.places[chunk], Place::Head(..))
    }

    /// For each segment the rows whose record stands further down in its pull: a file has each record once.
    fn repeated(&self, rows: impl Iterator<Item = (usize, usize)>) -> Vec<Vec<u32>> {
        let mut repeated = vec![Vec::new(); self.segments];
        for (chunk, row) in rows {
            if let Place::Segment(segment, first_row) = self.places[chunk] {
                repeated[segment].push(first_row as u32 + row as u32);
            }
        }
        repeated
    }

    /// The records that the head has of a source, with the columns that identity needs.
    fn previous(&mut self, setup: &Setup<'_>, source: usize, origin: &str, columns: &[String]) -> Result<(), Failure> {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        for (place, batch) in table(setup, &format!("records/{origin}"), Some(&columns))?.into_iter().enumerate() {
            self.push(source, batch, Place::Head(source, place));
        }
        Ok(())
    }

    /// The rows of a pull in full, since most of them are new; gives the keys of those that are not.
    fn pulled(&mut self, setup: &Setup<'_>, source: usize, rows: &mut PulledRows) -> Result<Vec<RecordKey>, Failure> {
        let people = &setup.state.people;
        let doing = || "the segments of a pull cannot be read".to_owned();
        match rows.kept.take() {
            Some(kept) => {
                for Kept { segment, first_row, batch } in kept {
                    self.push(source, batch, Place::Segment(self.segments + segment, first_row));
                }
            }
            None => {
                for part in people.read_segments(&rows.segments, None).doing(doing)? {
                    let part = part.doing(doing)?;
                    self.push(source, part.batch, Place::Segment(self.segments + part.file, part.first_row));
                }
            }
        }
        self.segments += rows.segments.len();
        let mut seen = rows.seen.clone();
        for segment in &rows.segments {
            seen.extend(people.read_seen(segment).doing(doing)?);
        }
        for batch in &rows.batches {
            self.push(source, batch.clone(), Place::Memory);
        }
        Ok(seen)
    }

    /// For each chunk its full rows where the golden columns of changed members need any: rows of the head
    /// are read again, and only those that are needed are kept.
    fn full(&self, setup: &Setup<'_>, identified: &Identified) -> Result<Vec<Option<Loaded>>, Failure> {
        let needed = identified.rows_needed();
        let here = |(chunk, needed): (usize, &Vec<u32>)| {
            (!self.is_head(chunk) && !needed.is_empty()).then(|| Loaded { batch: self.chunks[chunk].batch.clone(), rows: None })
        };
        let mut full: Vec<_> = needed.iter().enumerate().map(here).collect();
        self.read_again(setup, |chunk| needed[chunk].clone(), |chunk, batch, rows| full[chunk] = Some(Loaded { batch, rows: Some(rows) }))?;
        Ok(full)
    }

    /// Rows that have to be written once more, by source.
    fn restored(&self, setup: &Setup<'_>, identified: &Identified) -> Result<BTreeMap<usize, Vec<RecordBatch>>, Failure> {
        let mut wanted: Vec<Vec<u32>> = vec![Vec::new(); self.chunks.len()];
        for (chunk, row) in &identified.restore {
            wanted[*chunk as usize].push(*row);
        }
        wanted.iter_mut().for_each(|rows| rows.sort_unstable());
        let mut restored: BTreeMap<usize, Vec<RecordBatch>> = BTreeMap::new();
        for (chunk, rows) in wanted.iter().enumerate().filter(|(chunk, rows)| !self.is_head(*chunk) && !rows.is_empty()) {
            let Chunk { source, batch } = &self.chunks[chunk];
            restored.entry(usize::from(*source)).or_default().push(take(batch, rows)?);
        }
        let source_of = |chunk: usize| usize::from(self.chunks[chunk].source);
        self.read_again(setup, |chunk| wanted[chunk].clone(), |chunk, batch, _| restored.entry(source_of(chunk)).or_default().push(batch))?;
        Ok(restored)
    }

    /// Reads the wanted rows of the head's chunks in full.
    fn read_again(
        &self,
        setup: &Setup<'_>,
        wanted: impl Fn(usize) -> Vec<u32>,
        mut give: impl FnMut(usize, RecordBatch, Vec<u32>),
    ) -> Result<(), Failure> {
        let Some(base) = setup.base() else { return Ok(()) };
        for (source, origin) in setup.schemas.keys().enumerate() {
            let mut rows: BTreeMap<usize, (usize, Vec<u32>)> = BTreeMap::new();
            for (chunk, place) in self.places.iter().enumerate() {
                if let Place::Head(of, place) = *place
                    && of == source
                {
                    rows.insert(place, (chunk, wanted(chunk)));
                }
            }
            rows.retain(|_, (_, rows)| !rows.is_empty());
            let Some(last) = rows.keys().next_back().copied() else { continue };
            let doing = || format!("the records of source {origin} cannot be read");
            for (place, part) in base.live(&format!("records/{origin}"), None).doing(doing)?.enumerate().take(last + 1) {
                let batch = part.doing(doing)?.batch;
                if let Some((chunk, rows)) = rows.get(&place) {
                    give(*chunk, take(&batch, rows)?, rows.clone());
                }
            }
        }
        Ok(())
    }
}

fn take(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, Failure> {
    if rows.len() == batch.num_rows() {
        return Ok(batch.clone());
    }
    take_record_batch(batch, &UInt32Array::from(rows.to_vec())).doing(|| "rows cannot be taken out of a batch".to_owned())
}
