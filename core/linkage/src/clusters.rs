//! From pairs to groups of rows.

use std::collections::BTreeMap;

use crate::score::Pair;

/// How pairs become groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// Rows that are joined by pairs, over however many, are one group.
    Connected,
    /// A row is in one pair at most: the one of the greatest weight whose other row is free. For rows of two sets without
    /// duplicates of their own.
    OneToOne,
}

/// The groups of two rows or more that pairs of this weight or more make: places, each group sorted, by their first rows.
pub fn clusters(pairs: &[Pair], weight_min: f64, grouping: Grouping) -> Vec<Vec<u32>> {
    let mut pairs: Vec<&Pair> = pairs.iter().filter(|pair| pair.weight >= weight_min).collect();
    // By weight; equal ones in the order in which they were given, which is that of their keys.
    pairs.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let mut parents: BTreeMap<u32, u32> = BTreeMap::new();
    for pair in pairs {
        if grouping == Grouping::OneToOne && (parents.contains_key(&pair.left) || parents.contains_key(&pair.right)) {
            continue;
        }
        let (left, right) = (root(&mut parents, pair.left), root(&mut parents, pair.right));
        parents.insert(left.max(right), left.min(right));
    }
    let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for row in parents.keys().copied().collect::<Vec<_>>() {
        groups.entry(root(&mut parents, row)).or_default().push(row);
    }
    groups.into_values().collect()
}

/// The smallest row of a row's group; a row that was in none is one now.
fn root(parents: &mut BTreeMap<u32, u32>, row: u32) -> u32 {
    let mut root = row;
    while let Some(parent) = parents.get(&root).filter(|parent| **parent != root) {
        root = *parent;
    }
    // What was passed points to the root from now on.
    let mut at = row;
    while let Some(parent) = parents.insert(at, root).filter(|parent| *parent != root && at != root) {
        at = parent;
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(left: u32, right: u32, weight: f64) -> Pair {
        Pair { left, right, weight, probability: 1.0, reasons: Vec::new() }
    }

    #[test]
    fn connected_rows_are_one_group() {
        let pairs = [pair(4, 2, 9.0), pair(7, 8, 3.0), pair(2, 9, 5.0), pair(0, 1, 1.0), pair(9, 5, 4.0)];
        assert_eq!(clusters(&pairs, 2.0, Grouping::Connected), [vec![2, 4, 5, 9], vec![7, 8]]);
        assert_eq!(clusters(&pairs, 0.0, Grouping::Connected), [vec![0, 1], vec![2, 4, 5, 9], vec![7, 8]]);
        assert_eq!(clusters(&[], 0.0, Grouping::Connected), Vec::<Vec<u32>>::new());
    }

    #[test]
    fn one_to_one_keeps_the_best_pair_of_a_row() {
        let pairs = [pair(1, 11, 5.0), pair(1, 12, 9.0), pair(2, 12, 8.0), pair(2, 11, 4.0)];
        assert_eq!(clusters(&pairs, 0.0, Grouping::OneToOne), [vec![1, 12], vec![2, 11]]);
    }
}
