//! Promises about all inputs: sums hold, and nothing depends on order, cut, threads or history.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use reunion_model::DecisionKind;
use reunion_people::{IdentityConfig, KeyLimits, SharedPhonePolicy, SourceCounts, Why};

use crate::world::{Given, Row, World, config, day, row};

const SOURCES: [&str; 3] = ["mall", "pos", "wms"];

fn any_row() -> impl Strategy<Value = Row> {
    let phone = prop_oneof![8 => (0_u32..8).prop_map(|n| format!("1391234567{n}")), 1 => Just("无".to_owned()), 1 => Just(String::new())];
    let unionid = prop_oneof![3 => Just(String::new()), 1 => (0_u32..4).prop_map(|n| format!("u{n}"))];
    // Some of them far enough apart for a number to be somebody else's.
    let moment = || prop_oneof![2 => Just(String::new()), 3 => (0_u32..6).prop_map(day), 3 => (150_u32..156).prop_map(day)];
    let consent = prop::sample::select(vec!["", "granted", "withdrawn", "unknown"]);
    let (times, born) = ((moment(), moment(), moment(), moment()), prop::sample::select(vec!["", "", "1990-01-02", "1991-03-04"]));
    (0_u32..10, phone, unionid, 0_usize..4, times, born, -300_i32..300, consent, any::<bool>()).prop_map(
        |(id, phone, unionid, name, (updated, created, ordered, consent_at), born, cents, consent, evidence)| Row {
            unionid,
            ordered,
            born: born.into(),
            name: ["", "张三", "李四", "王五"][name].into(),
            updated,
            created,
            spent: format!("{}.{:02}", cents / 100, cents.unsigned_abs() % 100),
            orders: (cents.unsigned_abs() % 7).to_string(),
            consent: consent.into(),
            consent_at,
            evidence: if evidence { "form".into() } else { String::new() },
            ..row(&format!("r{id}"), &phone)
        },
    )
}

fn any_given(snapshot: impl Strategy<Value = bool>) -> impl Strategy<Value = Given> {
    (0_usize..3, prop::collection::vec(any_row(), 0..14), snapshot, 1_usize..6).prop_map(|(source, rows, snapshot, cut)| Given {
        source: SOURCES[source],
        rows,
        snapshot,
        keyed: false,
        confirms: false,
        cut,
    })
}

fn any_policy() -> impl Strategy<Value = SharedPhonePolicy> {
    prop::sample::select(vec![SharedPhonePolicy::Merge, SharedPhonePolicy::Household, SharedPhonePolicy::Quarantine])
}

/// Keys, limits and policies of all kinds.
fn any_config() -> impl Strategy<Value = IdentityConfig> {
    let keys = prop::sample::select(vec![
        vec!["phone"],
        vec!["phone", "unionid"],
        vec!["unionid", "phone", "name+order_count"],
        vec!["phone", "name+unionid"],
    ]);
    let values_max = || prop::option::of(1_u32..4);
    (keys, 2_u32..6, any_policy(), 2_u32..6, values_max(), values_max()).prop_map(
        |(keys, cards_max, policy, records_max, unionids, phones)| {
            let mut config = config(&keys, cards_max, policy);
            config.limits.insert("unionid".into(), KeyLimits { records_max, values_max: unionids, blocked: vec!["u3".into()] });
            config.limits.insert("phone".into(), KeyLimits { values_max: phones, ..KeyLimits::default() });
            config
        },
    )
}

/// What an operator does before a run: decides about two groups of records, or withdraws everything.
#[derive(Debug, Clone)]
enum Act {
    Decide(DecisionKind, Vec<prop::sample::Index>),
    Withdraw,
}

fn any_act() -> impl Strategy<Value = Act> {
    let kind = prop::sample::select(DecisionKind::ALL.to_vec());
    let decide = (kind, prop::collection::vec(any::<prop::sample::Index>(), 2..6)).prop_map(|(kind, records)| Act::Decide(kind, records));
    prop_oneof![5 => decide, 1 => Just(Act::Withdraw)]
}

