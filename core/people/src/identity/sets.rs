//! Which records are one member: sets of records that are joined.

use std::ops::Range;

use reunion_model::threads::{each_once, on_all_cores};
use reunion_model::{Decision, Reason, RecordKey};

use super::apart::{Apart, Constraints};
use super::decided::Decisions;
use super::held::Known;
use super::keys::{KeyColumns, KeyRow, Rule};
use super::phones::{Hints, Holders};
use super::{HASHES_PER_THREAD_MIN, IdentityConfig};
use crate::numbering::{Keys, Numbering, number};
use crate::pull::Resolved;
use crate::table::{NO_MOMENT, NONE, StateError, byte_of};
use reunion_keys::Lookup;

/// Sets that one thread orders at a time.
const SETS_OF_A_SHARE: usize = 1 << 14;

/// Records by member: usable ones that are not in quarantine.
pub(super) struct Sets {
    /// Where each set begins; one more than there are sets.
    pub(super) starts: Vec<u32>,
    /// Records, those of a set together, the most recent first.
    pub(super) records: Vec<u32>,
    /// The place of each one's row: chunk, and row in it.
    pub(super) places: Vec<(u32, u32)>,
    /// The row that founds each set.
    pub(super) founding: Vec<u32>,
    /// What its id is made of.
    pub(super) founded: Founded,
    /// The set of each record of the run; `NONE` where it is in none.
    pub(super) set_of: Vec<u32>,
    /// Records of numbers that have had several holders, and with which record the number came to theirs.
    pub(super) held: Vec<(u32, Option<u128>)>,
    /// Records of such numbers, and whether the number is somebody else's now.
    pub(super) handed_on: Vec<(u32, bool)>,
}

/// The founding records of sets.
#[derive(Default)]
pub(super) struct Founded {
    pub(super) keys: Vec<RecordKey>,
    /// Their created_at in microseconds, or `NO_MOMENT`.
    pub(super) at: Vec<i64>,
}

impl Sets {
    pub(super) fn len(&self) -> usize {
        self.founding.len()
    }

    pub(super) fn range(&self, set: usize) -> Range<usize> {
        self.starts[set] as usize..self.starts[set + 1] as usize
    }
}

/// Sets aside records on shared phones and joins the others.
pub(super) fn join(
    resolved: &Resolved,
    config: &IdentityConfig,
    lookup: &Lookup,
    decided: &[Decision],
    known: &Known,
    reasons: &mut [u8],
) -> Result<Sets, StateError> {
    let usable = (0..resolved.live.len()).filter(|record| resolved.live[*record] != NONE && reasons[*record] == 0);
    let mut usable = usable.map(|record| record as u32).collect::<Vec<_>>();
    let hints = Hints::new(resolved.input.chunks, lookup)?;
    let mut holders = Holders::new(resolved, &hints, &config.shared_phone, &usable, known, reasons);
    keep(&mut usable, &mut holders.of);
    let keys = KeyColumns::new(resolved.input.chunks, config, lookup)?;
    let nodes = Nodes { resolved, keys: &keys, records: &usable, holders: &holders.of };
    let (mut root_of, roots) = roots(&nodes, config, decided, holders.is_former.len());
    set_aside_former(&nodes, &holders, &mut root_of, roots, reasons);
    keep(&mut usable, &mut root_of);
    Ok(Sets { held: holders.held, handed_on: holders.handed_on, ..lay_out(resolved, &usable, &root_of, roots) })
}

/// Drops the records that are set aside: those whose value is `NONE`.
fn keep(records: &mut Vec<u32>, values: &mut Vec<u32>) {
    if values.iter().all(|value| *value != NONE) {
        return;
    }
    let mut of_record = values.iter();
    records.retain(|_| of_record.next() != Some(&NONE));
    values.retain(|value| *value != NONE);
}

/// The records that are joined, each a node, by its place.
pub(super) struct Nodes<'a> {
    pub(super) resolved: &'a Resolved<'a>,
    pub(super) keys: &'a KeyColumns,
    /// The record of each node.
    pub(super) records: &'a [u32],
    /// The holder of its phone.
    pub(super) holders: &'a [u32],
}

impl Nodes<'_> {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn row(&self, node: u32) -> u32 {
        self.resolved.live[self.records[node as usize] as usize]
    }

    pub(super) fn key_row(&self, node: u32) -> KeyRow {
        let row = self.row(node);
        let (chunk, row) = self.resolved.rows.locate(row);
        KeyRow { chunk, row, phone: self.resolved.rows.phone_at(chunk, row) }
    }

    pub(super) fn value(&self, rule: &Rule, node: u32) -> Option<u128> {
        self.keys.value(rule, self.key_row(node))
    }
}

