//! What must not come together: records that an operator keeps apart, and members with more values of a key than
//! one person has.
//!
//! Records are joined as if nothing forbade it, and only sets that break a rule are joined once more, step by step:
//! decisions first, then the keys in their order, each value's records from the oldest on. A step that breaks a rule
//! is left out. So a stronger key wins over a weaker one, and the order of rows does not matter.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::IdentityConfig;
use super::decided::Decisions;
use super::keys::Rule;
use super::sets::{Nodes, UnionFind};
use crate::table::NONE;

/// What holds for every set.
pub(super) struct Constraints<'a> {
    nodes: &'a Nodes<'a>,
    /// Columns of which a member has no more than so many values.
    values_max: Vec<(&'a str, u32)>,
    decisions: Decisions,
    /// Values that join nobody.
    generic: HashSet<u128>,
}

impl<'a> Constraints<'a> {
    pub(super) fn new(nodes: &'a Nodes<'a>, config: &'a IdentityConfig, decisions: Decisions, generic: Vec<u128>) -> Self {
        let mut columns: Vec<&str> = config.keys.iter().flatten().map(String::as_str).collect();
        columns.sort_unstable();
        columns.dedup();
        let limited = columns.into_iter().filter_map(|column| config.limits_of(column).values_max.map(|max| (column, max)));
        Self { nodes, values_max: limited.collect(), decisions, generic: generic.into_iter().collect() }
    }

    /// Whether a set has too many values of a column.
    fn has_too_many(&self, set: &[u32]) -> bool {
        let many = |(column, max): &(&str, u32)| set.len() > *max as usize && self.values(column, set).len() > *max as usize;
        self.values_max.iter().any(many)
    }

    fn values(&self, column: &str, set: &[u32]) -> BTreeSet<u128> {
        set.iter().filter_map(|node| self.nodes.keys.value_of(column, self.nodes.key_row(*node))).collect()
    }
}

/// The sets that break a rule.
pub(super) struct Apart {
    sets: Vec<Vec<u32>>,
}

impl Apart {
    /// Finds them; `None` where there is none. All roots are below `roots`.
    pub(super) fn find(constraints: &Constraints, root_of: &[u32], roots: usize) -> Option<Self> {
        let mut size = vec![0_u32; roots];
        root_of.iter().for_each(|root| size[*root as usize] += 1);
        let least = constraints.values_max.iter().map(|(_, max)| *max).min().unwrap_or(u32::MAX);
        let mut suspects = size.iter().map(|size| *size > least).collect::<Vec<_>>();
        for [left, right] in &constraints.decisions.apart {
            let left = left.iter().map(|node| root_of[*node as usize]).collect::<HashSet<_>>();
            right
                .iter()
                .map(|node| root_of[*node as usize])
                .filter(|root| left.contains(root))
                .for_each(|root| suspects[root as usize] = true);
        }
        if !suspects.contains(&true) {
            return None;
        }
        let mut sets: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (node, root) in (0_u32..).zip(root_of).filter(|(_, root)| suspects[**root as usize]) {
            sets.entry(*root).or_default().push(node);
        }
        let sets = sets.into_values().filter(|set| constraints.has_too_many(set) || has_kept_apart(constraints, set));
        Some(Self { sets: sets.collect() }).filter(|apart| !apart.sets.is_empty())
    }

    /// Joins them anew, and gives each part a root of its own. Gives the number that all roots are below.
    pub(super) fn separate(self, constraints: &Constraints, root_of: &mut [u32], roots: usize) -> usize {
        let mut next = roots as u32;
        for set in self.sets {
            let mut parts = Steps::new(constraints, set);
            parts.decisions();
            for rule in &constraints.nodes.keys.rules {
                parts.rule(rule);
            }
            let mut roots = vec![NONE; parts.set.len()];
            for at in 0..parts.set.len() {
                let part = parts.groups.root(at as u32) as usize;
                if roots[part] == NONE {
                    roots[part] = next;
                    next += 1;
                }
                root_of[parts.set[at] as usize] = roots[part];
            }
        }
        next as usize
    }
}

