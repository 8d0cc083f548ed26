//! Which rows are compared at all: those that share a blocking key.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::plan::{BlockingKey, KeyPart, Part, Plan};
use crate::table::{MISSING, Table};

/// In no block.
const NO_BLOCK: u32 = 0;

/// What became of one blocking key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// Its place in the plan, from 0.
    pub key: usize,
    /// Blocks of two rows or more, as they were compared.
    pub blocks: usize,
    /// Pairs in them.
    pub pairs: u64,
    /// Rows that lack a part of the key.
    pub rows_without_key: usize,
    /// Blocks that were too large, and were cut finer by further columns.
    pub blocks_too_large: usize,
    /// Rows of those blocks that lack a column by which they were cut, and so were not compared in them.
    pub rows_not_refined: usize,
    /// What was too large still when no column was left: these rows were not compared in this key.
    pub blocks_skipped: usize,
    /// Rows in those.
    pub rows_skipped: usize,
}

/// What became of the blocking keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockingReport {
    /// By blocking key.
    pub keys: Vec<KeyReport>,
    /// Pairs that a block could have: the plan's, or fewer where that would have been too many in all.
    pub pairs_per_block_max: u64,
}

/// The blocks of all keys.
pub(crate) struct Blocking {
    keys: Vec<Blocks>,
    /// Of each rank its blocks, one for each key, so that what is asked of a row lies together.
    of_rows: Vec<u32>,
    pub report: BlockingReport,
}

/// The blocks of one key.
struct Blocks {
    /// The ranks, block by block, in their order.
    rows: Vec<u32>,
    /// Where each block ends in `rows`.
    ends: Vec<usize>,
    /// Of each block a number that depends on its key alone, and whether it is the key as the plan has it.
    marks: Vec<(u64, bool)>,
}

/// Some blocks of one key that lie together.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    key: usize,
    blocks: std::ops::Range<usize>,
}

impl Blocking {
    /// `None` where the table was not read by this plan.
    pub(crate) fn new(table: &Table, plan: &Plan) -> Option<Self> {
        let mut limit = plan.limits.pairs_per_block_max;
        loop {
            let mut of_rows = vec![NO_BLOCK; table.rows() * plan.blocking.len()];
            let (mut keys, mut reports) = (Vec::new(), Vec::new());
            for (at, key) in plan.blocking.iter().enumerate() {
                let (blocks, report) = Blocks::new(table, plan, at, key, limit)?;
                for block in 0..blocks.ends.len() {
                    for row in blocks.rows_of(block) {
                        of_rows[*row as usize * plan.blocking.len() + at] = block as u32 + 1;
                    }
                }
                keys.push(blocks);
                reports.push(report);
            }
            let pairs: u64 = reports.iter().map(|report| report.pairs).sum();
            if pairs <= plan.limits.pairs_max || limit == 0 {
                return Some(Self { keys, of_rows, report: BlockingReport { keys: reports, pairs_per_block_max: limit } });
            }
            limit /= 2;
        }
    }

    /// All blocks, in shares of about as many pairs each.
    pub(crate) fn shares(&self) -> Vec<Share> {
        /// Some milliseconds of work.
        const PAIRS: u64 = 1 << 16;
        let mut shares = Vec::new();
        for (key, blocks) in self.keys.iter().enumerate() {
            let (mut start, mut pairs) = (0, 0);
            for block in 0..blocks.ends.len() {
                let rows = blocks.rows_of(block).len() as u64;
                pairs += rows * (rows - 1) / 2;
                if pairs >= PAIRS || block + 1 == blocks.ends.len() {
                    shares.push(Share { key, blocks: start..block + 1 });
                    (start, pairs) = (block + 1, 0);
                }
            }
        }
        shares
    }

    /// Every pair of a share that no earlier key brings together, the smaller rank first; only those with a row that
    /// `wanted` is true of.
    pub(crate) fn pairs(&self, table: &Table, share: &Share, wanted: Option<&[bool]>, mut take: impl FnMut(u32, u32)) {
        let earlier = |row: u32| &self.of_rows[row as usize * self.keys.len()..][..share.key];
        let together = |(a, b): (&u32, &u32)| a == b && *a != NO_BLOCK;
        let known = |a: u32, b: u32| earlier(a).iter().zip(earlier(b)).any(together);
        for block in share.blocks.clone() {
            let rows = self.keys[share.key].rows_of(block);
            for (at, &a) in rows.iter().enumerate() {
                let a_wanted = wanted.is_none_or(|wanted| wanted[a as usize]);
                for &b in &rows[at + 1..] {
                    if (a_wanted || wanted.is_some_and(|wanted| wanted[b as usize])) && table.comparable(a, b) && !known(a, b) {
                        take(a, b);
                    }
                }
            }
        }
    }

    /// Every pair of those blocks of a key that are as the plan has it, whatever other keys bring together: no more
    /// than about `pairs_max`, from blocks drawn by their keys.
    pub(crate) fn sample(&self, table: &Table, key: usize, pairs_max: u64, mut take: impl FnMut(u32, u32)) {
        let blocks = &self.keys[key];
        let pairs = self.report.keys[key].pairs.max(1);
        let cut = if pairs <= pairs_max { u64::MAX } else { (u128::from(u64::MAX) * u128::from(pairs_max) / u128::from(pairs)) as u64 };
        for (block, (mark, whole)) in blocks.marks.iter().enumerate() {
            if !whole || *mark > cut {
                continue;
            }
            let rows = blocks.rows_of(block);
            for (at, &a) in rows.iter().enumerate() {
                for &b in rows[at + 1..].iter().filter(|b| table.comparable(a, **b)) {
                    take(a, b);
                }
            }
        }
    }
}