/// For each node a number below the second value that says which set it is of.
fn roots(nodes: &Nodes, config: &IdentityConfig, decided: &[Decision], holders: usize) -> (Vec<u32>, usize) {
    let rules = nodes.keys.rules.iter().filter(|rule| !rule.is_phone() && nodes.keys.may_join(rule)).collect::<Vec<_>>();
    let joins_by_phone = nodes.keys.rules.iter().any(Rule::is_phone);
    let decisions = Decisions::new(decided, nodes);
    // Where nothing but the phone joins records, a holder is a set.
    if joins_by_phone && rules.is_empty() && decisions.is_empty() {
        return (nodes.holders.to_vec(), holders);
    }
    // Where the phone joins, all records of a holder are one from the start.
    let own = if joins_by_phone { Vec::new() } else { (0..nodes.len() as u32).collect() };
    let (unit_of, units) = if joins_by_phone { (nodes.holders, holders) } else { (&own[..], nodes.len()) };
    let mut groups = UnionFind::new(units);
    for (one, other) in &decisions.same {
        groups.join(unit_of[*one as usize], unit_of[*other as usize]);
    }
    let mut generic = Vec::new();
    for rule in rules {
        generic.extend(join_by(nodes, rule, unit_of, &mut groups));
    }
    let mut root_of = on_all_cores(unit_of, HASHES_PER_THREAD_MIN, |unit| groups.root_of(*unit));
    drop((own, groups));
    let constraints = Constraints::new(nodes, config, decisions, generic);
    let roots = Apart::find(&constraints, &root_of, units).map_or(units, |apart| apart.separate(&constraints, &mut root_of, units));
    (root_of, roots)
}

/// Joins the units of nodes that share a value of a rule. Gives the values that too many share, which join nobody.
fn join_by(nodes: &Nodes, rule: &Rule, unit_of: &[u32], groups: &mut UnionFind) -> Vec<u128> {
    let shares = (0..nodes.len() as u32).step_by(HASHES_PER_THREAD_MIN).collect::<Vec<_>>();
    let shares = on_all_cores(&shares, 1, |from| {
        let all = *from..(from + HASHES_PER_THREAD_MIN as u32).min(nodes.len() as u32);
        all.filter_map(|node| Some((node, nodes.value(rule, node)?))).unzip::<u32, u128, Vec<_>, Vec<_>>()
    });
    let (having, values): (Vec<_>, Vec<_>) = shares.into_iter().unzip();
    let (having, values) = (having.concat(), values.concat());
    let Numbering { of, first } = number(&[Keys::Wide(&values)]);
    let mut records = vec![0_u32; first.len()];
    of.iter().for_each(|value| records[*value as usize] += 1);
    for (node, value) in having.iter().zip(of) {
        let first = having[first[value as usize] as usize];
        if first != *node && records[value as usize] <= rule.records_max {
            groups.join(unit_of[first as usize], unit_of[*node as usize]);
        }
    }
    let generic = (0..first.len()).filter(|value| records[*value] > rule.records_max);
    generic.map(|value| values[first[value] as usize]).collect()
}

/// Sets aside the records of members whose phone is somebody else's now: nobody can be reached there.
fn set_aside_former(nodes: &Nodes, holders: &Holders, root_of: &mut [u32], roots: usize, reasons: &mut [u8]) {
    let is_former = |node: usize| holders.is_former[nodes.holders[node] as usize];
    if !(0..nodes.len()).any(is_former) {
        return;
    }
    let mut has_former = vec![false; roots];
    (0..nodes.len()).filter(|node| is_former(*node)).for_each(|node| has_former[root_of[node] as usize] = true);
    // A member's phone is that of its most recent record.
    let mut latest = vec![NONE; roots];
    for node in (0..nodes.len() as u32).filter(|node| has_former[root_of[*node as usize] as usize]) {
        let held = &mut latest[root_of[node as usize] as usize];
        if *held == NONE || nodes.resolved.is_more_recent(nodes.row(node), nodes.row(*held)).is_lt() {
            *held = node;
        }
    }
    for node in 0..nodes.len() {
        let latest = latest[root_of[node] as usize];
        if latest != NONE && is_former(latest as usize) {
            root_of[node] = NONE;
            reasons[nodes.records[node] as usize] = byte_of(Reason::PhoneRecycled);
        }
    }
}

