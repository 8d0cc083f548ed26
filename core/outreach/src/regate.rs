//! The gates again: for every open task when people change, and for each task when it is about to be
//! sent.

use std::collections::{HashMap, HashSet};

use arrow::array::{BooleanArray, RecordBatch};
use jiff::tz::TimeZone;

use reunion_keys::Lookup;
use reunion_model::{ContactId, Gate, MemberId, TaskId};

use crate::arm::Arm;
use crate::campaign::Campaign;
use crate::gates::{PermanentFacts, Touches, gap_from, permanent};
use crate::holder::Holders;
use crate::members::{Members, MembersError};
use crate::person::{Past, Suppressed};

/// A task that has not been given to its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTask {
    /// The task.
    pub task_id: TaskId,
    /// The name of its campaign.
    pub campaign: String,
    /// The contact point that it would touch.
    pub contact: ContactId,
    /// The member that it was planned for.
    pub member_id: MemberId,
}

/// The world after a run.
#[derive(Clone, Copy)]
pub struct RegateInput<'a> {
    /// The run's clock, microseconds UTC.
    pub clock_us: i64,
    /// The timezone in which days are cut.
    pub timezone: &'a TimeZone,
    /// Makes contact points.
    pub lookup: &'a Lookup,
    /// All members, with the columns that [`crate::members`] lists.
    pub members: &'a [RecordBatch],
    /// The member that each merged one became part of.
    pub forwards: &'a HashMap<MemberId, MemberId>,
    /// Contact points that nobody may touch.
    pub suppressed: &'a Suppressed,
    /// Who holds numbers that came to somebody else.
    pub holders: &'a Holders,
    /// Every campaign that the config has, on or off, by name.
    pub campaigns: &'a HashMap<&'a str, RegateCampaign<'a>>,
}

/// A campaign of the config and what is known of it now.
#[derive(Clone, Copy)]
pub struct RegateCampaign<'a> {
    /// The campaign.
    pub campaign: &'a Campaign,
    /// One array per batch of members; `None` where the run did not work it out, and the audience is
    /// not checked.
    pub audience: Option<&'a [BooleanArray]>,
    /// What it has done so far.
    pub touches: &'a HashMap<ContactId, Touches>,
    /// The arms that are stored, merges taken into account, by the contact points that [`Holders`] has for them.
    pub arms: &'a HashMap<ContactId, Arm>,
}

/// The open tasks that have to be cancelled, each with the gate that it no longer passes, in the order
/// in which they were given. Temporary gates cancel nothing: they are checked when the task is sent. The exception is
/// what the task's own contact point did not know when it was planned: that the same person, who was another member
/// then, is being contacted or was contacted lately at another number.
///
/// # Errors
/// Where a column is missing or has another type, or an audience does not belong to the members.
pub fn regate(input: &RegateInput<'_>, tasks: &[OpenTask]) -> Result<Vec<(TaskId, Gate)>, MembersError> {
    let members = Members::new(input.members)?;
    for campaign in input.campaigns.values() {
        if let Some(audience) = campaign.audience {
            members.check_audience(&campaign.campaign.name, audience)?;
        }
    }
    let rows = rows(input, &members, tasks);
    let stopped = |task: &OpenTask| stops(input, &members, &rows, task).map(|gate| (task.task_id, gate));
    Ok(tasks.iter().filter_map(stopped).collect())
}

/// The rows of the members that the tasks are for.
fn rows(input: &RegateInput<'_>, members: &Members<'_>, tasks: &[OpenTask]) -> HashMap<MemberId, usize> {
    let wanted: HashSet<MemberId> = tasks.iter().map(|task| follow(input.forwards, task.member_id)).collect();
    if wanted.is_empty() {
        return HashMap::new();
    }
    (0..members.len()).map(|row| (members.member_id(row), row)).filter(|(member, _)| wanted.contains(member)).collect()
}

/// The member that a merged one is part of now. Merges form no circle; where a damaged table says so,
/// following ends after as many steps as it has entries.
fn follow(forwards: &HashMap<MemberId, MemberId>, mut member: MemberId) -> MemberId {
    for _ in 0..forwards.len() {
        match forwards.get(&member) {
            Some(into) => member = *into,
            None => break,
        }
    }
    member
}