fn act(world: &mut World, act: &Act) {
    let records = world.records().into_keys().collect::<Vec<_>>();
    match act {
        Act::Withdraw => world.withdraw_all(),
        Act::Decide(kind, picks) if !records.is_empty() => {
            let mut picked = picks.iter().map(|pick| records[pick.index(records.len())].as_str()).collect::<Vec<_>>();
            picked.sort_unstable();
            picked.dedup();
            if let Some((first, others)) = picked.split_first().filter(|(_, others)| !others.is_empty()) {
                world.decide(*kind, &[first], others);
            }
        }
        Act::Decide(..) => {}
    }
}

/// What happens before and in one run.
#[derive(Debug, Clone)]
struct AnyRun {
    given: Vec<Given>,
    acts: Vec<Act>,
    /// Other rules from this run on.
    rules: Option<IdentityConfig>,
}

fn any_run() -> impl Strategy<Value = AnyRun> {
    let given = prop::collection::vec(any_given(any::<bool>()), 0..4);
    let acts = prop::collection::vec(any_act(), 0..2);
    let rules = prop_oneof![3 => Just(None), 1 => any_config().prop_map(Some)];
    (given, acts, rules).prop_map(|(given, acts, rules)| AnyRun { given, acts, rules })
}

fn sum(counts: &SourceCounts) -> u64 {
    counts.new + counts.changed + counts.unchanged + counts.superseded + counts.quarantined.values().sum::<u64>()
}

