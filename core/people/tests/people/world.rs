//! A state in memory, kept as the daemon keeps it, and sources made of rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::take_record_batch;
use arrow::datatypes::{TimestampMicrosecondType, UInt64Type};
use reunion_keys::{KeyRing, Lookup, MasterKey};
use reunion_model::schema::ColumnType;
use reunion_model::{Decision, DecisionId, DecisionKind, MemberId, RecordKey};
use reunion_people::*;

/// One row of a source, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub id: String,
    pub phone: String,
    pub name: String,
    pub unionid: String,
    pub updated: String,
    pub created: String,
    pub ordered: String,
    pub born: String,
    pub spent: String,
    pub orders: String,
    pub consent: String,
    pub consent_at: String,
    pub evidence: String,
    pub complaint: String,
}

pub fn row(id: &str, phone: &str) -> Row {
    Row { id: id.into(), phone: phone.into(), ..Row::default() }
}

impl Row {
    pub fn with(mut self, set: impl FnOnce(&mut Self)) -> Self {
        set(&mut self);
        self
    }
}

/// A moment as text, `day` days after 2026-01-01.
pub fn day(day: u32) -> String {
    format!("2026-{:02}-{:02} 00:00:00Z", 1 + day / 28, 1 + day % 28)
}

pub fn lookup() -> Lookup {
    let master = MasterKey::from_hex(&"07".repeat(32)).unwrap();
    KeyRing::create(&master).unwrap().0.lookup().clone()
}

const DAY_US: i64 = 86_400_000_000;

/// Keys of one column each, or of several with a plus between them.
pub fn config(keys: &[&str], cards_max: u32, policy: SharedPhonePolicy) -> IdentityConfig {
    IdentityConfig {
        keys: keys.iter().map(|key| key.split('+').map(str::to_owned).collect()).collect(),
        limits: BTreeMap::new(),
        shared_phone: SharedPhone { cards_max, same_name_cards_max: 10, recycled_after_us: Some(120 * DAY_US), policy },
    }
}

pub fn plan() -> GoldenPlan {
    let columns =
        ["name", "created_at", "updated_at", "order_count", "total_spent", "sms_consent", "sms_consent_at", "sms_consent_evidence"];
    let mut columns = columns.iter().map(|name| GoldenColumn::canonical(name).unwrap()).collect::<Vec<_>>();
    columns.push(GoldenColumn::further("unionid", ColumnType::Text));
    GoldenPlan::new(columns).unwrap()
}

fn normaliser(source: &str, keyed: bool) -> Normaliser {
    let record_id = if keyed { RecordIdRule::Key(vec!["phone".into()]) } else { RecordIdRule::Column("id".into()) };
    let columns = [
        ("phone", "phone", ColumnType::Text),
        ("name", "name", ColumnType::Text),
        ("unionid", "unionid", ColumnType::Text),
        ("updated_at", "updated", ColumnType::Timestamp),
        ("created_at", "created", ColumnType::Timestamp),
        ("last_order_at", "ordered", ColumnType::Timestamp),
        ("birthday", "born", ColumnType::Date),
        ("total_spent", "spent", ColumnType::Decimal),
        ("order_count", "orders", ColumnType::Integer),
        ("sms_consent", "consent", ColumnType::Text),
        ("sms_consent_at", "consent_at", ColumnType::Timestamp),
        ("sms_consent_evidence", "evidence", ColumnType::Text),
        ("open_complaint", "complaint", ColumnType::Boolean),
    ];
    let columns = columns.map(|(to, from, kind)| Mapping::new(to, from, kind)).to_vec();
    let plan = SourcePlan { source: source.into(), record_id, columns, timezone: jiff::tz::TimeZone::UTC };
    Normaliser::new(plan, PhoneRules::default(), lookup(), &batch(&[]).schema()).unwrap()
}

