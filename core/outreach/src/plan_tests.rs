//! Tests of the planner: each gate, the order, and that every plan adds up.

use std::collections::{HashMap, HashSet};

use insta::assert_snapshot;
use proptest::prelude::*;
use reunion_model::{Purpose, RecordKey};

use super::*;
use crate::campaign::{TaskColumn, Window};
use crate::testing::{Person, lookup, people};

const DAY_US: i64 = 86_400_000_000;
/// Noon UTC.
const CLOCK_US: i64 = 20_000 * DAY_US + DAY_US / 2;

/// Everything that a plan of one campaign is made of.
#[derive(Debug, Clone)]
struct World {
    persons: Vec<Person>,
    campaign: Campaign,
    outside: HashSet<u128>,
    suppressed: Suppressed,
    touches: HashMap<ContactId, Touches>,
    arms: HashMap<ContactId, Arm>,
    planned_today: HashMap<String, u32>,
    /// Members with records of a number that came to somebody else.
    held: Vec<(MemberId, Phone, Option<RecordKey>)>,
    stale_sources: u64,
    rows_per_batch: usize,
    threads: usize,
}

impl World {
    fn of(persons: u64) -> Self {
        Self {
            persons: (0..persons).map(Person::new).collect(),
            campaign: Campaign::new("warm-add", "store-list"),
            outside: HashSet::new(),
            suppressed: Suppressed::default(),
            touches: HashMap::new(),
            arms: HashMap::new(),
            planned_today: HashMap::new(),
            held: Vec::new(),
            stale_sources: 0,
            rows_per_batch: 3,
            threads: 1,
        }
    }

    fn contact(&self, person: usize) -> ContactId {
        lookup().contact(self.persons[person].phone.unwrap())
    }

    fn plan(&self) -> Plan {
        let members = people(&self.persons, self.rows_per_batch);
        let audience: Vec<BooleanArray> = self
            .persons
            .chunks(self.rows_per_batch)
            .map(|persons| persons.iter().map(|person| (!self.outside.contains(&person.id)).then_some(true)).collect())
            .collect();
        let campaigns = [CampaignInput {
            campaign: &self.campaign,
            audience: &audience,
            touches: &self.touches,
            arms: &self.arms,
            seed: None,
            planned_today: &self.planned_today,
        }];
        plan(&PlanInput {
            clock_us: CLOCK_US,
            timezone: &TimeZone::UTC,
            lookup: &lookup(),
            members: &members,
            stale_sources: self.stale_sources,
            suppressed: &self.suppressed,
            holders: &Holders::new(&lookup(), self.held.iter().copied()),
            campaigns: &campaigns,
            threads: self.threads,
        })
        .unwrap()
    }

    /// The gates that stopped members, by member id.
    fn gates(&self) -> Vec<(u128, &'static str)> {
        let decisions = self.plan().decisions;
        let ids = decisions.member_id.iter().map(|id| id.as_u128());
        let mut gates: Vec<_> = ids.zip(decisions.gate.iter().map(|gate| gate.map_or("held_out", Gate::code))).collect();
        gates.sort_unstable();
        gates
    }
}

fn ids(plan: &Plan) -> Vec<u128> {
    plan.tasks().map(|(_, task)| task.member_id.as_u128()).collect()
}