fn has_kept_apart(constraints: &Constraints, set: &[u32]) -> bool {
    let is_in = |node: &u32| set.binary_search(node).is_ok();
    constraints.decisions.apart.iter().any(|[left, right]| left.iter().any(is_in) && right.iter().any(is_in))
}

/// One set that is joined step by step. Nodes are named by their place in it.
struct Steps<'a> {
    constraints: &'a Constraints<'a>,
    /// The nodes, the one that founds the set first.
    set: Vec<u32>,
    groups: UnionFind,
    /// For each group, at its root: its values of each limited column.
    values: Vec<Vec<BTreeSet<u128>>>,
    /// The sides of decisions that it has records of.
    sides: Vec<BTreeSet<(usize, usize)>>,
}

impl<'a> Steps<'a> {
    fn new(constraints: &'a Constraints<'a>, mut set: Vec<u32>) -> Self {
        let nodes = constraints.nodes;
        set.sort_unstable_by(|a, b| nodes.resolved.founding_order(nodes.row(*a), nodes.row(*b)));
        let values = set.iter().map(|node| {
            let values = constraints.values_max.iter().map(|(column, _)| constraints.values(column, &[*node]));
            values.collect()
        });
        let place = set.iter().enumerate().map(|(at, node)| (*node, at)).collect::<BTreeMap<_, _>>();
        let mut sides = vec![BTreeSet::new(); set.len()];
        for (decision, groups) in constraints.decisions.apart.iter().enumerate() {
            for (side, group) in groups.iter().enumerate() {
                group.iter().filter_map(|node| place.get(node)).for_each(|at| _ = sides[*at].insert((decision, side)));
            }
        }
        Self { constraints, groups: UnionFind::new(set.len()), values: values.collect(), sides, set }
    }

    fn decisions(&mut self) {
        let place = |node: u32| self.set.iter().position(|other| *other == node).map(|at| at as u32);
        let pairs = self.constraints.decisions.same.iter().filter_map(|(one, other)| Some((place(*one)?, place(*other)?)));
        let mut pairs = pairs.map(|(one, other)| (one.min(other), one.max(other))).collect::<Vec<_>>();
        pairs.sort_unstable();
        for (one, other) in pairs {
            self.join(one, other);
        }
    }

    fn rule(&mut self, rule: &Rule) {
        let nodes = self.constraints.nodes;
        let mut sharing: BTreeMap<u128, Vec<u32>> = BTreeMap::new();
        let mut order = Vec::new();
        for (at, node) in (0_u32..).zip(&self.set) {
            let value = if rule.is_phone() { Some(u128::from(nodes.holders[*node as usize])) } else { nodes.value(rule, *node) };
            let Some(value) = value.filter(|value| rule.is_phone() || !self.constraints.generic.contains(value)) else { continue };
            let sharing = sharing.entry(value).or_default();
            if sharing.is_empty() {
                order.push(value);
            }
            sharing.push(at);
        }
        for value in order {
            // Each joins the first part that it may be of, and may be the first of a further one.
            let mut parts: Vec<u32> = Vec::new();
            for at in &sharing[&value] {
                if !parts.iter().any(|part| self.join(*part, *at)) {
                    parts.push(*at);
                }
            }
        }
    }

    /// Joins two groups where nothing forbids it; whether they are one now.
    fn join(&mut self, a: u32, b: u32) -> bool {
        let (a, b) = (self.groups.root(a), self.groups.root(b));
        if a == b {
            return true;
        }
        if !self.may_join(a as usize, b as usize) {
            return false;
        }
        if let Some((stays, goes)) = self.groups.join(a, b) {
            let values = std::mem::take(&mut self.values[goes as usize]);
            for (own, other) in self.values[stays as usize].iter_mut().zip(values) {
                own.extend(other);
            }
            let sides = std::mem::take(&mut self.sides[goes as usize]);
            self.sides[stays as usize].extend(sides);
        }
        true
    }

    fn may_join(&self, a: usize, b: usize) -> bool {
        let are_apart = self.sides[a].iter().any(|(decision, side)| self.sides[b].contains(&(*decision, 1 - side)));
        let together = self.values[a].iter().zip(&self.values[b]).map(|(one, other)| one.union(other).count());
        !are_apart && self.constraints.values_max.iter().zip(together).all(|((_, max), values)| values <= *max as usize)
    }
}