fn batch(rows: &[Row]) -> RecordBatch {
    type Pick = fn(&Row) -> &str;
    let columns: [(&str, Pick); 14] = [
        ("id", |row| &row.id),
        ("phone", |row| &row.phone),
        ("name", |row| &row.name),
        ("unionid", |row| &row.unionid),
        ("updated", |row| &row.updated),
        ("created", |row| &row.created),
        ("ordered", |row| &row.ordered),
        ("born", |row| &row.born),
        ("spent", |row| &row.spent),
        ("orders", |row| &row.orders),
        ("consent", |row| &row.consent),
        ("consent_at", |row| &row.consent_at),
        ("evidence", |row| &row.evidence),
        ("complaint", |row| &row.complaint),
    ];
    let column =
        |pick: Pick| Arc::new(rows.iter().map(|row| Some(pick(row)).filter(|text| !text.is_empty())).collect::<StringArray>()) as ArrayRef;
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, pick)| (name, column(pick), true))).unwrap()
}

/// What a source gives in one pull.
#[derive(Debug, Clone)]
pub struct Given {
    pub source: &'static str,
    pub rows: Vec<Row>,
    pub snapshot: bool,
    pub keyed: bool,
    /// The source says that all of them are as they were, and gives none.
    pub confirms: bool,
    /// Rows of one batch.
    pub cut: usize,
}

pub fn snapshot(source: &'static str, rows: &[Row]) -> Given {
    Given { source, rows: rows.to_vec(), snapshot: true, keyed: false, confirms: false, cut: 3 }
}

pub fn increment(source: &'static str, rows: &[Row]) -> Given {
    Given { snapshot: false, ..snapshot(source, rows) }
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    pub counts: BTreeMap<String, SourceCounts>,
    pub deletions: BTreeMap<String, Deletions>,
    pub new: u64,
    pub changed: u64,
    pub removed: Vec<MemberId>,
    pub merges: Vec<(MemberId, MemberId)>,
    pub splits: Vec<(MemberId, MemberId)>,
    pub assignments: usize,
    pub restored: usize,
    pub dirty: usize,
    pub overflows: Vec<(String, u64)>,
}

/// The state between runs.
pub struct World {
    pub config: IdentityConfig,
    pub decisions: Vec<Decision>,
    /// The records of decisions that were made or withdrawn since the last run.
    pub decided: Vec<RecordKey>,
    /// Whether a run decides only what can change.
    pub narrows: bool,
    pub plan: GoldenPlan,
    sources: Vec<String>,
    /// Source name and batch, oldest to newest.
    chunks: Vec<(String, RecordBatch)>,
    assignments: BTreeMap<RecordKey, RecordBatch>,
    members: BTreeMap<MemberId, RecordBatch>,
    forwarded: Vec<MemberId>,
    pub held: Vec<Held>,
}

/// Each record, as `source/id`, with its member or its reason.
pub type Outcomes = BTreeMap<String, Result<MemberId, String>>;

/// A member as tests compare it: its golden columns by name.
pub type Columns = BTreeMap<String, Option<String>>;

impl World {
    pub fn new(config: IdentityConfig) -> Self {
        Self {
            config,
            decisions: Vec::new(),
            decided: Vec::new(),
            narrows: true,
            plan: plan(),
            sources: Vec::new(),
            chunks: Vec::new(),
            assignments: BTreeMap::new(),
            members: BTreeMap::new(),
            forwarded: Vec::new(),
            held: Vec::new(),
        }
    }

    pub fn merging() -> Self {
        Self::new(config(&["phone", "unionid"], 5, SharedPhonePolicy::Merge))
    }

