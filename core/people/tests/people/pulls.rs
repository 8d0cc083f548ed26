//! Pulls: what is counted as what.

use std::collections::BTreeMap;

use reunion_model::Reason;
use reunion_people::{Deletions, SharedPhonePolicy, SourceCounts};

use crate::world::{Given, Row, World, config, day, increment, row, snapshot};

const A: &str = "13912345671";
const B: &str = "13912345672";

fn counts(pulled: u64) -> SourceCounts {
    SourceCounts { pulled, ..SourceCounts::default() }
}

fn updated(id: &str, phone: &str, on: u32) -> Row {
    row(id, phone).with(|row| row.updated = day(on))
}

#[test]
fn new_changed_unchanged_deleted_and_quarantined_rows_are_told_apart() {
    let mut world = World::merging();
    let first = world.run(&[snapshot("pos", &[row("1", A), row("2", B), row("3", "无"), row("4", "13912345674")])]);
    let quarantined = BTreeMap::from([(Reason::PhoneInvalid, 1)]);
    assert_eq!(first.counts["pos"], SourceCounts { new: 3, quarantined: quarantined.clone(), ..counts(4) });
    assert_eq!((first.new, first.changed, first.assignments), (3, 0, 4));

    let again = world.run(&[snapshot("pos", &[row("4", "13912345674"), row("3", "无"), row("2", B), row("1", A)])]);
    assert_eq!(again.counts["pos"], SourceCounts { unchanged: 3, quarantined: quarantined.clone(), ..counts(4) });
    assert_eq!((again.new, again.changed, again.assignments, again.dirty), (0, 0, 0, 0));

    let named = row("2", B).with(|row| row.name = "张三".into());
    let third = world.run(&[snapshot("pos", &[row("1", A), named, row("3", "无"), row("5", "13912345675")])]);
    assert_eq!(third.counts["pos"], SourceCounts { new: 1, changed: 1, unchanged: 1, quarantined, deleted: 1, ..counts(4) });
    assert_eq!(third.deletions["pos"], Deletions { live_before: 4, deleted: 1 });
    assert_eq!((third.new, third.changed, third.removed.len()), (1, 1, 1));
}

#[test]
fn an_increment_deletes_nothing() {
    let mut world = World::merging();
    world.run(&[snapshot("pos", &[row("1", A), row("2", B)])]);
    let done = world.run(&[increment("pos", &[row("2", B)])]);
    assert_eq!(done.counts["pos"], SourceCounts { unchanged: 1, ..counts(1) });
    assert_eq!(world.records().len(), 2);
}

#[test]
fn the_greatest_of_equal_record_ids_counts_wherever_it_stands() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let rows = [updated("1", A, 1), updated("1", B, 9), updated("1", A, 5)];
        let rows = order.map(|at| rows[at].clone());
        let mut world = World::merging();
        let expected = SourceCounts { new: 1, superseded: 2, ..counts(3) };
        assert_eq!(world.run(&[snapshot("pos", &rows)]).counts["pos"], expected);
        assert_eq!(world.columns_of("pos/1")["phone"].as_deref(), Some("8613912345672"));
        // The versions that lost come again, and lose again.
        let again = world.run(&[snapshot("pos", &rows)]);
        assert_eq!(again.counts["pos"], SourceCounts { unchanged: 1, superseded: 2, ..counts(3) });
        assert_eq!((again.changed, again.assignments), (0, 0));
        assert_eq!(again.restored, 1, "the version that counts is written again behind those that lost");
        assert_eq!(world.run(&[increment("pos", &[])]).changed, 0);
        assert_eq!(world.columns_of("pos/1")["phone"].as_deref(), Some("8613912345672"));
    }
}

#[test]
fn a_row_that_comes_twice_counts_once() {
    let mut world = World::merging();
    let rows = [row("1", A), row("1", A)];
    assert_eq!(world.run(&[snapshot("pos", &rows)]).counts["pos"], SourceCounts { new: 1, superseded: 1, ..counts(2) });
    assert_eq!(world.run(&[snapshot("pos", &rows)]).counts["pos"], SourceCounts { unchanged: 1, superseded: 1, ..counts(2) });
}