fn stops(input: &RegateInput<'_>, members: &Members<'_>, rows: &HashMap<MemberId, usize>, task: &OpenTask) -> Option<Gate> {
    let row = rows.get(&follow(input.forwards, task.member_id)).copied();
    let holds_phone = |row: &usize| members.phone(*row).is_some_and(|phone| input.lookup.contact(phone) == task.contact);
    let Some(row) = row.filter(holds_phone) else { return Some(Gate::Gone) };
    let Some(of) = input.campaigns.get(task.campaign.as_str()) else { return Some(Gate::CampaignOff) };
    if of.audience.is_some_and(|audience| !members.is_in(audience, row)) {
        return Some(Gate::NotInAudience);
    }
    if !of.campaign.enabled {
        return Some(Gate::CampaignOff);
    }
    let (past, contact) = (Past { touches: of.touches, arms: of.arms }, task.contact);
    let others = members.other_contacts(row, input.lookup);
    if past.arm(input.holders, members.member_id(row), contact, &others) == Some(Arm::Control) {
        return Some(Gate::Control);
    }
    let touches = past.of_person(contact, &others);
    let facts = PermanentFacts { members, row, contact, others: &others, touches, suppressed: input.suppressed };
    permanent(of.campaign, &facts).or_else(|| {
        let elsewhere = others.iter().fold(Touches::default(), |sum, other| sum.and(past.at(*other)));
        if elsewhere.in_progress {
            Some(Gate::InProgress)
        } else if elsewhere.last_touch_us.is_some_and(|last| last >= gap_from(of.campaign, input.clock_us, input.timezone)) {
            Some(Gate::Gap)
        } else {
            None
        }
    })
}

/// What is known of a task when it is about to enter `sending`. The audience is not asked again: each
/// generation has done that.
#[derive(Debug, Clone, Copy)]
pub struct SendFacts<'a> {
    /// Its campaign; `None` where the config has none of that name.
    pub campaign: Option<&'a Campaign>,
    /// The member is there and has the phone.
    pub member_has_phone: bool,
    /// The contact point is suppressed, a source says not to contact the member, or the member said no.
    pub suppressed: bool,
    /// The contact point is in the campaign's control group.
    pub control: bool,
    /// The member has granted the consent that the channel needs, if it needs one.
    pub consented: bool,
    /// Touches that the campaign has made without this one.
    pub touches: u32,
    /// The data of one of the member's sources is older than its `max_age_hours`.
    pub stale: bool,
}

/// Whether a task may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtSend {
    /// Now.
    Go,
    /// Not now.
    Wait {
        /// The gate that defers it.
        gate: Gate,
        /// From when on it may go, microseconds UTC, where the clock alone decides.
        until_us: Option<i64>,
    },
    /// Never: it moves to `refused`.
    Refuse(Gate),
}