    /// One run over these pulls, oldest to newest.
    pub fn run(&mut self, given: &[Given]) -> Done {
        for given in given {
            if !self.sources.iter().any(|source| source == given.source) {
                self.sources.push(given.source.to_owned());
            }
        }
        let index = |name: &str, sources: &[String]| sources.iter().position(|source| source == name).unwrap() as u16;
        let previous_chunks = self.chunks.len();
        let mut pulls = Vec::new();
        let live = self.live_batches();
        for given in given {
            if given.confirms {
                let source = index(given.source, &self.sources);
                pulls.push(Pull { source, confirms: true, keyed: given.keyed, ..Pull::default() });
                continue;
            }
            let normaliser = normaliser(given.source, given.keyed);
            let known = Known::new(live.iter().filter(|(source, _)| source == given.source).map(|(_, batch)| batch)).unwrap();
            let from = self.chunks.len();
            let mut seen = Vec::new();
            for rows in given.rows.chunks(given.cut) {
                let split = normaliser.split(&batch(rows), &known).unwrap();
                seen.extend(split.seen);
                self.chunks.push((given.source.to_owned(), split.changed.records));
            }
            pulls.push(Pull {
                source: index(given.source, &self.sources),
                chunks: from..self.chunks.len(),
                seen,
                complete_snapshot: given.snapshot,
                confirms: false,
                keyed: given.keyed,
            });
        }
        let wanted = index_columns(&self.config);
        let chunks = self.chunks.iter().map(|(source, batch)| {
            let columns = batch
                .schema()
                .fields()
                .iter()
                .enumerate()
                .filter(|(_, field)| wanted.contains(field.name()))
                .map(|(at, _)| at)
                .collect::<Vec<_>>();
            Chunk { source: index(source, &self.sources), batch: batch.project(&columns).unwrap() }
        });
        let chunks = chunks.collect::<Vec<_>>();
        let assignments = self.assignments.values().cloned().collect::<Vec<_>>();
        let members = self.members.values().cloned().collect::<Vec<_>>();
        let settled = Settled::default();
        let all = PullInput {
            sources: &self.sources,
            chunks: &chunks,
            previous_chunks,
            pulls: &pulls,
            assignments: &assignments,
            settled: &settled,
        };
        let scope = if self.narrows { narrow(&all, &members, &self.config, &self.decided, &lookup(), 1.0).unwrap() } else { None };
        let chunks_in = scope.iter().flat_map(|scope| &scope.rows).zip(&chunks).map(|(rows, Chunk { source, batch })| Chunk {
            source: *source,
            batch: take_record_batch(batch, &arrow::array::UInt32Array::from(rows.clone())).unwrap(),
        });
        let chunks_in = chunks_in.chain(chunks[previous_chunks..].iter().cloned()).collect::<Vec<_>>();
        let (input, members_in) = match &scope {
            None => (all, &members),
            Some(Scope { pulls, assignments, members, settled, .. }) => {
                (PullInput { chunks: &chunks_in, pulls, assignments, settled, ..all }, members)
            }
        };
        let resolved = Resolved::new(input).unwrap();
        let deletions = self.sources.iter().cloned().zip(resolved.deletions().iter().copied()).collect();
        let previous = PreviousMembers { members: members_in, everyone: &members, forwarded: &self.forwarded, held: &self.held };
        let (mut identified, assignments) = identify(resolved, &self.config, &self.decisions, &lookup(), previous, false).unwrap();
        let place = |chunk: usize, row: u32| match &scope {
            Some(scope) if chunk < previous_chunks => scope.rows[chunk][row as usize],
            _ => row,
        };
        let loaded = identified.rows_needed().into_iter().zip(&self.chunks).enumerate().map(|(chunk, (rows, (_, batch)))| {
            let places = rows.iter().map(|row| place(chunk, *row)).collect::<Vec<_>>();
            let picked = take_record_batch(batch, &arrow::array::UInt32Array::from(places)).unwrap();
            (!rows.is_empty()).then_some(Loaded { batch: picked, rows: Some(rows) })
        });
        let mut members = Vec::new();
        let give = |batch| members.push(batch);
        let golden = golden(&self.plan, &lookup(), &self.sources, &identified, loaded.collect(), give).unwrap();
        identified.restore.iter_mut().for_each(|(chunk, row)| *row = place(*chunk as usize, *row));
        self.apply(&identified, &assignments, &members);
        let outside = scope.as_ref().map_or(0, |scope| scope.members_outside);
        assert_eq!(self.members.len() as u64, identified.members.len() as u64 + outside);
        Done {
            counts: self.sources.iter().cloned().zip(identified.counts).collect(),
            deletions,
            new: golden.new,
            changed: golden.changed,
            removed: identified.removed,
            merges: identified.merges,
            splits: identified.splits,
            assignments: assignments.len(),
            restored: identified.restore.len(),
            dirty: identified.dirty.len(),
            overflows: golden.overflows,
        }
    }