/// Puts the records of each set together. `root_of` says by a number below `roots` which set a record is of.
fn lay_out(resolved: &Resolved, usable: &[u32], root_of: &[u32], roots: usize) -> Sets {
    let mut set_of_root = vec![NONE; roots];
    let mut set_of = vec![NONE; resolved.live.len()];
    let mut starts = vec![0_u32];
    for (record, root) in usable.iter().zip(root_of) {
        let set = &mut set_of_root[*root as usize];
        if *set == NONE {
            *set = starts.len() as u32 - 1;
            starts.push(0);
        }
        starts[*set as usize + 1] += 1;
        set_of[*record as usize] = *set;
    }
    for set in 1..starts.len() {
        starts[set] += starts[set - 1];
    }
    let mut cursor = starts.clone();
    let mut records = vec![0; usable.len()];
    for record in usable {
        let place = &mut cursor[set_of[*record as usize] as usize];
        records[*place as usize] = *record;
        *place += 1;
    }
    drop(cursor);
    let count = starts.len() - 1;
    let mut sets = Sets {
        places: vec![(NONE, 0); records.len()],
        records,
        founding: vec![NONE; count],
        founded: Founded { keys: vec![RecordKey::from_u128(0); count], at: vec![NO_MOMENT; count] },
        starts,
        set_of,
        held: Vec::new(),
        handed_on: Vec::new(),
    };
    each_once(sets.shares(), |share| share.order(resolved));
    sets
}

impl Sets {
    /// All of them in shares, each of sets that lie together.
    fn shares(&mut self) -> Vec<Share<'_>> {
        let (mut records, mut places) = (&mut self.records[..], &mut self.places[..]);
        let (mut founding, mut keys, mut at) = (&mut self.founding[..], &mut self.founded.keys[..], &mut self.founded.at[..]);
        let mut shares = Vec::new();
        for from in (0..self.starts.len() - 1).step_by(SETS_OF_A_SHARE) {
            let bounds = &self.starts[from..self.starts.len().min(from + SETS_OF_A_SHARE + 1)];
            let (sets, of_sets) = (bounds.len() - 1, (bounds[bounds.len() - 1] - bounds[0]) as usize);
            shares.push(Share {
                bounds,
                records: cut_off(&mut records, of_sets),
                places: cut_off(&mut places, of_sets),
                founding: cut_off(&mut founding, sets),
                keys: cut_off(&mut keys, sets),
                at: cut_off(&mut at, sets),
            });
        }
        shares
    }
}

/// The first values of a slice, which is left without them.
fn cut_off<'a, T>(slice: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    let (first, rest) = std::mem::take(slice).split_at_mut(count);
    *slice = rest;
    first
}

/// Some sets, to be put in order: values for each of them, and for each of their records.
struct Share<'a> {
    /// Where each set begins, and the end of the last.
    bounds: &'a [u32],
    records: &'a mut [u32],
    places: &'a mut [(u32, u32)],
    founding: &'a mut [u32],
    keys: &'a mut [RecordKey],
    at: &'a mut [i64],
}

impl Share<'_> {
    /// Orders the records of each set, and finds who founds it.
    fn order(self, resolved: &Resolved) {
        let row = |record: &u32| resolved.live[*record as usize];
        for (set, bounds) in self.bounds.windows(2).enumerate() {
            let records = &mut self.records[(bounds[0] - self.bounds[0]) as usize..(bounds[1] - self.bounds[0]) as usize];
            if records.len() > 1 {
                records.sort_unstable_by(|a, b| resolved.is_more_recent(row(a), row(b)));
            }
            // A set has a record.
            let founder = records.iter().map(row).min_by(|a, b| resolved.founding_order(*a, *b)).unwrap_or(NONE);
            self.founding[set] = founder;
            self.keys[set] = RecordKey::from_u128(resolved.rows.key(founder));
            self.at[set] = resolved.rows.created(founder).unwrap_or(NO_MOMENT);
        }
        for (place, record) in self.places.iter_mut().zip(&*self.records) {
            let (chunk, row) = resolved.rows.locate(row(record));
            *place = (chunk as u32, row as u32);
        }
    }
}

/// Disjoint sets of numbers, joined by size with paths halved.
pub(super) struct UnionFind {
    parent: Vec<u32>,
    size: Vec<u32>,
}

impl UnionFind {
    pub(super) fn new(nodes: usize) -> Self {
        Self { parent: (0..nodes as u32).collect(), size: vec![1; nodes] }
    }

    pub(super) fn root(&mut self, mut node: u32) -> u32 {
        while self.parent[node as usize] != node {
            let above = self.parent[self.parent[node as usize] as usize];
            self.parent[node as usize] = above;
            node = above;
        }
        node
    }

    /// The same, where the paths are left as they are.
    fn root_of(&self, mut node: u32) -> u32 {
        while self.parent[node as usize] != node {
            node = self.parent[node as usize];
        }
        node
    }

    /// Joins the sets of two nodes; gives the root that stays and the one that goes, where they were two.
    pub(super) fn join(&mut self, a: u32, b: u32) -> Option<(u32, u32)> {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return None;
        }
        let (large, small) = if self.size[a as usize] >= self.size[b as usize] { (a, b) } else { (b, a) };
        self.parent[small as usize] = large;
        self.size[large as usize] += self.size[small as usize];
        Some((large, small))
    }
}
