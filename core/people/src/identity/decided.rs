//! What operators decided, in terms of a run's records.

use reunion_model::{Decision, DecisionKind};

use super::sets::Nodes;
use crate::matching::KeySet;
use crate::table::NONE;

/// The decisions that hold in a run, by node.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    /// Two nodes that are one person.
    pub(super) same: Vec<(u32, u32)>,
    /// Two groups of nodes that are two people.
    pub(super) apart: Vec<[Vec<u32>; 2]>,
}

impl Decisions {
    /// What decisions say of the nodes that are there.
    pub(super) fn new(held: &[Decision], nodes: &Nodes) -> Self {
        if held.is_empty() {
            return Self::default();
        }
        let mut named = KeySet::default();
        held.iter().flat_map(|decision| decision.left.iter().chain(&decision.right)).for_each(|key| _ = named.insert(key.as_u128()));
        let mut node_of = vec![NONE; named.len()];
        for (node, record) in (0_u32..).zip(nodes.records) {
            if let Some(number) = named.find(nodes.resolved.key(*record)) {
                node_of[number as usize] = node;
            }
        }
        let there = |keys: &[reunion_model::RecordKey]| {
            let found = keys.iter().filter_map(|key| named.find(key.as_u128())).map(|number| node_of[number as usize]);
            found.filter(|node| *node != NONE).collect::<Vec<_>>()
        };
        let mut decisions = Self::default();
        for decision in held {
            let (left, right) = (there(&decision.left), there(&decision.right));
            match (decision.kind, left.first(), right.first()) {
                // The records that found the two members, as long as they are there.
                (DecisionKind::Same, Some(one), Some(other)) => decisions.same.push((*one, *other)),
                (DecisionKind::Apart, Some(_), Some(_)) => decisions.apart.push([left, right]),
                _ => {}
            }
        }
        decisions
    }

    pub(super) fn is_empty(&self) -> bool {
        self.same.is_empty() && self.apart.is_empty()
    }
}
