//! The people stage: from pulled rows to members, by the functions of `reunion_people`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Schema;
use reunion_generations::{Batches, GenerationError, SegmentFile};
use reunion_model::record::{only, own_fields};
use reunion_model::{Decision, MemberId, PullId, RecordKey};
use reunion_people::identity::PREVIOUS_MEMBER_COLUMNS;
use reunion_people::{
    Assignments, Chunk, GoldenPlan, Held, HeldNumbers, Identified, IdentityConfig, KeyLimits, Loaded, PreviousMembers, Pull, PullInput,
    Resolved, Settled, SharedPhone, SharedPhonePolicy, SourceCounts, golden, index_columns, key_columns, narrow,
};

use crate::config::{Config, SharedPolicy, types};
use crate::failure::{Doing, Failure};
use crate::state::Hold;

use super::guards::{self, Guarded};
use super::holders;
use super::population;
use super::pull::{Ending, Kept, PulledRows};
use super::setup::Setup;
use super::sources::{PulledSources, Ready, StoredSchema};

const DAY_US: i64 = 86_400_000_000;
/// Share of the records beyond which a run decides all of them.
const SCOPE_SHARE_MAX: f64 = 0.5;

/// The members after the run, and what changed.
pub struct People {
    /// For each source, in the order of the members' source bits, its counts.
    pub counts: Vec<SourceCounts>,
    /// For each source, the records that are gone.
    pub tombstones: Vec<Vec<RecordKey>>,
    /// For each source, records to be written once more after its segments.
    pub restored: BTreeMap<usize, Vec<RecordBatch>>,
    /// Members whose records changed, with those golden columns that the stages after this one read.
    pub dirty: Vec<RecordBatch>,
    /// Members that are no more.
    pub removed: Vec<MemberId>,
    /// Members that were joined to others: from, into.
    pub merges: Vec<(MemberId, MemberId)>,
    /// New members made of records that left others: from, new.
    pub splits: Vec<(MemberId, MemberId)>,
    /// Who holds numbers that have had several holders: before the run, and after it.
    pub held_before: Vec<Held>,
    pub held: HeldNumbers,
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
    /// What guards compare with the runs before.
    pub guarded: Guarded,
    /// What guards let pass because it was accepted: names of sources and guards.
    pub accepted: Vec<String>,
}

/// Who is who, before the columns of members are made.
pub struct Who {
    identified: Identified,
    held_before: Vec<Held>,
    guarded: Guarded,
    chunks: Chunks,
    members_outside: u64,
    pulls: BTreeMap<String, Vec<PullId>>,
    segments: Vec<(SegmentFile, Vec<u32>)>,
    schema: StoredSchema,
    accepted: Vec<String>,
}

/// What identity reads of the head whatever the sources say, so that it can be read beside them.
pub struct Before {
    identity: IdentityConfig,
    schema: StoredSchema,
    anew: Anew,
    chunks: Chunks,
    assignments: Vec<RecordBatch>,
    /// All members.
    everyone: Vec<RecordBatch>,
    forwarded: Vec<MemberId>,
    held: Vec<Held>,
}

impl Before {
    /// Reads it.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn read(setup: &Setup<'_>) -> Result<Self, Failure> {
        let identity = identity_config(&setup.app.config);
        let (schema, anew) = schema(setup, &identity)?;
        let columns = if anew == Anew::Changes { key_columns(&identity) } else { index_columns(&identity) };
        let mut chunks = Chunks::default();
        for (source, origin) in setup.schemas.keys().enumerate() {
            chunks.previous(setup, source, origin, &columns)?;
        }
        let assignments = table(setup, "assignments", None)?;
        let everyone = table(setup, "members", Some(&PREVIOUS_MEMBER_COLUMNS))?;
        Ok(Self { identity, schema, anew, chunks, assignments, everyone, forwarded: forwarded(setup)?, held: holders::read(setup)? })
    }
}

