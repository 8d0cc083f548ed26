//! Identity: who is joined with whom, and which ids last.

use reunion_people::SharedPhonePolicy::{Household, Merge, Quarantine};

use crate::world::{Row, World, config, day, row, snapshot};

const A: &str = "13912345671";
const B: &str = "13912345672";
const C: &str = "13912345673";

fn founded(id: &str, phone: &str, on: u32) -> Row {
    row(id, phone).with(|row| row.created = day(on))
}

fn named(id: &str, phone: &str, name: &str) -> Row {
    row(id, phone).with(|row| row.name = name.into())
}

fn with_union(row: Row, unionid: &str) -> Row {
    row.with(|row| row.unionid = unionid.into())
}

#[test]
fn phones_and_unionids_join_over_sources() {
    let mut world = World::merging();
    world.run(&[
        snapshot("pos", &[row("1", A), with_union(row("2", "+86 139 1234 5672"), "u"), row("3", C)]),
        snapshot("mall", &[row("1", "139-1234-5671"), with_union(row("2", "13912345679"), "u"), with_union(row("4", "无"), "u")]),
    ]);
    assert_eq!(world.member_of("pos/1"), world.member_of("mall/1"));
    assert_eq!(world.member_of("pos/2"), world.member_of("mall/2"));
    assert_eq!(world.people().len(), 3);
    assert_eq!(world.records()["mall/4"], Err("phone_invalid".into()), "a unionid does not replace a phone");
}

#[test]
fn a_unionid_does_not_join_over_a_shared_phone() {
    let mut world = World::new(config(&["phone", "unionid"], 2, Merge));
    world.run(&[snapshot("pos", &[row("1", A), row("2", A), with_union(row("3", A), "u"), with_union(row("4", B), "u")])]);
    assert_eq!(world.people().len(), 1);
    assert_eq!(world.records()["pos/3"], Err("shared_phone".into()));
}

#[test]
fn names_decide_in_a_household_and_under_quarantine() {
    let rows = [named("1", A, "张三"), named("2", A, "李四"), named("3", A, "张三"), row("4", A), named("5", B, "王五"), row("6", B)];
    let mut world = World::new(config(&["phone"], 5, Household));
    world.run(&[snapshot("pos", &rows)]);
    assert_eq!(world.member_of("pos/1"), world.member_of("pos/3"));
    assert_ne!(world.member_of("pos/1"), world.member_of("pos/2"));
    assert_ne!(world.member_of("pos/4"), world.member_of("pos/1"));
    assert_eq!(world.member_of("pos/5"), world.member_of("pos/6"), "one name on the phone: the nameless row is the same person's");

    let mut world = World::new(config(&["phone"], 5, Quarantine));
    world.run(&[snapshot("pos", &rows)]);
    assert_eq!(world.people().len(), 1);
    assert_eq!(world.records()["pos/4"], Err("shared_phone_names".into()));
}

#[test]
fn without_the_phone_among_the_keys_phones_do_not_join() {
    let mut world = World::new(config(&["unionid"], 5, Merge));
    world.run(&[snapshot("pos", &[row("1", A), row("2", A), with_union(row("3", B), "u"), with_union(row("4", C), "u")])]);
    assert_eq!(world.people().len(), 3);
}

#[test]
fn an_id_stays_while_records_come_and_go() {
    let mut world = World::merging();
    world.run(&[snapshot("pos", &[founded("1", A, 5), founded("2", A, 7)])]);
    let id = world.member_of("pos/1");
    // A record that is older than the founding one, and the founding one leaving, change nothing.
    let done = world.run(&[snapshot("pos", &[founded("2", A, 7), founded("3", A, 1)])]);
    assert_eq!((world.member_of("pos/2"), world.member_of("pos/3")), (id, id));
    assert!(done.merges.is_empty() && done.splits.is_empty() && done.removed.is_empty());
}

#[test]
fn of_joined_members_the_one_founded_first_stays() {
    let mut world = World::merging();
    let before = [founded("1", A, 5), founded("2", B, 3), founded("3", C, 9)];
    world.run(&[snapshot("pos", &before)]);
    let ids = ["pos/1", "pos/2", "pos/3"].map(|record| world.member_of(record));
    let done = world.run(&[snapshot("pos", &before.map(|row| with_union(row, "u")))]);
    assert_eq!(world.member_of("pos/3"), ids[1]);
    let mut merges = done.merges;
    let mut expected = vec![(ids[0], ids[1]), (ids[2], ids[1])];
    merges.sort();
    expected.sort();
    assert_eq!(merges, expected);
    assert_eq!(done.removed.len(), 2);
}

#[test]
fn of_a_split_member_most_records_keep_the_id() {
    let mut world = World::merging();
    world.run(&[snapshot("pos", &[founded("1", A, 1), founded("2", A, 5), founded("3", A, 6)])]);
    let id = world.member_of("pos/1");
    let done = world.run(&[snapshot("pos", &[founded("1", B, 1), founded("2", A, 5), founded("3", A, 6)])]);
    assert_eq!((world.member_of("pos/2"), world.member_of("pos/3")), (id, id));
    // The founding record left, and its own id is another's now: the epoch was raised.
    let split = world.member_of("pos/1");
    assert_ne!(split, id);
    assert_eq!(done.splits, [(id, split)]);
    // The same in a world that was there from the start: the epoch is 0 again.
    let mut fresh = World::merging();
    fresh.run(&[snapshot("pos", &[founded("1", B, 1), founded("2", A, 5), founded("3", A, 6)])]);
    assert_eq!(fresh.member_of("pos/1"), id);
}

#[test]
fn of_equal_parts_the_one_founded_first_keeps_the_id() {
    let mut world = World::merging();
    world.run(&[snapshot("pos", &[founded("1", A, 5), founded("2", A, 1)])]);
    let id = world.member_of("pos/1");
    world.run(&[snapshot("pos", &[founded("1", B, 5), founded("2", A, 1)])]);
    assert_eq!(world.member_of("pos/2"), id);
}

#[test]
fn a_forwarded_id_is_not_given_again() {
    let mut world = World::merging();
    let apart = [founded("1", A, 5), founded("2", B, 3)];
    world.run(&[snapshot("pos", &apart)]);
    let (first, second) = (world.member_of("pos/1"), world.member_of("pos/2"));
    world.run(&[snapshot("pos", &apart.clone().map(|row| with_union(row, "u")))]);
    world.run(&[snapshot("pos", &apart)]);
    assert_eq!(world.member_of("pos/2"), second);
    assert!(![first, second].contains(&world.member_of("pos/1")));
}
