//! Identity: who is joined with whom, and which ids last.

use reunion_model::{DecisionKind, Reason};
use reunion_people::SharedPhonePolicy::{Household, Merge, Quarantine};
use reunion_people::{IdentityConfig, KeyLimits};

use crate::world::{Row, World, config, day, increment, row, snapshot};

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

/// A row with a name, from its first day to its last purchase.
fn seen(id: &str, phone: &str, name: &str, from: u32, to: u32) -> Row {
    named(id, phone, name).with(|row| (row.created, row.ordered) = (day(from), day(to)))
}

#[test]
fn a_number_that_was_silent_and_comes_with_another_name_is_another_persons() {
    let mut world = World::merging();
    let old = [seen("1", A, "张三", 0, 20), seen("2", A, "张三", 10, 30)];
    world.run(&[snapshot("pos", &old)]);
    let before = world.member_of("pos/1");
    let new = seen("3", A, "李四", 200, 200);
    let done = world.run(&[snapshot("pos", &[old[0].clone(), old[1].clone(), new.clone()])]);
    assert_ne!(world.member_of("pos/3"), before, "a new person has a new id, and with it no tag of the old one");
    assert_eq!(world.records()["pos/1"], Err("phone_recycled".into()));
    assert_eq!((done.removed, done.counts["pos"].quarantined[&Reason::PhoneRecycled]), (vec![before], 2));
    assert_eq!(world.columns_of("pos/3")["name"], Some("李四".into()));
    // Where the row of the new holder goes, the old one is back, under the id from before.
    world.run(&[snapshot("pos", &old)]);
    assert_eq!(world.member_of("pos/2"), before);
}

#[test]
fn who_was_taken_for_the_former_holder_gets_an_id_of_its_own() {
    let mut world = World::merging();
    let old = with_union(seen("1", A, "张三", 0, 20), "u").with(|row| row.updated = day(20));
    // Cards without a name are the former holder's, as far as anybody can tell.
    let new = [seen("2", A, "李四", 200, 200), seen("3", A, "李四", 210, 210)];
    let nameless = new.clone().map(|row| row.with(|row| row.name = String::new()));
    let day_one = [std::slice::from_ref(&old), &nameless[..]].concat();
    world.run(&[snapshot("pos", &day_one)]);
    let before = world.member_of("pos/1");
    assert_eq!(world.member_of("pos/3"), before);
    // Then the names are known: the id is not theirs, though most of the rows are.
    let done = world.run(&[snapshot("pos", &[std::slice::from_ref(&old), &new[..]].concat())]);
    assert_eq!(world.records()["pos/1"], Err("phone_recycled".into()));
    let second = world.member_of("pos/2");
    assert!(second != before && second == world.member_of("pos/3"));
    assert_eq!((done.removed, done.splits, done.merges), (vec![before], vec![], vec![]));
    // Where the former holder has another number, the id stays with him.
    let mut world = World::merging();
    let moved = with_union(seen("4", B, "张三", 30, 40), "u").with(|row| row.updated = day(220));
    world.run(&[snapshot("pos", &[&day_one[..], std::slice::from_ref(&moved)].concat())]);
    let before = world.member_of("pos/4");
    assert_eq!(world.member_of("pos/3"), before);
    let more = seen("5", A, "李四", 220, 220);
    let done = world.run(&[snapshot("pos", &[&[old, moved, more], &new[..]].concat())]);
    assert_eq!((world.member_of("pos/1"), world.member_of("pos/4")), (before, before));
    assert_ne!(world.member_of("pos/2"), before);
    assert_eq!((done.removed, done.splits), (vec![], vec![]));
}

#[test]
fn who_lost_a_number_is_reached_by_another_key() {
    let mut world = World::merging();
    let old = with_union(seen("1", A, "张三", 0, 20), "u").with(|row| row.updated = day(20));
    let moved = with_union(seen("2", B, "张三", 150, 160), "u").with(|row| row.updated = day(160));
    let new = seen("3", A, "李四", 200, 200);
    world.run(&[snapshot("pos", &[old.clone(), moved, new.clone()])]);
    assert_eq!(world.member_of("pos/1"), world.member_of("pos/2"), "the new number is the most recent one");
    assert_ne!(world.member_of("pos/1"), world.member_of("pos/3"));
    // One whose most recent number is the lost one cannot be reached.
    let earlier = with_union(seen("2", B, "张三", 0, 1), "u").with(|row| row.updated = day(1));
    world.run(&[snapshot("pos", &[old, earlier, new])]);
    assert_eq!(world.records()["pos/2"], Err("phone_recycled".into()));
}