/// Works out who is who, and which record is whose. What is left to be done for the pulls to count is done beside it.
///
/// # Errors
/// Where a guard refuses, files cannot be read, or the disk or the ledger refuses the ends of pulls.
pub fn identify(setup: &Setup<'_>, hold: Option<&Hold>, pulled: &mut PulledSources, before: Before) -> Result<(Who, Assignments), Failure> {
    std::thread::scope(|scope| {
        let (mut segments, mut settling) = (Vec::new(), Vec::new());
        let decided = decide(setup, pulled, before, |pulled| {
            segments.extend(pulled.segments.iter().cloned().map(Some));
            if let (Some(ending), Some(hold)) = (pulled.ending.take(), hold) {
                let place = segments.len();
                segments.resize(place + ending.segments(), None);
                settling.push((place, scope.spawn(move || ending.settle(setup.state, &hold.lease))));
            }
        });
        let (mut who, assignments, repeated) = decided?;
        for (place, settled) in settling {
            let settled = settled.join().unwrap_or_else(|_| Err(Failure::other("ending a pull broke off; this is a defect")));
            settled?.into_iter().for_each(|file| segments[place] = Some(file));
        }
        who.segments = segments.into_iter().flatten().zip(repeated).collect();
        Ok((who, assignments))
    })
}

/// Who is who, which record is whose, and for each segment its rows that count as never written. `taken` is called
/// with each pull, in the order of their segments.
fn decide(
    setup: &Setup<'_>,
    pulled: &mut PulledSources,
    before: Before,
    mut taken: impl FnMut(&mut PulledRows),
) -> Result<(Who, Assignments, Vec<Vec<u32>>), Failure> {
    let Before { identity, mut schema, anew, mut chunks, assignments, everyone, forwarded, held } = before;
    let sources: Vec<String> = setup.schemas.keys().cloned().collect();
    let previous_chunks = chunks.chunks.len();
    let index_columns = index_columns(&identity);
    let (mut pulls, mut pull_ids) = (Vec::new(), BTreeMap::new());
    for (source, origin) in sources.iter().enumerate() {
        if setup.schemas[origin].retired {
            pulls.push(Pull { source: source as u16, complete_snapshot: true, ..Pull::default() });
        } else if let Some(pulled) = pulled.get_mut(origin) {
            let ready = setup.schemas[origin].ready.as_ref();
            if let Some(Ready { normaliser, .. }) = ready {
                schema.note_read(origin, pulled, normaliser);
            }
            let keyed = ready.is_some_and(|ready| ready.normaliser.is_keyed());
            if pulled.confirms {
                pulls.push(Pull { source: source as u16, confirms: true, keyed, ..Pull::default() });
            }
            for rows in &mut pulled.pulls {
                let from = chunks.chunks.len();
                let seen = chunks.pulled(setup, source, rows, &index_columns)?;
                let chunks = from..chunks.chunks.len();
                pulls.push(Pull { source: source as u16, chunks, seen, complete_snapshot: rows.deletes, confirms: false, keyed });
                pull_ids.entry(origin.clone()).or_insert_with(Vec::new).push(rows.pull_id);
                taken(rows);
            }
        }
    }
    let doing = || "members cannot be worked out".to_owned();
    let lookup = setup.state.keys.lookup();
    let settled = Settled::default();
    let decisions = &setup.facts.decisions;
    let scope = if anew == Anew::Changes {
        let decided = decided(setup)?;
        let all = PullInput {
            sources: &sources,
            chunks: &chunks.chunks,
            previous_chunks,
            pulls: &pulls,
            assignments: &assignments,
            settled: &settled,
        };
        let scope = narrow(&all, &everyone, &identity, &decided, lookup, SCOPE_SHARE_MAX).doing(doing)?;
        match &scope {
            Some(scope) => chunks.keep(setup, &scope.rows)?,
            None => chunks.widen(setup, &index_columns)?,
        }
        scope
    } else {
        None
    };
    let (pulls_in, assignments_in, members, settled) = match &scope {
        None => (&pulls, &assignments, &everyone, &settled),
        Some(scope) => (&scope.pulls, &scope.assignments, &scope.members, &scope.settled),
    };
    let input =
        PullInput { sources: &sources, chunks: &chunks.chunks, previous_chunks, pulls: pulls_in, assignments: assignments_in, settled };
    let resolved = Resolved::new(input).doing(doing)?;
    let mut accepted = guards::snapshots(setup, &sources, &pulls, &resolved)?;
    let lost = setup.schemas.values().filter(|schema| schema.accepted && !accepted.contains(&schema.name));
    let lost = lost.map(|schema| schema.name.clone()).collect::<Vec<_>>();
    accepted.extend(lost);
    let brings_news = guards::reads_something_new(&pulls, &resolved);
    let previous = PreviousMembers { members, everyone: &everyone, forwarded: &forwarded, held: &held };
    let repeated = chunks.repeated(resolved.repeated());
    let identified = reunion_people::identify(resolved, &identity, decisions, lookup, previous, anew == Anew::Members);
    let (identified, assignments) = identified.doing(doing)?;
    let guarded = Guarded::of(&identified, everyone.iter().map(|batch| batch.num_rows() as u64).sum());
    accepted.extend(guarded.check(setup, brings_news)?);
    let members_outside = scope.map_or(0, |scope| scope.members_outside);
    let who =
        Who { identified, held_before: held, guarded, chunks, members_outside, pulls: pull_ids, segments: Vec::new(), schema, accepted };
    Ok((who, assignments, repeated))
}