    fn key_of(&self, record: &str) -> RecordKey {
        let found = self
            .live_batches()
            .into_iter()
            .find(|(source, batch)| format!("{source}/{}", batch.column(2).as_string::<i32>().value(0)) == record);
        RecordKey::from_slice(found.expect("the record is there").1.column(0).as_fixed_size_binary().value(0)).unwrap()
    }

    /// An operator's decision about records.
    pub fn decide(&mut self, kind: DecisionKind, left: &[&str], right: &[&str]) {
        let keys = |records: &[&str]| records.iter().map(|record| self.key_of(record)).collect::<Vec<_>>();
        let (left, right) = (keys(left), keys(right));
        self.decided.extend(left.iter().chain(&right));
        self.decisions.push(Decision { id: DecisionId::from_u128(self.decisions.len() as u128), kind, left, right });
    }

    pub fn withdraw_all(&mut self) {
        self.decisions.clear();
    }

    fn apply(&mut self, identified: &Identified, assignments: &Assignments, members: &[RecordBatch]) {
        for (chunk, row) in &identified.restore {
            let (source, batch) = &self.chunks[*chunk as usize];
            self.chunks.push((source.clone(), batch.slice(*row as usize, 1)));
        }
        for key in identified.tombstones.iter().flatten() {
            self.assignments.remove(key);
        }
        for one in assignments.batches().flat_map(|batch| (0..batch.num_rows()).map(move |row| batch.slice(row, 1))) {
            let key = RecordKey::from_slice(one.column(0).as_fixed_size_binary().value(0)).unwrap();
            self.assignments.insert(key, one);
        }
        for id in &identified.removed {
            assert!(self.members.remove(id).is_some(), "a member that is removed was there");
        }
        for batch in members {
            for (row, id) in golden_ids(batch).into_iter().enumerate() {
                self.members.insert(id, batch.slice(row, 1));
            }
        }
        let (before, after): (BTreeSet<_>, BTreeSet<_>) = (self.held.iter().collect(), identified.held.all.iter().collect());
        assert_eq!(after.difference(&before).copied().copied().collect::<Vec<_>>(), identified.held.new);
        assert_eq!(before.difference(&after).copied().copied().collect::<Vec<_>>(), identified.held.gone);
        self.held.clone_from(&identified.held.all);
        assert!(self.held.iter().all(|held| self.members.contains_key(&held.member)), "whoever holds a number is a member");
        self.forwarded.extend(identified.merges.iter().map(|(from, _)| *from));
        assert!(identified.members.ids.iter().all(|id| self.members.contains_key(id)));
    }

    /// The last version of every live record.
    fn live_batches(&self) -> Vec<(String, RecordBatch)> {
        let mut last = BTreeMap::new();
        for (source, batch) in &self.chunks {
            for row in 0..batch.num_rows() {
                let one = batch.slice(row, 1);
                let key = RecordKey::from_slice(one.column(0).as_fixed_size_binary().value(0)).unwrap();
                if self.assignments.contains_key(&key) {
                    last.insert(key, (source.clone(), one));
                }
            }
        }
        last.into_values().collect()
    }