/// The rows of a source that count, by their ids: of one pull the greatest, of several the latest.
fn apply(content: &mut BTreeMap<(&'static str, String), Row>, given: &Given, key: impl Fn(&Row) -> (Option<String>, u128)) {
    if given.snapshot {
        content.retain(|(source, _), _| *source != given.source);
    }
    let mut pulled: BTreeMap<String, &Row> = BTreeMap::new();
    for row in &given.rows {
        let held = pulled.entry(row.id.clone()).or_insert(row);
        if key(row) > key(held) {
            *held = row;
        }
    }
    for (id, row) in pulled {
        content.insert((given.source, id), row.clone());
    }
}

fn snapshots(content: &BTreeMap<(&'static str, String), Row>) -> Vec<Given> {
    let of = |source: &'static str| content.iter().filter(|((of, _), _)| *of == source).map(|(_, row)| row.clone()).collect::<Vec<_>>();
    SOURCES.map(|source| Given { source, rows: of(source), snapshot: true, keyed: false, confirms: false, cut: 4 }).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn many_small_runs_come_to_the_same_people_as_one(runs in prop::collection::vec(any_run(), 1..6), config in any_config()) {
        let mut world = World::new(config);
        let mut content = BTreeMap::new();
        for AnyRun { given: run, acts, rules } in &runs {
            acts.iter().for_each(|one| act(&mut world, one));
            // Other rules than before: everybody is decided anew.
            world.narrows = rules.is_none();
            if let Some(rules) = rules {
                world.config = rules.clone();
            }
            // Equal moments are decided by content hashes, which this model does not know: make them differ.
            let run = run.iter().map(|given| {
                let mut given = given.clone();
                let mut had = BTreeSet::new();
                given.rows.retain(|row| had.insert((row.id.clone(), row.updated.clone())));
                given
            }).collect::<Vec<_>>();
            let live_before = world.records().len() as u64;
            let done = world.run(&run);
            for (source, counts) in &done.counts {
                prop_assert_eq!(counts.pulled, sum(counts), "{} {:?}", source, counts);
                let rows = run.iter().filter(|given| given.source == source).map(|given| given.rows.len() as u64).sum::<u64>();
                prop_assert_eq!(counts.pulled, rows);
            }
            prop_assert_eq!(done.deletions.values().map(|d| d.live_before).sum::<u64>(), live_before);
            for given in &run {
                apply(&mut content, given, |row| (Some(row.updated.clone()).filter(|text| !text.is_empty()), 0));
            }
        }
        let mut fresh = World::new(world.config.clone());
        fresh.decisions.clone_from(&world.decisions);
        fresh.run(&snapshots(&content));
        prop_assert_eq!(world.people(), fresh.people());
        let reasons = |world: &World| world.records().into_iter().map(|(record, outcome)| (record, outcome.err())).collect::<BTreeMap<_, _>>();
        prop_assert_eq!(reasons(&world), reasons(&fresh));
        // Nothing new: nothing changes.
        world.narrows = true;
        let held = world.held.clone();
        let again = world.run(&snapshots(&content));
        prop_assert_eq!(held, world.held.clone());
        prop_assert_eq!((again.dirty, again.assignments, again.new, again.changed), (0, 0, 0, 0));
    }

    #[test]
    fn a_narrowed_run_comes_to_what_a_run_over_everybody_does(runs in prop::collection::vec((prop::collection::vec(any_given(any::<bool>()), 0..3), prop::collection::vec(any_act(), 0..2)), 1..6), config in any_config(), keyed in any::<bool>()) {
        let mut worlds = [true, false].map(|narrows| {
            let mut world = World::new(config.clone());
            world.narrows = narrows;
            world
        });
        for (mut run, acts) in runs {
            worlds.iter_mut().for_each(|world| acts.iter().for_each(|one| act(world, one)));
            run.iter_mut().for_each(|given| given.keyed = keyed && given.source == SOURCES[1]);
            let [mut one, mut other] = worlds.each_mut().map(|world| world.run(&run));
            for done in [&mut one, &mut other] {
                done.removed.sort_unstable();
                done.merges.sort_unstable();
                done.splits.sort_unstable();
            }
            prop_assert_eq!(one, other);
            prop_assert_eq!(worlds[0].all(), worlds[1].all());
        }
    }

    #[test]
    fn a_source_that_says_nothing_changed_need_not_be_read_again(
        runs in prop::collection::vec((any_given(Just(true)), prop::collection::vec(any_act(), 0..2), prop::collection::vec(any_act(), 0..2)), 1..6),
        config in any_config(),
        keyed in any::<bool>(),
        narrows in any::<bool>(),
    ) {
        let mut worlds = [World::new(config.clone()), World::new(config)];
        worlds.iter_mut().for_each(|world| world.narrows = narrows);
        let mut last = BTreeMap::new();
        for (mut given, before, after) in runs {
            given.keyed = keyed && given.source == SOURCES[1];
            let others = last.values().filter(|other: &&Given| other.source != given.source).cloned().collect::<Vec<_>>();
            last.insert(given.source, given.clone());
            // One source changed and the others did not, and then none did.
            for (acts, changed, unchanged) in [(before, vec![given], others), (after, vec![], last.values().cloned().collect())] {
                worlds.iter_mut().for_each(|world| acts.iter().for_each(|one| act(world, one)));
                let done = [false, true].map(|confirms| {
                    let unchanged = unchanged.iter().map(|given| Given { confirms, ..given.clone() });
                    let mut done = worlds[usize::from(confirms)].run(&changed.iter().cloned().chain(unchanged).collect::<Vec<_>>());
                    // Rows that are not read are superseded by none, and need not be written again.
                    done.restored = 0;
                    done.counts.values_mut().for_each(|counts| counts.pulled -= std::mem::take(&mut counts.superseded));
                    done
                });
                prop_assert_eq!(&done[0], &done[1]);
                prop_assert_eq!(worlds[0].all(), worlds[1].all());
            }
        }
    }

    #[test]
    fn whoever_shares_a_key_and_is_another_member_has_a_reason(runs in prop::collection::vec(any_run(), 1..4), config in any_config()) {
        let mut world = World::new(config);
        for AnyRun { given, acts, rules } in &runs {
            acts.iter().for_each(|one| act(&mut world, one));
            world.narrows = rules.is_none();
            world.config = rules.as_ref().unwrap_or(&world.config).clone();
            world.run(given);
        }
        let records = world.records();
        let first: BTreeMap<_, _> = records.iter().rev().filter_map(|(record, member)| Some((member.clone().ok()?, record))).collect();
        let has_apart = |member: &_, other: &_, columns: &[String]| world.unused(first[member]).iter().any(|unused| {
            unused.columns == columns && matches!(&unused.why, Why::Apart { members, .. } if members.contains_key(other))
        });
        for (member, record) in &first {
            for unused in world.unused(record) {
                match &unused.why {
                    Why::Blocked { column } => prop_assert_eq!(column, "unionid"),
                    Why::TooCommon { records, max, .. } => prop_assert!(records > &(*max as usize)),
                    Why::Apart { members, .. } => {
                        let is_phone = unused.columns == ["phone"];
                        for other in members.keys() {
                            prop_assert!(has_apart(other, member, &unused.columns), "the other says the same");
                            let pair = [record.as_str(), first[other].as_str()];
                            let came = pair.map(|record| world.holders(record, &unused.values[0]));
                            let holders = is_phone && came[0].is_disjoint(&came[1]) && !came.iter().any(BTreeSet::is_empty);
                            let household = is_phone && world.config.shared_phone.policy == SharedPhonePolicy::Household;
                            prop_assert!(
                                holders || household || !world.too_many(pair).is_empty() || world.are_kept_apart(pair),
                                "nothing keeps {:?} apart that have {:?}", pair, unused
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn order_and_cut_do_not_matter(given in prop::collection::vec(any_given(Just(true)), 1..4), order in any::<prop::sample::Index>(), cut in 1_usize..9, config in any_config()) {
        let mut by_source = BTreeMap::new();
        for given in given {
            by_source.insert(given.source, given);
        }
        let given = by_source.into_values().collect::<Vec<_>>();
        let turned = given.iter().rev().map(|given| {
            let mut given = Given { cut, ..given.clone() };
            if !given.rows.is_empty() {
                let by = order.index(given.rows.len());
                given.rows.rotate_left(by);
            }
            given.rows.reverse();
            given
        }).collect::<Vec<_>>();
        let mut worlds = [World::new(config.clone()), World::new(config)];
        let done = [worlds[0].run(&given), worlds[1].run(&turned)];
        prop_assert_eq!(&done[0].counts, &done[1].counts);
        prop_assert_eq!(worlds[0].all(), worlds[1].all());
        // And once more, in the other order, on what is there.
        let again = [worlds[0].run(&turned), worlds[1].run(&given)];
        prop_assert_eq!(&again[0].counts, &again[1].counts);
        prop_assert_eq!(worlds[0].all(), worlds[1].all());
    }

    #[test]
    fn equal_keys_join_and_nothing_else_does(given in any_given(Just(true))) {
        let mut world = World::merging();
        world.config.shared_phone.recycled_after_us = None;
        world.run(std::slice::from_ref(&given));
        let live = world.live_rows(&given);
        // The plain definition: join until nothing changes.
        let mut sets = (0..live.len()).collect::<Vec<_>>();
        let is_somebodys = |phone: &str| {
            let on_it = live.iter().filter(|row| row.phone == phone).collect::<Vec<_>>();
            let born = on_it.iter().map(|row| &row.born).filter(|born| !born.is_empty()).collect::<BTreeSet<_>>();
            let is_one = on_it.iter().all(|row| !row.name.is_empty() && row.name == on_it[0].name) && born.len() <= 1;
            on_it.len() <= if is_one { 10 } else { 5 }
        };
        let usable = live.iter().map(|row| row.phone.starts_with('1') && is_somebodys(&row.phone)).collect::<Vec<_>>();
        loop {
            let before = sets.clone();
            for a in 0..live.len() {
                for b in 0..live.len() {
                    let same = live[a].phone == live[b].phone || (!live[a].unionid.is_empty() && live[a].unionid == live[b].unionid);
                    if usable[a] && usable[b] && same {
                        sets[a] = sets[a].min(sets[b]);
                    }
                }
            }
            if before == sets {
                break;
            }
        }
        let mut expected: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (at, row) in live.iter().enumerate().filter(|(at, _)| usable[*at]) {
            expected.entry(sets[at]).or_default().insert(format!("{}/{}", given.source, row.id));
        }
        let expected = expected.into_values().collect::<BTreeSet<_>>();
        prop_assert_eq!(world.people().into_keys().collect::<BTreeSet<_>>(), expected);
    }
}