/// A number that had no other holder, or the first of several: the record is none.
fn came(phone: &str, with: Option<&str>) -> (String, Option<String>) {
    (format!("86{phone}"), with.map(str::to_owned))
}

#[test]
fn each_holder_of_a_number_is_known_by_the_record_that_it_came_with() {
    let mut world = World::merging();
    let first = with_union(seen("1", A, "张三", 0, 20), "u");
    let moved = with_union(seen("2", B, "张三", 30, 40), "u").with(|row| row.updated = day(40));
    world.run(&[snapshot("pos", &[first.clone(), moved.clone()])]);
    assert_eq!(world.held, [], "nobody else had the number");
    let second = [seen("3", A, "李四", 160, 160), seen("4", A, "李四", 150, 150)];
    world.run(&[snapshot("pos", &[first.clone(), moved.clone(), second[0].clone(), second[1].clone()])]);
    assert_eq!((world.came_with("pos/1"), world.came_with("pos/3")), (vec![came(A, None)], vec![came(A, Some("pos/4"))]));
    // An older card of the same person changes nothing, nor does it that the first holder's rows go.
    let older = seen("5", A, "李四", 145, 145);
    let later = [&second[..], &[older]].concat();
    world.run(&[snapshot("pos", &[&[first, moved.clone()], &later[..]].concat())]);
    assert_eq!(world.came_with("pos/5"), [came(A, Some("pos/4"))]);
    world.run(&[snapshot("pos", &[std::slice::from_ref(&moved), &later[1..2]].concat())]);
    assert_eq!((world.came_with("pos/2"), world.came_with("pos/4")), (vec![], vec![came(A, Some("pos/4"))]));
    // A third one has another record, and who went before keeps the own.
    let third = seen("6", A, "王五", 290, 290);
    let at_b = with_union(seen("7", B, "李四", 170, 180), "v").with(|row| row.updated = day(180));
    let kept = with_union(later[1].clone(), "v");
    world.run(&[snapshot("pos", &[kept.clone(), at_b.clone(), third.clone()])]);
    assert_eq!((world.came_with("pos/4"), world.came_with("pos/6")), (vec![came(A, Some("pos/4"))], vec![came(A, Some("pos/6"))]));
    // Where the record itself is gone, nothing tells.
    world.run(&[snapshot("pos", &[at_b])]);
    assert_eq!(world.held, []);
}

#[test]
fn who_turns_out_to_be_several_holders_of_a_number_is_all_of_them() {
    let mut world = World::merging();
    let (old, new) = (seen("1", A, "张三", 0, 20), seen("2", A, "李四", 200, 200));
    let moved = with_union(seen("3", B, "张三", 150, 210), "u").with(|row| row.updated = day(210));
    let rows = [with_union(old, "u"), new.clone(), moved];
    world.run(&[snapshot("pos", &rows)]);
    let both = [came(A, None), came(A, Some("pos/2"))];
    assert_eq!((world.came_with("pos/1"), world.came_with("pos/2")), (both[..1].to_vec(), both[1..].to_vec()));
    world.decide(reunion_model::DecisionKind::Same, &["pos/2"], &["pos/3"]);
    world.run(&[]);
    assert_eq!((world.came_with("pos/1"), world.member_of("pos/1")), (both.to_vec(), world.member_of("pos/2")));
    world.withdraw_all();
    world.run(&[]);
    assert_eq!((world.came_with("pos/1"), world.came_with("pos/2")), (both[..1].to_vec(), both[1..].to_vec()));
    // The name from before comes back: the number had not been given away.
    let back = seen("4", A, "张三", 205, 206);
    world.run(&[snapshot("pos", &[&rows[..], &[back]].concat())]);
    assert_eq!((world.came_with("pos/2"), world.member_of("pos/1")), (both.to_vec(), world.member_of("pos/2")));
}

#[test]
fn one_person_with_a_card_in_each_store_is_no_cashier() {
    let mut world = World::new(config(&["phone"], 3, Merge));
    let cards = (0..10).map(|card| named(&card.to_string(), A, "张三")).collect::<Vec<_>>();
    world.run(&[snapshot("pos", &cards)]);
    assert_eq!(world.people().len(), 1);
    let mut more = cards.clone();
    more.push(named("x", A, "李四"));
    world.run(&[snapshot("pos", &more)]);
    assert_eq!(world.records()["pos/0"], Err("shared_phone".into()));
    // Without names nothing says that it is one person.
    world.run(&[snapshot("pos", &cards.clone().into_iter().map(|row| row.with(|row| row.name.clear())).collect::<Vec<_>>())]);
    assert_eq!(world.records()["pos/0"], Err("shared_phone".into()));
}