#[test]
fn a_plan_is_written_out_in_order() {
    let mut world = World::of(3);
    world.persons[2].total_spent = None;
    world.campaign.due_days = Some(2);
    world.campaign.group_by = vec![TaskColumn::Store];
    let schema = people(&world.persons, 9)[0].schema();
    world.campaign.message = Some(Template::compile("{{ name }},{{ phone_tail }},{{ due }}", &schema).unwrap());
    let plan = world.plan();
    assert_eq!(ids(&plan), [1, 0, 2], "the greater total_spent first, nulls last");
    let task = &plan.campaigns[0].tasks[0];
    assert_eq!(task.message.as_deref(), Some("王女士,1201,2024-10-06"));
    assert_eq!((task.touch, task.attempt, task.group.as_str()), (1, 1, r#"["S01"]"#));
    assert_eq!(task.due_us, Some(20_003 * DAY_US - 1_000_000));
    assert!(plan.campaigns[0].seed_is_new);
    assert_eq!(plan.campaigns[0].new_arms.len(), 3);
    assert_eq!(plan.tasks_digest, world.plan().tasks_digest);
    assert_snapshot!(serde_json::to_string(&plan.campaigns[0].counts).unwrap(), @r#"{"audience":3,"refused":{},"held_out":0,"deferred":{},"planned":3}"#);
}

#[test]
fn the_digest_of_nothing_is_the_hash_of_nothing() {
    assert_snapshot!(World::of(0).plan().tasks_digest, @"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

#[test]
fn each_gate_stops_its_own() {
    let mut world = World::of(12);
    world.campaign.consent = Some(Purpose::Sms);
    (world.campaign.touches_max, world.campaign.gap_days) = (2, 30);
    world.campaign.needs = vec![TaskColumn::Store];
    world.stale_sources = 0b10;
    let touched = |touches, days_ago| Touches { touches, last_touch_us: Some(CLOCK_US - days_ago * DAY_US), ..Default::default() };
    world.persons[1].phone = None;
    world.persons[2].do_not_contact = true;
    world.suppressed.contacts.insert(world.contact(3));
    world.touches.insert(world.contact(4), Touches { said_no: true, ..touched(1, 90) });
    world.persons[5].sms_consent = Some("unknown");
    world.touches.insert(world.contact(6), touched(2, 90));
    world.persons[7].phone = world.persons[8].phone;
    world.touches.insert(world.contact(9), touched(1, 29));
    world.persons[10].sources = 0b11;
    world.persons[11].store = None;
    world.outside.insert(0);
    assert_eq!(
        world.gates(),
        [
            (1, "gone"),
            (2, "suppressed"),
            (3, "suppressed"),
            (4, "suppressed"),
            (5, "no_consent"),
            (6, "touches_max"),
            (7, "same_contact"),
            (9, "gap"),
            (10, "stale"),
            (11, "incomplete"),
        ]
    );
    let plan = world.plan();
    assert_eq!((ids(&plan), plan.campaigns[0].counts.audience), (vec![8], 11));
}

#[test]
fn a_second_touch_waits_for_the_gap_in_calendar_days() {
    let mut world = World::of(1);
    (world.campaign.touches_max, world.campaign.gap_days) = (2, 30);
    // Sent an hour later in the day than the run's clock, thirty days ago.
    let sent = CLOCK_US - 30 * DAY_US + DAY_US / 24;
    world.touches.insert(world.contact(0), Touches { touches: 1, last_touch_us: Some(sent), next_try: 3, ..Default::default() });
    let plan = world.plan();
    let task = &plan.campaigns[0].tasks[0];
    assert_eq!((task.touch, task.attempt), (2, 3));
    assert_eq!(task.task_id, task_id(&lookup(), "warm-add", task.contact, 2, 3));
    world.touches.get_mut(&task.contact).unwrap().in_progress = true;
    assert_eq!(world.gates(), [(0, "in_progress")]);
}

#[test]
fn limits_cut_in_order() {
    let mut world = World::of(8);
    world.campaign.per_store_per_day_max = 3;
    world.planned_today.insert("S01".into(), 1);
    world.persons[0].store = Some("S02");
    world.persons[6].store = None;
    world.campaign.per_run_max = 4;
    let plan = world.plan();
    assert_eq!(ids(&plan), [7, 6, 5, 0], "the best two of the store, one without a store, one of another store");
    assert_eq!(plan.campaigns[0].counts.deferred, BTreeMap::from([(Gate::StorePerDay, 4)]));
    world.campaign.per_run_max = 3;
    assert_eq!(
        world.gates(),
        [
            (0, "per_run_max"),
            (1, "per_store_per_day_max"),
            (2, "per_store_per_day_max"),
            (3, "per_store_per_day_max"),
            (4, "per_store_per_day_max")
        ]
    );
}

#[test]
fn a_closed_window_defers_everybody() {
    let mut world = World::of(2);
    world.campaign.window = Some(Window::new("06:00".parse().unwrap(), "09:00".parse().unwrap(), &[]).unwrap());
    assert_eq!(world.gates(), [(0, "window"), (1, "window")]);
}

#[test]
fn a_text_that_lacks_a_value_defers_the_member() {
    let mut world = World::of(3);
    world.persons[1].name = None;
    let schema = people(&world.persons, 9)[0].schema();
    world.campaign.reason = Some(Template::compile("{{ name }}", &schema).unwrap());
    assert_eq!(world.gates(), [(1, "incomplete")]);
    world.campaign.reason = Some(Template::compile("{% if store == 'S02' %}{{ name }}{% endif %}", &schema).unwrap());
    world.persons[1].store = Some("S02");
    assert_eq!(world.gates(), [(1, "incomplete")], "found only when the text is written");
}

#[test]
fn the_control_group_is_drawn_once() {
    let mut world = World::of(200);
    world.campaign.holdout = 0.5;
    world.campaign.per_store_per_day_max = 10;
    let first = world.plan().campaigns.remove(0);
    assert!((60..140).contains(&first.counts.held_out), "{}", first.counts.held_out);
    let control: HashSet<_> = first.new_arms.iter().filter(|(_, arm)| *arm == Arm::Control).map(|(contact, _)| *contact).collect();
    assert_eq!(control.len() as u64, first.counts.held_out);
    assert!(first.tasks.iter().all(|task| !control.contains(&task.contact)));
    // The share grows: those who were drawn stay where they are.
    world.arms = first.new_arms.iter().copied().collect();
    world.campaign.holdout = 1.0;
    let second = world.plan().campaigns.remove(0);
    assert_eq!(second.tasks.len(), 10, "those with an arm of their own");
    assert!(second.new_arms.iter().all(|(contact, _)| !world.arms.contains_key(contact)));
    // Touched before arms were stored: never held out.
    world.arms.clear();
    world.touches = first.tasks.iter().map(|task| (task.contact, Touches { in_progress: true, ..Default::default() })).collect();
    assert_eq!(world.plan().campaigns[0].counts.deferred, BTreeMap::from([(Gate::InProgress, 10)]));
    // The share shrinks: nobody who was held out is contacted.
    (world.campaign.holdout, world.arms) = (0.0, control.iter().map(|contact| (*contact, Arm::Control)).collect());
    assert_eq!(world.plan().campaigns[0].counts.held_out, first.counts.held_out);
}

#[test]
fn a_campaign_that_is_off_is_not_in_the_plan() {
    let mut world = World::of(2);
    world.campaign.enabled = false;
    assert_eq!(world.plan().campaigns, []);
}

#[test]
fn columns_that_do_not_fit_are_named() {
    let world = World::of(1);
    let members = people(&world.persons, 1);
    let without = |name: &str| {
        let keep: Vec<_> = members[0].schema().fields().iter().map(|f| f.name().clone()).filter(|column| column != name).collect();
        let columns: Vec<_> = keep.iter().map(|column| members[0].schema().index_of(column).unwrap()).collect();
        let batches = [members[0].project(&columns).unwrap()];
        let (touches, arms, today) = (HashMap::new(), HashMap::new(), HashMap::new());
        let audience = [BooleanArray::from(vec![true, true])];
        let campaign = CampaignInput {
            campaign: &world.campaign,
            audience: &audience,
            touches: &touches,
            arms: &arms,
            seed: None,
            planned_today: &today,
        };
        let input = PlanInput {
            clock_us: CLOCK_US,
            timezone: &TimeZone::UTC,
            lookup: &lookup(),
            members: &batches,
            stale_sources: 1,
            suppressed: &Suppressed::default(),
            holders: &Holders::default(),
            campaigns: &[campaign],
            threads: 1,
        };
        plan(&input).unwrap_err().to_string()
    };
    assert_snapshot!(without("phone"), @r#"the members have no column "phone""#);
    assert_snapshot!(without("source_mask"), @r#"the members have no column "source_mask""#);
    assert_snapshot!(without("name"), @"batch 0 has 1 members, and the audience of warm-add has 2 values for it");
}

#[test]
fn what_was_done_at_another_number_was_done_to_the_member() {
    let mut world = World::of(9);
    (world.campaign.touches_max, world.campaign.gap_days) = (2, 30);
    // Each but the first has another number; what happened there is what decides.
    let other = |person: u64| Phone::from_china_mobile(13_900_002_000 + person);
    for (person, of) in (0..).zip(&mut world.persons).skip(1) {
        of.other_phones = vec![other(person)];
    }
    let contact = |person: u64| lookup().contact(other(person));
    let touched = |touches, days_ago| Touches { touches, last_touch_us: Some(CLOCK_US - days_ago * DAY_US), ..Default::default() };
    world.suppressed.contacts = HashSet::from([contact(1), contact(2)]);
    world.suppressed.people = HashSet::from([contact(1)]);
    world.touches.insert(contact(3), Touches { said_no: true, ..touched(1, 90) });
    world.touches.insert(contact(4), touched(1, 1));
    world.touches.insert(contact(5), touched(1, 90));
    world.touches.insert(world.contact(5), touched(1, 60));
    world.touches.insert(contact(6), Touches { in_progress: true, ..Default::default() });
    world.arms.insert(contact(7), Arm::Control);
    world.arms.insert(world.contact(7), Arm::Treatment);
    world.touches.insert(contact(8), touched(1, 90));
    assert_eq!(
        world.gates(),
        [(1, "suppressed"), (3, "suppressed"), (4, "gap"), (5, "touches_max"), (6, "in_progress"), (7, "held_out")],
        "a wrong number says nothing of the others"
    );
    let plan = world.plan();
    let touches: Vec<_> = plan.tasks().map(|(_, task)| (task.member_id.as_u128(), task.touch)).collect();
    assert_eq!(touches, [(8, 1), (2, 1), (0, 1)], "the first touch of this number, though the second of the member");
    let control = (world.contact(7), Arm::Control);
    assert!(plan.campaigns[0].new_arms.contains(&control), "it stays held out once the other number is gone");
}

#[test]
fn who_was_contacted_at_another_number_is_not_held_out() {
    let mut world = World::of(200);
    (world.campaign.holdout, world.campaign.touches_max) = (1.0, 2);
    let touched = Phone::from_china_mobile(13_900_002_000);
    world.persons[0].other_phones = vec![touched];
    world.touches.insert(lookup().contact(touched), Touches { touches: 1, ..Default::default() });
    assert_eq!(ids(&world.plan()), [0]);
}

#[test]
fn whoever_gets_a_number_is_drawn_anew_and_stays_drawn() {
    let mut world = World::of(200);
    (world.campaign.holdout, world.campaign.touches_max, world.campaign.per_store_per_day_max) = (0.5, 5, 1000);
    let first = world.plan().campaigns.remove(0);
    world.arms = first.new_arms.iter().copied().collect();
    // All numbers are somebody else's now.
    let phones = world.persons.iter().map(|person| person.phone.expect("one"));
    let held = phones.clone().zip(&world.persons).map(|(phone, person)| (phone, MemberId::from_u128(person.id)));
    world.held = held.map(|(phone, member)| (member, phone, Some(RecordKey(member.0)))).collect();
    let second = world.plan().campaigns.remove(0);
    let held_out = |plan: &CampaignPlan| {
        let planned: HashSet<_> = plan.tasks.iter().map(|task| task.contact).collect();
        phones.clone().map(|phone| lookup().contact(phone)).filter(|contact| !planned.contains(contact)).collect::<HashSet<_>>()
    };
    let in_both = held_out(&first).intersection(&held_out(&second)).count();
    assert!((30..70).contains(&in_both), "{in_both} of 200 are in a half that was drawn twice");
    assert!(second.new_arms.len() == 200 && second.new_arms.iter().all(|(place, _)| !world.arms.contains_key(place)));
    // With other shares, and where they had been touched before: each keeps the own arm.
    world.arms.extend(second.new_arms.iter().copied());
    for holdout in [0.0, 1.0] {
        world.campaign.holdout = holdout;
        let third = world.plan().campaigns.remove(0);
        assert_eq!((held_out(&third), third.new_arms), (held_out(&second), vec![]));
    }
}

fn person() -> impl Strategy<Value = Person> {
    let texts = prop_oneof![Just(None), Just(Some("S01")), Just(Some("S02"))];
    let others = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(0..30_u64, 1..3)];
    let number = |number: u64| Phone::from_china_mobile(13_900_001_200 + number);
    let phones = (prop::option::weighted(0.9, 0..30_u64), others);
    (0..40_u64, phones, texts, prop::option::of(0..5_i128), prop::bool::weighted(0.1), 1..4_u64).prop_map(
        move |(consent, (phone, others), store, total_spent, do_not_contact, sources)| Person {
            phone: phone.map(number),
            other_phones: others.into_iter().filter(|other| Some(*other) != phone).map(number).collect(),
            store,
            total_spent,
            do_not_contact,
            sources,
            sms_consent: ["granted", "unknown", "withdrawn"].get(consent as usize).copied().or(Some("granted")),
            ..Person::new(0)
        },
    )
}

fn worlds() -> impl Strategy<Value = World> {
    let touches = prop::collection::vec((0..30_u64, 0..3_u32, 0..50_i64, any::<bool>(), prop::bool::weighted(0.2)), 0..10);
    let limits = (1..3_u32, 1..12_u32, 1..5_u32, 0..4_u64, prop::option::of(0..5_u32));
    let sets = (prop::collection::vec(0..30_u64, 0..4), prop::collection::hash_set(0..40_u128, 0..8));
    (prop::collection::vec(person(), 0..40), touches, limits, sets, 0.0..0.6_f64).prop_map(
        |(persons, touches, (touches_max, per_run_max, per_store, stale_sources, today), (suppressed, outside), holdout)| {
            let mut world = World::of(0);
            let contact = |number: u64| lookup().contact(Phone::from_china_mobile(13_900_001_200 + number));
            world.persons = persons.into_iter().enumerate().map(|(id, person)| Person { id: id as u128, ..person }).collect();
            world.touches = touches
                .into_iter()
                .map(|(number, touches, days, in_progress, said_no)| {
                    let last_touch_us = (touches > 0).then_some(CLOCK_US - days * DAY_US);
                    (contact(number), Touches { touches, last_touch_us, in_progress, said_no, next_try: 1 })
                })
                .collect();
            world.suppressed.contacts = suppressed.into_iter().map(contact).collect();
            world.suppressed.people = world.suppressed.contacts.iter().filter(|contact| contact.0[0] % 2 == 0).copied().collect();
            world.planned_today = today.map(|count| ("S02".to_owned(), count)).into_iter().collect();
            (world.outside, world.stale_sources) = (outside, stale_sources);
            let campaign = &mut world.campaign;
            (campaign.touches_max, campaign.gap_days, campaign.holdout) = (touches_max, 20, holdout);
            (campaign.per_run_max, campaign.per_store_per_day_max) = (per_run_max, per_store);
            (campaign.consent, campaign.needs) = (Some(Purpose::Sms), vec![TaskColumn::Store]);
            world
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_plan_adds_up_and_touches_no_phone_twice(world in worlds()) {
        let plan = world.plan();
        let counts = &plan.campaigns[0].counts;
        let audience = world.persons.iter().filter(|person| !world.outside.contains(&person.id)).count() as u64;
        let stopped = counts.refused.values().sum::<u64>() + counts.deferred.values().sum::<u64>();
        prop_assert_eq!(counts.audience, audience);
        prop_assert_eq!(counts.audience, stopped + counts.held_out + counts.planned);
        prop_assert_eq!(plan.decisions.len() as u64, stopped + counts.held_out);
        prop_assert!(counts.planned <= u64::from(world.campaign.per_run_max));
        let contacts: HashSet<_> = plan.tasks().map(|(_, task)| task.contact).collect();
        prop_assert_eq!(contacts.len() as u64, counts.planned);
        for (_, task) in plan.tasks() {
            let person = world.persons.iter().find(|person| person.id == task.member_id.as_u128()).expect("whom it is for");
            let others = person.other_phones.iter().map(|phone| lookup().contact(*phone)).collect::<Vec<_>>();
            prop_assert!(!world.suppressed.contacts.contains(&task.contact));
            prop_assert!(others.iter().all(|other| !world.suppressed.people.contains(other)));
            let all = || std::iter::once(&task.contact).chain(&others).filter_map(|contact| world.touches.get(contact));
            prop_assert!(all().all(|touches| !touches.said_no && !touches.in_progress));
            prop_assert!(all().map(|touches| touches.touches).sum::<u32>() < world.campaign.touches_max);
            let touch = world.touches.get(&task.contact).map_or(1, |touches| touches.touches + 1);
            prop_assert_eq!(task.touch, touch, "touches are numbered by contact point");
        }
    }

    #[test]
    fn a_plan_does_not_depend_on_the_order_of_rows(world in worlds(), turn in 0..40_usize, rows_per_batch in 1..50_usize) {
        let mut other = world.clone();
        if !other.persons.is_empty() {
            let turn = turn % other.persons.len();
            other.persons.rotate_left(turn);
            other.persons.reverse();
        }
        (other.rows_per_batch, other.threads) = (rows_per_batch, 3);
        let (one, two) = (world.plan(), other.plan());
        prop_assert_eq!(one.campaigns, two.campaigns);
        prop_assert_eq!(one.tasks_digest, two.tasks_digest);
        prop_assert_eq!(world.gates(), other.gates());
    }
}