    /// The rows of a pull that count now, found by their phone, unionid and name among those given.
    pub fn live_rows(&self, given: &Given) -> Vec<Row> {
        let normaliser = normaliser(given.source, given.keyed);
        let live = self
            .live_batches()
            .into_iter()
            .map(|(_, batch)| batch.column(1).as_fixed_size_binary().value(0).to_vec())
            .collect::<BTreeSet<_>>();
        let mut rows = BTreeMap::new();
        for row in &given.rows {
            let records = normaliser.batch(&batch(std::slice::from_ref(row))).unwrap().records;
            if live.contains(records.column(1).as_fixed_size_binary().value(0)) {
                rows.insert(row.id.clone(), row.clone());
            }
        }
        rows.into_values().collect()
    }

    /// Every record, as `source/id`, with its member or its reason.
    pub fn records(&self) -> Outcomes {
        let live = self.live_batches().into_iter().map(|(source, batch)| {
            let key = RecordKey::from_slice(batch.column(0).as_fixed_size_binary().value(0)).unwrap();
            let assignment = &self.assignments[&key];
            let member = assignment.column(1).as_fixed_size_binary();
            let outcome = if member.is_valid(0) {
                Ok(MemberId::from_slice(member.value(0)).unwrap())
            } else {
                Err(assignment.column(2).as_string::<i32>().value(0).to_owned())
            };
            (format!("{source}/{}", batch.column(2).as_string::<i32>().value(0)), outcome)
        });
        live.collect()
    }

    pub fn member_of(&self, record: &str) -> MemberId {
        self.records()[record].clone().unwrap_or_else(|reason| panic!("{record} is in quarantine for {reason}"))
    }

    /// The golden columns of each member, by the set of its records.
    pub fn people(&self) -> BTreeMap<BTreeSet<String>, Columns> {
        let mut sets: BTreeMap<MemberId, BTreeSet<String>> = BTreeMap::new();
        for (record, member) in self.records() {
            if let Ok(member) = member {
                sets.entry(member).or_default().insert(record);
            }
        }
        assert_eq!(sets.len(), self.members.len(), "every member has records");
        sets.into_iter().map(|(id, records)| (records, columns(&self.members[&id], &HISTORY))).collect()
    }

    pub fn columns_of(&self, record: &str) -> Columns {
        columns(&self.members[&self.member_of(record)], &[])
    }

    /// Everything, ids included.
    pub fn all(&self) -> (Outcomes, BTreeMap<MemberId, Columns>, Vec<Held>) {
        (self.records(), self.members.iter().map(|(id, member)| (*id, columns(member, &[MASK]))).collect(), self.held.clone())
    }

    /// For the member of a record, with which record each number that has had several holders came to it.
    pub fn came_with(&self, record: &str) -> Vec<(String, Option<String>)> {
        let records = self.records().into_keys().map(|record| (self.key_of(&record), record)).collect::<BTreeMap<_, _>>();
        let of_member = self.held.iter().filter(|held| held.member == self.member_of(record));
        of_member.map(|held| (held.phone.e164_digits().to_string(), held.came_with.map(|key| records[&key].clone()))).collect()
    }

    /// Which holders of a number the member of a record is.
    pub fn holders(&self, record: &str, phone: &str) -> BTreeSet<Option<RecordKey>> {
        let member = self.member_of(record);
        let held = self.held.iter().filter(|held| held.member == member && held.phone.e164_digits().to_string() == phone);
        held.map(|held| held.came_with).collect()
    }