impl Who {
    /// For each source, in the order of the members' source bits, the records that are gone.
    pub fn tombstones(&self) -> &[Vec<RecordKey>] {
        &self.identified.tombstones
    }

    /// Members that are no more.
    pub fn removed(&self) -> &[MemberId] {
        &self.identified.removed
    }

    /// How many members have records that changed.
    pub fn dirty(&self) -> usize {
        self.identified.dirty.len()
    }

    /// Makes the columns of the members that changed, and gives them as they are made.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn people(self, setup: &Setup<'_>, mut give: impl FnMut(&RecordBatch)) -> Result<People, Failure> {
        let Self { identified, held_before, guarded, chunks, members_outside, pulls, segments, schema, accepted } = self;
        let restored = chunks.restored(setup, &identified, &segments)?;
        let plan = golden_plan(setup)?;
        let full = chunks.full(setup, &identified, &plan, &segments)?;
        let doing = || "golden columns cannot be worked out".to_owned();
        let sources: Vec<String> = setup.schemas.keys().cloned().collect();
        let (needed, mut dirty) = (population::member_schema(setup)?, Vec::new());
        let made = golden(&plan, setup.state.keys.lookup(), &sources, &identified, full, |batch| {
            give(&batch);
            dirty.push(only(&batch, |column| needed.field_with_name(column).is_ok()));
        });
        let made = made.doing(doing)?;
        Ok(People {
            total: identified.members.len() as u64 + members_outside,
            new: made.new,
            changed: made.changed,
            overflows: made.overflows,
            counts: identified.counts,
            tombstones: identified.tombstones,
            restored,
            dirty,
            removed: identified.removed,
            merges: identified.merges,
            splits: identified.splits,
            held_before,
            held: identified.held,
            pulls,
            segments,
            schema,
            guarded,
            accepted,
        })
    }
}

/// The records that decisions speak of: those that hold, and those that were withdrawn since the head.
fn decided(setup: &Setup<'_>) -> Result<Vec<RecordKey>, Failure> {
    let Some((head, _)) = &setup.head else { return Ok(Vec::new()) };
    let mut records = setup.state.ask(setup.state.ledger.decided_since(head.fact_seq))?;
    records.extend(setup.facts.decisions.iter().flat_map(Decision::records));
    records.sort_unstable();
    records.dedup();
    Ok(records)
}