#[test]
fn columns_of_one_key_have_to_agree_together() {
    let mut world = World::new(config(&["phone", "name+unionid"], 5, Merge));
    let card = |id: &str, phone: &str, name: &str, union: &str| with_union(named(id, phone, name), union);
    world.run(&[snapshot(
        "pos",
        &[card("1", A, "张三", "u"), card("2", B, "张三", "u"), card("3", C, "李四", "u"), card("4", "13912345674", "张三", "")],
    )]);
    assert_eq!(world.member_of("pos/1"), world.member_of("pos/2"));
    assert_eq!(world.people().len(), 3);
}

fn limited(column: &str, limits: KeyLimits) -> IdentityConfig {
    let mut config = config(&["phone", "unionid"], 5, Merge);
    config.limits.insert(column.into(), limits);
    config
}

#[test]
fn values_that_too_many_share_and_blocked_ones_join_nobody() {
    let rows = |count: u32| (0..count).map(|at| with_union(row(&at.to_string(), &format!("1391234{at:04}")), "u")).collect::<Vec<_>>();
    let mut world = World::new(limited("unionid", KeyLimits { records_max: 3, ..KeyLimits::default() }));
    world.run(&[snapshot("pos", &rows(3))]);
    assert_eq!(world.people().len(), 1);
    world.run(&[snapshot("pos", &rows(4))]);
    assert_eq!(world.people().len(), 4);
    let mut world = World::new(limited("unionid", KeyLimits { blocked: vec!["u".into()], ..KeyLimits::default() }));
    world.run(&[snapshot("pos", &rows(3))]);
    assert_eq!(world.people().len(), 3);
}

#[test]
fn a_member_has_no_more_values_than_one_person_has() {
    // A chain: one phone joins two unionids, and a person has one.
    let once = KeyLimits { values_max: Some(1), ..KeyLimits::default() };
    let mut world = World::new(limited("unionid", once));
    let card = |id: &str, phone: &str, union: &str, on: u32| with_union(founded(id, phone, on), union);
    let rows = [card("1", A, "u", 1), card("2", A, "v", 2), card("3", B, "v", 3), card("4", A, "", 4)];
    world.run(&[snapshot("pos", &rows)]);
    assert_eq!(world.member_of("pos/1"), world.member_of("pos/4"), "the oldest row goes first");
    assert_eq!(world.member_of("pos/2"), world.member_of("pos/3"));
    assert_eq!(world.people().len(), 2);
}

#[test]
fn an_operator_joins_and_keeps_apart_and_it_lasts() {
    let mut world = World::merging();
    let rows = [founded("1", A, 1), founded("2", B, 2), founded("3", C, 3)];
    world.run(&[snapshot("pos", &rows)]);
    let ids = ["pos/1", "pos/2", "pos/3"].map(|record| world.member_of(record));
    world.decide(DecisionKind::Same, &["pos/1"], &["pos/2"]);
    let done = world.run(&[snapshot("pos", &rows)]);
    assert_eq!((world.member_of("pos/2"), done.merges), (ids[0], vec![(ids[1], ids[0])]));
    // A key joins what the operator keeps apart, in vain; who is on neither side goes with the older one.
    world.decide(DecisionKind::Apart, &["pos/1", "pos/2"], &["pos/3"]);
    let joined = [
        with_union(founded("1", A, 1), "u"),
        founded("2", B, 2),
        with_union(founded("3", C, 3), "u"),
        with_union(founded("4", "13912345674", 4), "u"),
    ];
    world.run(&[snapshot("pos", &joined)]);
    assert_eq!((world.member_of("pos/3"), world.member_of("pos/4")), (ids[2], ids[0]));
    // The member of the first decision is another person since, and it still holds.
    world.run(&[increment("pos", &[founded("1", "13912345675", 1)])]);
    assert_eq!(world.member_of("pos/1"), world.member_of("pos/2"));
    world.withdraw_all();
    world.run(&[snapshot("pos", &joined)]);
    assert_eq!(world.member_of("pos/3"), world.member_of("pos/1"));
    assert_ne!(world.member_of("pos/2"), world.member_of("pos/1"));
}