/// Checks a task that is about to be sent.
pub fn gate_at_send(facts: &SendFacts<'_>, clock_us: i64, timezone: &TimeZone) -> AtSend {
    if !facts.member_has_phone {
        return AtSend::Refuse(Gate::Gone);
    }
    let Some(campaign) = facts.campaign.filter(|campaign| campaign.enabled) else { return AtSend::Refuse(Gate::CampaignOff) };
    let refusals = [
        (facts.control, Gate::Control),
        (facts.suppressed, Gate::Suppressed),
        (campaign.consent.is_some() && !facts.consented, Gate::NoConsent),
        (facts.touches >= campaign.touches_max, Gate::TouchesMax),
    ];
    if let Some((_, gate)) = refusals.into_iter().find(|(stops, _)| *stops) {
        return AtSend::Refuse(gate);
    }
    if facts.stale {
        return AtSend::Wait { gate: Gate::Stale, until_us: None };
    }
    match campaign.window.as_ref().filter(|window| !window.contains(clock_us, timezone)) {
        Some(window) => AtSend::Wait { gate: Gate::Window, until_us: Some(window.opens_at(clock_us, timezone)) },
        None => AtSend::Go,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::Window;
    use crate::testing::{Person, lookup, people};
    use reunion_model::Phone;

    fn member(number: u128) -> MemberId {
        MemberId::from_u128(number)
    }

    #[test]
    fn each_change_of_the_world_cancels_for_its_own_reason() {
        let lookup = lookup();
        let persons: Vec<_> = (0..10).map(Person::new).collect();
        let phone = |number: usize| persons[number].phone.unwrap();
        let contact = |number: usize| lookup.contact(phone(number));
        let mut now = persons.clone();
        now[1].phone = Some(phone(9));
        now[2].phone = None;
        now[3].do_not_contact = true;
        now[6].sms_consent = Some("withdrawn");
        now.retain(|person| person.id != 8);
        let members = people(&now, 4);
        let audience: Vec<_> = members.iter().map(|batch| BooleanArray::from(vec![true; batch.num_rows()])).collect();
        let mut campaign = Campaign::new("warm-add", "sms");
        campaign.consent = Some(reunion_model::Purpose::Sms);
        let mut off = Campaign::new("off", "sms");
        off.enabled = false;
        let suppressed = Suppressed { contacts: HashSet::from([contact(4)]), people: HashSet::new() };
        let touches = HashMap::new();
        let arms = HashMap::from([(contact(5), Arm::Control), (contact(7), Arm::Treatment)]);
        // Member 8 became part of member 7, and 20 of 21 of 9.
        let forwards = HashMap::from([(member(8), member(7)), (member(20), member(21)), (member(21), member(9))]);
        let of = RegateCampaign { campaign: &campaign, audience: Some(&audience), touches: &touches, arms: &arms };
        let empty: Vec<_> = members.iter().map(|batch| BooleanArray::from(vec![false; batch.num_rows()])).collect();
        let campaigns = HashMap::from([
            ("warm-add", of),
            ("off", RegateCampaign { campaign: &off, audience: None, ..of }),
            ("narrow", RegateCampaign { audience: Some(&empty), ..of }),
        ]);
        let input = RegateInput {
            clock_us: 0,
            timezone: &TimeZone::UTC,
            lookup: &lookup,
            members: &members,
            forwards: &forwards,
            suppressed: &suppressed,
            holders: &Holders::default(),
            campaigns: &campaigns,
        };
        let open = |number: u8, campaign: &str, contact: ContactId, id: u128| OpenTask {
            task_id: TaskId([number; 16]),
            campaign: campaign.into(),
            contact,
            member_id: member(id),
        };
        let mut tasks: Vec<_> = (0..8).map(|n| open(n, "warm-add", contact(n.into()), n.into())).collect();
        tasks.extend([
            open(8, "warm-add", contact(8), 8),
            open(9, "off", contact(0), 0),
            open(10, "vanished", contact(0), 0),
            open(11, "narrow", contact(0), 0),
            open(12, "warm-add", contact(9), 20),
        ]);
        let cancelled = regate(&input, &tasks).unwrap();
        let cancelled: Vec<_> = cancelled.into_iter().map(|(task, gate)| (task.0[0], gate.code())).collect();
        assert_eq!(
            cancelled,
            [
                (1, "gone"),
                (2, "gone"),
                (3, "suppressed"),
                (4, "suppressed"),
                (5, "control"),
                (6, "no_consent"),
                (8, "gone"),
                (9, "campaign_off"),
                (10, "campaign_off"),
                (11, "not_in_audience"),
            ]
        );
        let short = RegateCampaign { audience: Some(&audience[..1]), ..of };
        let campaigns = HashMap::from([("warm-add", short)]);
        assert!(regate(&RegateInput { campaigns: &campaigns, ..input }, &tasks).is_err());
    }

    #[test]
    fn what_happened_at_another_number_of_the_member_cancels_too() {
        let (lookup, day_us) = (lookup(), 86_400_000_000);
        let mut persons: Vec<_> = (0..7).map(Person::new).collect();
        let other = |number: u64| Phone::from_china_mobile(13_900_002_000 + number);
        for (number, person) in (0..).zip(&mut persons) {
            person.other_phones = vec![other(number)];
        }
        let contact = |number: u64| lookup.contact(other(number));
        let members = people(&persons, 3);
        let mut campaign = Campaign::new("warm-add", "sms");
        (campaign.touches_max, campaign.gap_days) = (2, 30);
        let suppressed = Suppressed { contacts: HashSet::from([contact(1)]), people: HashSet::from([contact(1)]) };
        let touched = |touches, days: i64| Touches { touches, last_touch_us: Some((1_000 - days) * day_us), ..Touches::default() };
        let touches = HashMap::from([
            (contact(3), touched(1, 1)),
            (contact(4), touched(2, 90)),
            (contact(5), Touches { in_progress: true, ..Touches::default() }),
            (contact(6), touched(1, 90)),
        ]);
        let arms = HashMap::from([(contact(2), Arm::Control)]);
        let of = RegateCampaign { campaign: &campaign, audience: None, touches: &touches, arms: &arms };
        let input = RegateInput {
            clock_us: 1_000 * day_us,
            timezone: &TimeZone::UTC,
            lookup: &lookup,
            members: &members,
            forwards: &HashMap::new(),
            suppressed: &suppressed,
            holders: &Holders::default(),
            campaigns: &HashMap::from([("warm-add", of)]),
        };
        let open = |number: u8| OpenTask {
            task_id: TaskId([number; 16]),
            campaign: "warm-add".into(),
            contact: lookup.contact(persons[usize::from(number)].phone.unwrap()),
            member_id: member(number.into()),
        };
        let cancelled = regate(&input, &(0..7).map(open).collect::<Vec<_>>()).unwrap();
        let cancelled: Vec<_> = cancelled.into_iter().map(|(task, gate)| (task.0[0], gate.code())).collect();
        assert_eq!(cancelled, [(1, "suppressed"), (2, "control"), (3, "gap"), (4, "touches_max"), (5, "in_progress")]);
        // The number of the task itself is another's by now: the member has a later one.
        let stale = OpenTask { contact: contact(6), ..open(6) };
        assert_eq!(regate(&input, &[stale]).unwrap(), [(TaskId([6; 16]), Gate::Gone)]);
    }

    #[test]
    fn a_circle_of_merges_ends() {
        let forwards = HashMap::from([(member(1), member(2)), (member(2), member(1))]);
        assert_eq!(follow(&forwards, member(1)), member(1));
    }

    #[test]
    fn a_task_is_gated_when_it_is_about_to_be_sent() {
        let mut campaign = Campaign::new("warm-add", "sms");
        campaign.window = Some(Window::new("09:00".parse().unwrap(), "20:30".parse().unwrap(), &[]).unwrap());
        campaign.consent = Some(reunion_model::Purpose::Sms);
        let (noon, night) = (12 * 3_600_000_000, 22 * 3_600_000_000);
        let mut off = campaign.clone();
        off.enabled = false;
        let fine = SendFacts {
            campaign: Some(&campaign),
            member_has_phone: true,
            suppressed: false,
            control: false,
            consented: true,
            touches: 0,
            stale: false,
        };
        let at = |facts: SendFacts<'_>, clock_us| gate_at_send(&facts, clock_us, &TimeZone::UTC);
        assert_eq!(at(fine, noon), AtSend::Go);
        assert_eq!(at(fine, night), AtSend::Wait { gate: Gate::Window, until_us: Some(33 * 3_600_000_000) });
        assert_eq!(at(SendFacts { stale: true, ..fine }, noon), AtSend::Wait { gate: Gate::Stale, until_us: None });
        for (facts, gate) in [
            (SendFacts { member_has_phone: false, ..fine }, Gate::Gone),
            (SendFacts { campaign: None, ..fine }, Gate::CampaignOff),
            (SendFacts { campaign: Some(&off), ..fine }, Gate::CampaignOff),
            (SendFacts { control: true, ..fine }, Gate::Control),
            (SendFacts { suppressed: true, ..fine }, Gate::Suppressed),
            (SendFacts { consented: false, ..fine }, Gate::NoConsent),
            (SendFacts { touches: 1, ..fine }, Gate::TouchesMax),
        ] {
            assert_eq!(at(facts, night), AtSend::Refuse(gate), "a refusal comes before a delay");
        }
    }
}