#[test]
fn of_two_pulls_in_one_run_the_later_wins() {
    let mut world = World::merging();
    world.run(&[snapshot("pos", &[updated("1", A, 5), row("2", B)])]);
    // The second pull saw the row as it was before the first: an older updated_at does not matter.
    let done = world.run(&[increment("pos", &[updated("1", B, 9), row("3", B)]), snapshot("pos", &[updated("1", A, 5)])]);
    assert_eq!(done.counts["pos"], SourceCounts { unchanged: 1, superseded: 2, deleted: 1, ..counts(3) });
    assert_eq!(world.columns_of("pos/1")["phone"].as_deref(), Some("8613912345671"));
    assert_eq!(world.records().len(), 1);
    // A record that was only in the pull that was overtaken does not come back.
    assert_eq!(world.run(&[]).counts["pos"], counts(0));
    assert_eq!(world.records().len(), 1);
}

#[test]
fn a_deleted_record_that_returns_is_new_and_has_its_old_member() {
    let mut world = World::merging();
    world.run(&[snapshot("pos", &[row("1", A), row("2", B)])]);
    let before = world.member_of("pos/2");
    world.run(&[snapshot("pos", &[row("1", A)])]);
    let done = world.run(&[snapshot("pos", &[row("1", A), row("2", B)])]);
    assert_eq!(done.counts["pos"], SourceCounts { new: 1, unchanged: 1, ..counts(2) });
    assert_eq!(world.member_of("pos/2"), before);
}

#[test]
fn rows_of_a_keyed_source_that_cannot_be_told_apart_are_set_aside() {
    let keyed = |rows: &[Row]| {
        let mut given = snapshot("pos", rows);
        given.keyed = true;
        given
    };
    let named = |name: &str| row("", A).with(|row| row.name = name.into());
    let mut world = World::merging();
    let done = world.run(&[keyed(&[named("张三"), named("李四"), row("", B)])]);
    let duplicate = BTreeMap::from([(Reason::RecordKeyDuplicate, 1)]);
    let expected = SourceCounts { new: 1, superseded: 1, quarantined: duplicate, ..counts(3) };
    assert_eq!(done.counts["pos"], expected);
    let again = world.run(&[keyed(&[named("李四"), row("", B), named("张三")])]);
    assert_eq!(again.counts["pos"], SourceCounts { new: 0, unchanged: 1, ..expected });
    let resolved = world.run(&[keyed(&[named("李四"), row("", B)])]);
    assert_eq!(resolved.counts["pos"].quarantined, BTreeMap::new());
    assert_eq!(world.people().len(), 2);
}

#[test]
fn records_that_others_push_over_the_cap_are_counted_apart() {
    let mut world = World::new(config(&["phone"], 2, SharedPhonePolicy::Merge));
    world.run(&[snapshot("pos", &[row("1", A), row("2", A)])]);
    let done = world.run(&[snapshot("mall", &[row("9", A)])]);
    assert_eq!(done.counts["mall"], SourceCounts { quarantined: [(Reason::SharedPhone, 1)].into(), ..counts(1) });
    assert_eq!(done.counts["pos"], SourceCounts { requarantined: 2, ..counts(0) });
    assert_eq!((world.people().len(), done.removed.len()), (0, 1));
    let done = world.run(&[snapshot("mall", &[row("9", B)])]);
    assert_eq!(done.counts["mall"], SourceCounts { changed: 1, ..counts(1) });
    assert_eq!(done.counts["pos"], SourceCounts { released: 2, ..counts(0) });
    assert_eq!(world.people().len(), 2);
}

#[test]
fn rows_that_could_not_be_told_apart_stay_aside_until_a_pull_says_otherwise() {
    let keyed = |rows: &[Row]| Given { keyed: true, ..increment("pos", rows) };
    let phone = "13912345678";
    let mut world = World::merging();
    world.run(&[keyed(&[row("", phone).with(|row| row.name = "张三".into()), row("", phone).with(|row| row.name = "李四".into())])]);
    let reasons = |world: &World| world.records().into_values().map(|outcome| outcome.err()).collect::<Vec<_>>();
    assert_eq!(reasons(&world), [Some("record_key_duplicate".to_owned())]);
    // A run that says nothing of them.
    world.run(&[keyed(&[]), increment("mall", &[row("1", "13912345679")])]);
    assert_eq!(reasons(&world), [None, Some("record_key_duplicate".to_owned())]);
    world.run(&[keyed(&[row("", phone).with(|row| row.name = "张三".into())])]);
    assert_eq!(reasons(&world), [None, None]);
}