/// `[identity]` as the functions of people take it.
pub fn identity_config(config: &Config) -> IdentityConfig {
    let identity = &config.identity;
    let shared = &identity.shared_phone;
    let limits = identity.keys.iter().flatten().map(|column| {
        let own = identity.limits.get(column);
        let is_key = identity.keys.iter().any(|columns| *columns == [column.as_str()]);
        let limits = KeyLimits {
            records_max: own.map_or(types::KeyLimits::RECORDS_MAX, |own| own.records_max),
            values_max: is_key.then(|| own.map_or(types::KeyLimits::VALUES_MAX, |own| own.values_max)),
            blocked: own.map_or(Vec::new(), |own| own.blocked.clone()),
        };
        (column.clone(), limits)
    });
    IdentityConfig {
        keys: identity.keys.clone(),
        limits: limits.collect(),
        shared_phone: SharedPhone {
            cards_max: shared.cards_max,
            same_name_cards_max: shared.same_name_cards_max,
            recycled_after_us: (shared.recycled_after_days > 0).then(|| i64::from(shared.recycled_after_days) * DAY_US),
            policy: match shared.policy {
                SharedPolicy::Merge => SharedPhonePolicy::Merge,
                SharedPolicy::Household => SharedPhonePolicy::Household,
                SharedPolicy::Quarantine => SharedPhonePolicy::Quarantine,
            },
        },
    }
}

/// The golden columns of members as the functions of people take them.
///
/// # Errors
/// Where sources do not agree on a type.
pub fn golden_plan(setup: &Setup<'_>) -> Result<GoldenPlan, Failure> {
    let columns = super::golden_columns(&setup.app.config, &setup.schemas)?;
    GoldenPlan::new(columns).doing(|| "the columns of members do not fit together".to_owned())
}

/// All batches of a table of the head.
pub fn table(setup: &Setup<'_>, name: &str, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>, Failure> {
    let Some(base) = setup.base() else { return Ok(Vec::new()) };
    let doing = || format!("the table {name} of generation {} cannot be read", base.reference().number);
    collect(base.live(name, columns).doing(doing)?).doing(doing)
}

/// The rows of batches, without where they stand.
///
/// # Errors
/// Where files cannot be read.
pub fn collect(batches: Batches) -> Result<Vec<RecordBatch>, GenerationError> {
    batches.map(|part| part.map(|part| part.batch)).collect()
}

fn forwarded(setup: &Setup<'_>) -> Result<Vec<MemberId>, Failure> {
    let batches = table(setup, "forwards", Some(&["member_id"]))?;
    let ids = batches.iter().flat_map(|batch| batch.column(0).as_fixed_size_binary().iter().flatten());
    Ok(ids.filter_map(MemberId::from_slice).collect())
}

/// What a run has to decide anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anew {
    /// What can be reached from what changed.
    Changes,
    /// Who is who, of everybody: it was decided by other rules before.
    Identity,
    /// That, and everybody's columns.
    Members,
}

/// What the manifest keeps of how members are made, and what therefore has to be made anew.
fn schema(setup: &Setup<'_>, identity: &IdentityConfig) -> Result<(StoredSchema, Anew), Failure> {
    let config = &setup.app.config;
    let before = StoredSchema::of(setup.base())?;
    let columns = super::golden_columns(config, &setup.schemas)?;
    let next = before.next(&setup.schemas, identity.terms(), columns);
    let anew = if setup.base().is_none() || before.columns != next.columns || before.order != next.order {
        Anew::Members
    } else if before.identity != next.identity {
        Anew::Identity
    } else {
        Anew::Changes
    };
    Ok((next, anew))
}