    /// The values of keys that do not join all who have them, of the member of a record.
    pub fn unused(&self, record: &str) -> Vec<Unused> {
        let own = self.batches_of(record);
        let own = own.iter().map(|(source, batch)| (source.as_str(), batch.clone())).collect::<Vec<_>>();
        let lookup = lookup();
        let mut census = Census::new(&self.config, &lookup, &own).unwrap();
        let fates = self.live_batches().into_iter().filter_map(|(_, batch)| {
            census.ask(&batch).unwrap();
            let key = RecordKey::from_slice(batch.column(0).as_fixed_size_binary().value(0)).unwrap();
            let (member, reason) = (self.assignments[&key].column(1), self.assignments[&key].column(2).as_string::<i32>());
            let of_member = || MemberId::from_slice(member.as_fixed_size_binary().value(0)).map(Fate::Member);
            let fate = if member.is_valid(0) { of_member() } else { (reason.value(0) == "phone_recycled").then_some(Fate::Former) };
            fate.map(|fate| (key, fate))
        });
        let fates = fates.collect::<BTreeMap<_, _>>();
        census.unused(self.member_of(record), |key| fates.get(key).copied())
    }

    /// Columns of which the members of these records would have too many values together.
    pub fn too_many(&self, records: [&str; 2]) -> Vec<String> {
        let batches = records.into_iter().flat_map(|record| self.batches_of(record)).map(|(_, batch)| batch).collect::<Vec<_>>();
        too_many_values(&self.config, &lookup(), &batches).unwrap().into_iter().map(|(column, ..)| column).collect()
    }

    /// Whether a decision keeps the members of these records apart.
    pub fn are_kept_apart(&self, records: [&str; 2]) -> bool {
        let members = records.map(|record| self.member_of(record));
        let of = self
            .records()
            .into_iter()
            .filter_map(|(record, member)| Some((self.key_of(&record), member.ok()?)))
            .collect::<BTreeMap<_, _>>();
        let has = |side: &[RecordKey], at: usize| side.iter().any(|key| of.get(key) == Some(&members[at]));
        let mut apart = self.decisions.iter().filter(|decision| decision.kind == DecisionKind::Apart);
        apart.any(|Decision { left, right, .. }| (has(left, 0) && has(right, 1)) || (has(left, 1) && has(right, 0)))
    }

    /// The records of a member with all columns, as `explain` takes them.
    pub fn batches_of(&self, record: &str) -> Vec<(String, RecordBatch)> {
        let member = self.member_of(record);
        let of_member = |batch: &RecordBatch| {
            let key = RecordKey::from_slice(batch.column(0).as_fixed_size_binary().value(0)).unwrap();
            let ids = self.assignments[&key].column(1).as_fixed_size_binary();
            ids.is_valid(0) && ids.value(0) == member.0
        };
        self.live_batches().into_iter().filter(|(_, batch)| of_member(batch)).collect()
    }
}

fn golden_ids(members: &RecordBatch) -> Vec<MemberId> {
    members.column(0).as_fixed_size_binary().iter().map(|id| MemberId::from_slice(id.unwrap()).unwrap()).collect()
}

/// Depends on the order in which sources came.
const MASK: &str = "source_mask";
/// Depend on what the member was before.
const HISTORY: [&str; 5] = [MASK, "member_id", "founding", "founded_at", "epoch"];

/// The columns of a member but those to be skipped, as text.
fn columns(member: &RecordBatch, skipped: &[&str]) -> Columns {
    let schema = member.schema();
    let columns = schema.fields().iter().zip(member.columns()).filter(|(field, _)| !skipped.contains(&field.name().as_str()));
    columns.map(|(field, array)| (field.name().clone(), shown(array))).collect()
}

fn shown(array: &ArrayRef) -> Option<String> {
    array.is_valid(0).then(|| match array.data_type() {
        arrow::datatypes::DataType::Timestamp(..) => {
            let moment = array.as_primitive::<TimestampMicrosecondType>().value(0);
            jiff::Timestamp::from_microsecond(moment).unwrap().to_string()
        }
        arrow::datatypes::DataType::UInt64 => array.as_primitive::<UInt64Type>().value(0).to_string(),
        _ => arrow::util::display::array_value_to_string(array, 0).unwrap(),
    })
}