impl Blocks {
    fn new(table: &Table, plan: &Plan, at: usize, key: &BlockingKey, limit: u64) -> Option<(Self, KeyReport)> {
        let mut hashes = vec![Some(0); table.rows()];
        for part in &key.parts {
            join(table, part, &mut hashes)?;
        }
        let rows_without_key = hashes.iter().filter(|hash| hash.is_none()).count();
        let mut report = KeyReport {
            key: at,
            blocks: 0,
            pairs: 0,
            rows_without_key,
            blocks_too_large: 0,
            rows_not_refined: 0,
            blocks_skipped: 0,
            rows_skipped: 0,
        };
        let mut groups = Groups::new(&hashes);
        let mut small = groups.take_small(table, limit, true);
        report.blocks_too_large = groups.large.len();
        // By the compared columns that the key does not have, whole: what strangers in a large block differ in.
        let whole = |column: &str| key.parts.iter().any(|part| part.part == Part::Whole && part.column == column);
        let finer = plan.comparisons.iter().filter(|comparison| !whole(&comparison.column));
        for comparison in finer {
            if groups.large.is_empty() {
                break;
            }
            let part = KeyPart { column: comparison.column.clone(), part: Part::Whole };
            let mut hashes = groups.hashes(table.rows());
            let before = hashes.iter().flatten().count();
            join(table, &part, &mut hashes)?;
            report.rows_not_refined += before - hashes.iter().flatten().count();
            groups = Groups::new(&hashes);
            small.extend(groups.take_small(table, limit, false));
        }
        report.blocks_skipped = groups.large.len();
        report.rows_skipped = groups.large.iter().map(|group| group.rows.len()).sum();
        report.blocks = small.len();
        report.pairs = small.iter().map(|group| pairs(table, &group.rows)).sum();
        let mut blocks = Self { rows: Vec::new(), ends: Vec::new(), marks: Vec::new() };
        for group in small {
            blocks.rows.extend(group.rows);
            blocks.ends.push(blocks.rows.len());
            blocks.marks.push((xxh3_64_with_seed(&group.hash.to_le_bytes(), 1), group.whole));
        }
        Some((blocks, report))
    }

    fn rows_of(&self, block: usize) -> &[u32] {
        &self.rows[if block == 0 { 0 } else { self.ends[block - 1] }..self.ends[block]]
    }
}

/// Adds a part to every row's hash; rows that lack it lose theirs. `None` where the table has no such column.
fn join(table: &Table, part: &KeyPart, hashes: &mut [Option<u64>]) -> Option<()> {
    let (at, column) = table.column(&part.column)?;
    let parts = column.parts(part.part, at as u64 + 1);
    for (hash, code) in hashes.iter_mut().zip(&column.codes) {
        let part = if *code == MISSING { None } else { parts[*code as usize] };
        *hash = hash.zip(part).map(|(hash, part)| xxh3_64_with_seed(&part.to_le_bytes(), hash));
    }
    Some(())
}

/// Pairs of these rows that can be compared.
fn pairs(table: &Table, rows: &[u32]) -> u64 {
    let of = |rows: u64| rows * rows.saturating_sub(1) / 2;
    let all = rows.len() as u64;
    match &table.sides {
        Some(sides) => {
            let right = rows.iter().filter(|row| sides[**row as usize]).count() as u64;
            of(all) - of(right) - of(all - right)
        }
        None => of(all),
    }
}

/// Rows with the same hash.
struct Group {
    hash: u64,
    rows: Vec<u32>,
    whole: bool,
}

/// Rows by their hashes: those that may be too many to be compared.
struct Groups {
    large: Vec<Group>,
}

impl Groups {
    fn new(hashes: &[Option<u64>]) -> Self {
        let mut sorted: Vec<(u64, u32)> = hashes.iter().enumerate().filter_map(|(row, hash)| hash.map(|hash| (hash, row as u32))).collect();
        sorted.sort_unstable();
        let groups = sorted.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
        Self {
            large: groups.map(|group| Group { hash: group[0].0, rows: group.iter().map(|(_, row)| *row).collect(), whole: true }).collect(),
        }
    }

    /// Takes out the groups with no more pairs than the limit; those without any are dropped.
    fn take_small(&mut self, table: &Table, limit: u64, whole: bool) -> Vec<Group> {
        let mut small = Vec::new();
        self.large.retain_mut(|group| {
            let pairs = pairs(table, &group.rows);
            if pairs > limit {
                return true;
            }
            if pairs > 0 {
                small.push(Group { hash: group.hash, rows: std::mem::take(&mut group.rows), whole });
            }
            false
        });
        small
    }

    fn hashes(&self, rows: usize) -> Vec<Option<u64>> {
        let mut hashes = vec![None; rows];
        for group in &self.large {
            for row in &group.rows {
                hashes[*row as usize] = Some(group.hash);
            }
        }
        hashes
    }
}