/// Where the full rows of a chunk are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the head: the source, and the batch's place in its records.
    Head(usize, usize),
    /// In a segment of this run: its place among them, and the chunk's first row in it. Here it has not all columns.
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

    /// Keeps nothing of the head's chunks but these rows, in full.
    fn keep(&mut self, setup: &Setup<'_>, rows: &[Vec<u32>]) -> Result<(), Failure> {
        let mut full = Vec::new();
        self.read_again(setup, |chunk| rows.get(chunk).cloned().unwrap_or_default(), |chunk, batch, _| full.push((chunk, batch)))?;
        for (chunk, place) in self.places.iter_mut().enumerate().filter(|(_, place)| matches!(place, Place::Head(..))) {
            *place = Place::Memory;
            self.chunks[chunk].batch = RecordBatch::new_empty(Arc::new(Schema::new(own_fields())));
        }
        for (chunk, batch) in full {
            self.chunks[chunk].batch = batch;
        }
        Ok(())
    }

    /// Reads other columns of the head's chunks in the place of those that are here.
    fn widen(&mut self, setup: &Setup<'_>, columns: &[String]) -> Result<(), Failure> {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        for (source, origin) in setup.schemas.keys().enumerate() {
            let mut wider = table(setup, &format!("records/{origin}"), Some(&columns))?.into_iter();
            let of_source = |place: &Place| matches!(place, Place::Head(of, _) if *of == source);
            for (chunk, _) in self.places.iter().enumerate().filter(|(_, place)| of_source(place)) {
                self.chunks[chunk].batch = wider.next().expect("a table has as many batches whatever its columns");
            }
        }
        Ok(())
    }

    /// The rows of a pull, since most of them are new; gives the keys of those that are not.
    fn pulled(&mut self, setup: &Setup<'_>, source: usize, rows: &mut PulledRows, columns: &[String]) -> Result<Vec<RecordKey>, Failure> {
        let people = &setup.state.people;
        let mut seen = std::mem::take(&mut rows.seen);
        if let Some(kept) = rows.kept.take() {
            for Kept { segment, first_row, batch } in kept.chunks {
                self.push(source, batch, Place::Segment(self.segments + segment, first_row));
            }
            seen.extend(kept.seen);
        } else {
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            for part in pulled(people.read_segments(&rows.segments, Some(&columns)))? {
                let part = pulled(part)?;
                self.push(source, part.batch, Place::Segment(self.segments + part.file, part.first_row));
            }
            for segment in &rows.segments {
                seen.extend(pulled(people.read_seen(segment))?);
            }
        }
        self.segments += rows.segments.len() + rows.ending.as_ref().map_or(0, Ending::segments);
        for batch in &rows.batches {
            self.push(source, batch.clone(), Place::Memory);
        }
        Ok(seen)
    }

    /// For each chunk its rows where the golden columns of changed members need any: rows of the head
    /// are read again, and only those that are needed are kept; of the segments what is not here. Nothing else is left
    /// of the chunks.
    fn full(
        mut self,
        setup: &Setup<'_>,
        identified: &Identified,
        plan: &GoldenPlan,
        segments: &[(SegmentFile, Vec<u32>)],
    ) -> Result<Vec<Option<Loaded>>, Failure> {
        let columns = plan.columns_read();
        let chunks = std::mem::take(&mut self.chunks).into_iter().enumerate();
        let mut full: Vec<_> = chunks.map(|(at, chunk)| (!self.is_head(at)).then(|| Loaded::whole(&columns, &chunk.batch))).collect();
        self.complete(setup, &columns, segments, &mut full)?;
        if (0..full.len()).all(|chunk| !self.is_head(chunk)) {
            return Ok(full);
        }
        let needed = identified.rows_needed();
        let give = |chunk: usize, batch, rows| full[chunk] = Some(Loaded { batch, rows: Some(rows) });
        self.read_again(setup, |chunk| needed[chunk].clone(), give)?;
        Ok(full)
    }

    /// Gives the chunks of segments those of these columns that they do not have.
    fn complete(
        &self,
        setup: &Setup<'_>,
        columns: &[&str],
        segments: &[(SegmentFile, Vec<u32>)],
        full: &mut [Option<Loaded>],
    ) -> Result<(), Failure> {
        let places = self.places.iter().enumerate().filter_map(|(chunk, place)| match place {
            Place::Segment(segment, first_row) => Some(((*segment, *first_row), chunk)),
            Place::Head(..) | Place::Memory => None,
        });
        let places: BTreeMap<_, _> = places.collect();
        for (at, (segment, _)) in segments.iter().enumerate() {
            let Some(chunk) = places.get(&(at, 0)).and_then(|chunk| full[*chunk].as_ref()) else { continue };
            let missing = columns.iter().copied().filter(|column| chunk.batch.column_by_name(column).is_none()).collect::<Vec<_>>();
            for part in pulled(setup.state.people.read_segments(std::slice::from_ref(segment), Some(&missing)))? {
                let part = pulled(part)?;
                let loaded = places.get(&(at, part.first_row)).and_then(|chunk| full[*chunk].as_mut());
                let loaded = loaded.expect("a segment has the row groups in which its rows were kept");
                loaded.add(&part.batch).doing(|| "the rows of a segment are not those that were pulled".to_owned())?;
            }
        }
        Ok(())
    }

    /// Rows that have to be written once more, by source. `segments` are those of this run.
    fn restored(
        &self,
        setup: &Setup<'_>,
        identified: &Identified,
        segments: &[(SegmentFile, Vec<u32>)],
    ) -> Result<BTreeMap<usize, Vec<RecordBatch>>, Failure> {
        let mut wanted: Vec<Vec<u32>> = vec![Vec::new(); self.chunks.len()];
        for (chunk, row) in &identified.restore {
            wanted[*chunk as usize].push(*row);
        }
        wanted.iter_mut().for_each(|rows| rows.sort_unstable());
        let mut restored: BTreeMap<usize, Vec<RecordBatch>> = BTreeMap::new();
        let mut of_segments: BTreeMap<usize, BTreeMap<usize, Vec<u32>>> = BTreeMap::new();
        for (chunk, rows) in wanted.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let Chunk { source, batch } = &self.chunks[chunk];
            let source = usize::from(*source);
            match self.places[chunk] {
                Place::Head(..) => {}
                Place::Memory => restored.entry(source).or_default().push(take(batch, rows)?),
                Place::Segment(segment, first_row) => {
                    let wanted = of_segments.entry(source).or_default().entry(segment).or_default();
                    wanted.extend(rows.iter().map(|row| first_row as u32 + row));
                }
            }
        }
        let files = segments.iter().map(|(segment, _)| segment.clone()).collect::<Vec<_>>();
        for (source, wanted) in of_segments {
            let doing = || "the segments of a pull cannot be read".to_owned();
            for part in setup.state.people.read_segments_at(&files, &wanted).doing(doing)? {
                restored.entry(source).or_default().push(part.doing(doing)?.batch);
            }
        }
        let source_of = |chunk: usize| usize::from(self.chunks[chunk].source);
        let give = |chunk, batch, _| restored.entry(source_of(chunk)).or_default().push(batch);
        self.read_again(setup, |chunk| wanted[chunk].clone(), give)?;
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
            let (mut chunks, mut rows) = (Vec::new(), BTreeMap::new());
            for (chunk, place) in self.places.iter().enumerate() {
                if let Place::Head(of, place) = *place
                    && of == source
                    && let wanted = wanted(chunk)
                    && !wanted.is_empty()
                {
                    chunks.push(chunk);
                    rows.insert(place, wanted);
                }
            }
            if chunks.is_empty() {
                continue;
            }
            let doing = || format!("the records of source {origin} cannot be read");
            let parts = base.live_at(&format!("records/{origin}"), &rows).doing(doing)?;
            for ((chunk, rows), part) in chunks.into_iter().zip(rows.into_values()).zip(parts) {
                give(chunk, part.doing(doing)?.batch, rows);
            }
        }
        Ok(())
    }
}

/// What comes of reading segments that no generation has taken in: against a damage there no rollback helps.
fn pulled<T>(read: Result<T, GenerationError>) -> Result<T, Failure> {
    let sweep = "with `--sweep SOURCE` where it is incremental";
    let help = format!("`reunion verify` says which; read the source anew: `reunion once`, {sweep}");
    read.doing(|| "the segments of a pull cannot be read".to_owned()).map_err(|failure| failure.help(help))
}

fn take(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, Failure> {
    if rows.len() == batch.num_rows() {
        return Ok(batch.clone());
    }
    take_record_batch(batch, &UInt32Array::from(rows.to_vec())).doing(|| "rows cannot be taken out of a batch".to_owned())
}
