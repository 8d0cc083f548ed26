//! One run's tasks: each member of each audience becomes a task, or is stopped by a gate, or belongs
//! to the control group.
//!
//! Members of one audience stand in this order: the greater `total_spent` first, nulls last, then the
//! smaller member id. It says who gets the task where several share a phone, and who is in time where
//! `per_run_max` and `per_store_per_day_max` cut.
//!
//! A task reaches a member at its phone. Where the member has other numbers, what was done and said there counts too:
//! see [`crate::person`].
//!
//! For each campaign `audience = sum(refused) + held_out + sum(deferred) + planned`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{BooleanArray, RecordBatch};
use jiff::tz::TimeZone;
use serde::Serialize;
use sha2::{Digest, Sha256};

use reunion_keys::Lookup;
use reunion_model::threads::one_by_one;
use reunion_model::{ContactId, Gate, GateKind, MemberId, Phone, TaskId};

use crate::arm::{Arm, Seed};
use crate::campaign::Campaign;
use crate::clock;
use crate::decisions::Decisions;
use crate::dispatch::group_key;
use crate::gates::{PermanentFacts, Temporary, Touches, permanent};
use crate::holder::Holders;
use crate::members::{Column, Members, MembersError, SOURCE_MASK};
use crate::message::{RenderError, Template, Values};
use crate::person::{Past, Suppressed};

/// Rows that a thread takes at a time.
const PART_ROWS: usize = 4096;

/// What a plan is made of.
#[derive(Clone, Copy)]
pub struct PlanInput<'a> {
    /// The run's clock, microseconds UTC.
    pub clock_us: i64,
    /// The timezone in which days and hours are cut.
    pub timezone: &'a TimeZone,
    /// Makes ids.
    pub lookup: &'a Lookup,
    /// All members, with the columns that [`crate::members`] lists and those that templates name.
    pub members: &'a [RecordBatch],
    /// The bits (as in the column `source_mask`) of sources whose data is older than their
    /// `max_age_hours`. One stale source makes a member stale.
    pub stale_sources: u64,
    /// Contact points that nobody may touch.
    pub suppressed: &'a Suppressed,
    /// Who holds numbers that came to somebody else.
    pub holders: &'a Holders,
    /// The campaigns of the run, in the config's order. Those that are off are left out of the plan.
    pub campaigns: &'a [CampaignInput<'a>],
    /// Threads at most.
    pub threads: usize,
}

/// A campaign with its audience and its past.
#[derive(Clone, Copy)]
pub struct CampaignInput<'a> {
    /// The campaign.
    pub campaign: &'a Campaign,
    /// One array per batch of members: true for those whom the campaign is for.
    pub audience: &'a [BooleanArray],
    /// What it has done so far.
    pub touches: &'a HashMap<ContactId, Touches>,
    /// The arms that are stored, by the contact points that [`Holders`] has for them.
    pub arms: &'a HashMap<ContactId, Arm>,
    /// Its seed, if it has one.
    pub seed: Option<Seed>,
    /// Tasks that each store has been given by this campaign on the day of the run's clock.
    pub planned_today: &'a HashMap<String, u32>,
}

impl CampaignInput<'_> {
    fn past(&self) -> Past<'_> {
        Past { touches: self.touches, arms: self.arms }
    }
}

/// What a run does.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Per campaign that is on, in the config's order.
    pub campaigns: Vec<CampaignPlan>,
    /// Everyone in an audience who gets no task, and why.
    pub decisions: Decisions,
    /// SHA-256 in hex over the ids of all tasks, sorted, each as 32 hex digits and a line feed.
    pub tasks_digest: String,
}

/// What a run does for one campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct CampaignPlan {
    /// Its name.
    pub name: String,
    /// How many went where.
    pub counts: CampaignCounts,
    /// Its seed.
    pub seed: Seed,
    /// Whether the seed has to be stored.
    pub seed_is_new: bool,
    /// The arms that have to be stored: see [`crate::arm`]; each under the contact point that [`Holders`] has for it.
    pub new_arms: Vec<(ContactId, Arm)>,
    /// Its tasks.
    pub tasks: Vec<PlannedTask>,
}

/// Where an audience went. Adds up: see the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CampaignCounts {
    /// Members in the audience.
    pub audience: u64,
    /// Stopped for good, by gate.
    pub refused: BTreeMap<Gate, u64>,
    /// In the control group.
    pub held_out: u64,
    /// Stopped for now, by gate.
    pub deferred: BTreeMap<Gate, u64>,
    /// Tasks.
    pub planned: u64,
}

/// A task that goes to the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTask {
    /// Its id: a keyed hash of campaign, contact point, touch and try.
    pub task_id: TaskId,
    /// The contact point.
    pub contact: ContactId,
    /// The member.
    pub member_id: MemberId,
    /// The number of the touch, from 1.
    pub touch: u32,
    /// The try of this touch, from 1.
    pub attempt: u32,
    /// The phone to reach.
    pub phone: Phone,
    /// The member's store.
    pub store: Option<String>,
    /// The clerk who serves the member.
    pub staff: Option<String>,
    /// The member's name.
    pub name: Option<String>,
    /// Why the member is on the list.
    pub reason: Option<String>,
    /// The words for the member.
    pub message: Option<String>,
    /// When it is due, microseconds UTC.
    pub due_us: Option<i64>,
    /// What it has in common with the other tasks of its dispatch: see [`group_key`].
    pub group: String,
}

impl Plan {
    /// All tasks, campaign by campaign.
    pub fn tasks(&self) -> impl Iterator<Item = (&CampaignPlan, &PlannedTask)> {
        self.campaigns.iter().flat_map(|campaign| campaign.tasks.iter().map(move |task| (campaign, task)))
    }
}

/// The id of a task.
pub fn task_id(lookup: &Lookup, campaign: &str, contact: ContactId, touch: u32, attempt: u32) -> TaskId {
    TaskId(lookup.id("task", &[campaign.as_bytes(), &contact.0, &touch.to_be_bytes(), &attempt.to_be_bytes()]))
}

/// Plans a run.
///
/// # Errors
/// Where a column is missing or has another type, or an audience does not belong to the members.
pub fn plan(input: &PlanInput<'_>) -> Result<Plan, MembersError> {
    let members = Members::new(input.members)?;
    if input.stale_sources != 0 && !members.know_sources() {
        return Err(MembersError::Missing(SOURCE_MASK.to_owned()));
    }
    let campaigns: Vec<_> = input.campaigns.iter().filter(|campaign| campaign.campaign.plans()).collect();
    let audiences = campaigns.iter().map(|campaign| members.audience(&campaign.campaign.name, campaign.audience));
    let audiences = audiences.collect::<Result<Vec<_>, _>>()?;
    let contacts = Contacts::new(input, &members, &audiences);
    let mut decisions = Decisions::default();
    let mut plans = Vec::with_capacity(campaigns.len());
    for (index, (campaign, audience)) in campaigns.into_iter().zip(audiences).enumerate() {
        let index = u16::try_from(index).expect("a config has fewer campaigns than 65536");
        let planner = Planner {
            input,
            members: &members,
            contacts: &contacts,
            of: campaign,
            index,
            decisions: &mut decisions,
            counts: CampaignCounts { audience: audience.len() as u64, ..Default::default() },
        };
        plans.push(planner.plan(&audience)?);
    }
    let tasks_digest = digest(plans.iter().flat_map(|plan| &plan.tasks).map(|task| task.task_id));
    Ok(Plan { campaigns: plans, decisions, tasks_digest })
}

/// The contact points of everybody in an audience.
struct Contacts {
    /// That of the member's phone, by row.
    own: Vec<[u8; 16]>,
    /// Those of the member's other numbers, for the few rows that have any.
    others: HashMap<u32, Vec<ContactId>>,
}

impl Contacts {
    /// A keyed hash each, so on all threads.
    fn new(input: &PlanInput<'_>, members: &Members<'_>, audiences: &[Vec<u32>]) -> Self {
        let mut wanted = vec![false; members.len()];
        for row in audiences.iter().flatten() {
            wanted[*row as usize] = true;
        }
        let contact = |row: usize| {
            let phone = wanted[row].then(|| members.phone(row)).flatten();
            phone.map_or([0; 16], |phone| input.lookup.contact(phone).0)
        };
        let parts: Vec<_> = (0..members.len()).step_by(PART_ROWS).collect();
        let part = |from: &usize| {
            let rows = *from..members.len().min(from + PART_ROWS);
            let with_others = rows.clone().filter(|row| wanted[*row] && members.has_other_phones(*row));
            let others = with_others.map(|row| (row as u32, members.other_contacts(row, input.lookup)));
            (rows.map(contact).collect::<Vec<_>>(), others.collect::<Vec<_>>())
        };
        let (own, others): (Vec<_>, Vec<_>) = one_by_one(&parts, input.threads, part).into_iter().unzip();
        Self { own: own.concat(), others: others.into_iter().flatten().collect() }
    }

    fn others(&self, row: u32) -> &[ContactId] {
        self.others.get(&row).map_or(&[], Vec::as_slice)
    }
}

/// SHA-256 over the sorted ids, so that `sort | sha256sum` gives the same.
fn digest(ids: impl Iterator<Item = TaskId>) -> String {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    let mut hash = Sha256::new();
    for id in ids {
        let mut line = [b'\n'; 33];
        hex::encode_to_slice(id.0, &mut line[..32]).expect("16 bytes are 32 hex digits");
        hash.update(line);
    }
    hex::encode(hash.finalize())
}

/// A member who passed the gates that need no other member. Ordered as the module says.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// The smallest number stands for null.
    total_spent: Reverse<i128>,
    member_id: MemberId,
    row: u32,
    phone: Phone,
    /// Here too: the contact points of all members, in another order, are far apart.
    contact: ContactId,
}

/// A member whom a gate stops, and which.
type Stopped = (MemberId, Option<ContactId>, Gate);

/// The gates for good that need no other member.
struct PermanentGates<'a> {
    input: &'a PlanInput<'a>,
    members: &'a Members<'a>,
    contacts: &'a Contacts,
    of: &'a CampaignInput<'a>,
}

impl PermanentGates<'_> {
    /// Who of these passes, and who does not.
    fn check(&self, rows: &[u32]) -> (Vec<Candidate>, Vec<Stopped>) {
        let Self { input, members, contacts, of } = *self;
        let (mut passed, mut stopped) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows.iter().copied() {
            let at = row as usize;
            let member_id = members.member_id(at);
            let Some(phone) = members.phone(at) else {
                stopped.push((member_id, None, Gate::Gone));
                continue;
            };
            let (contact, others) = (ContactId(contacts.own[at]), contacts.others(row));
            let touches = of.past().of_person(contact, others);
            let facts = PermanentFacts { members, row: at, contact, others, touches, suppressed: input.suppressed };
            match permanent(of.campaign, &facts) {
                Some(gate) => stopped.push((member_id, Some(contact), gate)),
                None => {
                    let total_spent = Reverse(members.total_spent(at).unwrap_or(i128::MIN));
                    passed.push(Candidate { total_spent, member_id, row, phone, contact });
                }
            }
        }
        (passed, stopped)
    }
}

/// Plans one campaign.
struct Planner<'a> {
    input: &'a PlanInput<'a>,
    members: &'a Members<'a>,
    contacts: &'a Contacts,
    of: &'a CampaignInput<'a>,
    index: u16,
    decisions: &'a mut Decisions,
    counts: CampaignCounts,
}

impl Planner<'_> {
    fn plan(mut self, audience: &[u32]) -> Result<CampaignPlan, MembersError> {
        let (input, of) = (self.input, self.of);
        let seed = of.seed.unwrap_or_else(|| Seed::first(input.lookup, &of.campaign.name));
        let mut new_arms = Vec::new();
        let candidates = self.permanent(audience);
        let candidates = self.draw(candidates, seed, &mut new_arms);
        let tasks = self.temporary(&candidates)?;
        let places = tasks.iter().map(|task| input.holders.arms_at(task.member_id, &task.contact)[0]);
        new_arms.extend(places.filter(|place| !of.arms.contains_key(place)).map(|place| (place, Arm::Treatment)));
        self.counts.planned = tasks.len() as u64;
        Ok(CampaignPlan { name: of.campaign.name.clone(), counts: self.counts, seed, seed_is_new: of.seed.is_none(), new_arms, tasks })
    }

    /// Those of the audience whom no permanent gate refuses, in order.
    fn permanent(&mut self, audience: &[u32]) -> Vec<Candidate> {
        let gates = PermanentGates { input: self.input, members: self.members, contacts: self.contacts, of: self.of };
        let mut candidates = Vec::with_capacity(audience.len());
        let parts: Vec<_> = audience.chunks(PART_ROWS).collect();
        for (passed, stopped) in one_by_one(&parts, self.input.threads, |rows| gates.check(rows)) {
            candidates.extend(passed);
            stopped.into_iter().for_each(|(member_id, contact, gate)| self.stop(member_id, contact, gate));
        }
        candidates.sort_unstable();
        let mut phones = HashSet::with_capacity(candidates.len());
        candidates.retain(|candidate| {
            let first = phones.insert(candidate.phone);
            if !first {
                self.stop(candidate.member_id, Some(candidate.contact), Gate::SameContact);
            }
            first
        });
        candidates
    }

    /// Those who are not in the control group. Adds its new members to `new_arms`.
    fn draw(&mut self, mut candidates: Vec<Candidate>, seed: Seed, new_arms: &mut Vec<(ContactId, Arm)>) -> Vec<Candidate> {
        let (of, holders) = (self.of, self.input.holders);
        candidates.retain(|candidate| {
            let (member, contact) = (candidate.member_id, candidate.contact);
            let place = holders.arms_at(member, &contact)[0];
            let arm = of.past().arm(holders, member, contact, self.contacts.others(candidate.row));
            let arm = arm.unwrap_or_else(|| seed.draw(place, of.campaign.holdout));
            if arm == Arm::Control {
                if of.arms.get(&place) != Some(&arm) {
                    new_arms.push((place, arm));
                }
                self.counts.held_out += 1;
                self.decisions.push(self.index, candidate.member_id, Some(contact), None);
            }
            arm == Arm::Treatment
        });
        candidates
    }

    /// The tasks of those whom no temporary gate defers.
    fn temporary(&mut self, candidates: &[Candidate]) -> Result<Vec<PlannedTask>, MembersError> {
        let (input, members, campaign) = (self.input, self.members, self.of.campaign);
        let gates = Temporary::new(campaign, input.clock_us, input.timezone, input.stale_sources);
        let required = gates.required().iter().map(|name| members.column(name)).collect::<Result<Vec<_>, _>>()?;
        let writer = Writer::new(input, members, campaign)?;
        let mut per_store: HashMap<&str, u32> = self.of.planned_today.iter().map(|(store, count)| (store.as_str(), *count)).collect();
        let mut tasks = Vec::new();
        let (of, contacts) = (self.of, self.contacts);
        // The gates that ask nobody but the member, and the store, which lies far from where the last one's did.
        let alone = |candidate: &Candidate| {
            let row = candidate.row as usize;
            let touches = of.past().of_person(candidate.contact, contacts.others(candidate.row));
            (gates.check(members, row, touches, &required), members.store(row))
        };
        let parts: Vec<_> = candidates.chunks(PART_ROWS).collect();
        let alone = one_by_one(&parts, input.threads, |part| part.iter().map(alone).collect::<Vec<_>>());
        for (candidate, (gate, store)) in candidates.iter().zip(alone.into_iter().flatten()) {
            let contact = candidate.contact;
            let given = store.map_or(0, |store| per_store.get(store).copied().unwrap_or(0));
            let gate = gate.or_else(|| {
                if store.is_some() && given >= campaign.per_store_per_day_max {
                    Some(Gate::StorePerDay)
                } else if tasks.len() >= campaign.per_run_max as usize {
                    Some(Gate::PerRun)
                } else {
                    None
                }
            });
            let task = match gate {
                Some(gate) => Err(gate),
                // Touches are numbered by contact point.
                None => writer.task(candidate, contact, of.past().at(contact)).map_err(|_| Gate::Incomplete),
            };
            match task {
                Err(gate) => self.stop(candidate.member_id, Some(contact), gate),
                Ok(task) => {
                    if let Some(store) = store {
                        per_store.insert(store, given + 1);
                    }
                    tasks.push(task);
                }
            }
        }
        Ok(tasks)
    }

    fn stop(&mut self, member_id: MemberId, contact: Option<ContactId>, gate: Gate) {
        let counts = match gate.kind() {
            GateKind::Permanent => &mut self.counts.refused,
            GateKind::Temporary => &mut self.counts.deferred,
        };
        *counts.entry(gate).or_default() += 1;
        self.decisions.push(self.index, member_id, contact, Some(gate));
    }
}

/// Writes the tasks of one campaign.
struct Writer<'a> {
    input: &'a PlanInput<'a>,
    members: &'a Members<'a>,
    campaign: &'a Campaign,
    /// The columns that its templates name.
    columns: Vec<(&'a str, Column<'a>)>,
    due_us: Option<i64>,
}

impl<'a> Writer<'a> {
    fn new(input: &'a PlanInput<'a>, members: &'a Members<'a>, campaign: &'a Campaign) -> Result<Self, MembersError> {
        let templates = [&campaign.reason, &campaign.message].into_iter().flatten();
        let mut names: Vec<_> = templates.flat_map(Template::columns).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let columns = names.into_iter().map(|name| Ok((name, members.column(name)?))).collect::<Result<_, _>>()?;
        let due_us = campaign.due_days.map(|days| clock::end_of_day_after(input.clock_us, days, input.timezone));
        Ok(Self { input, members, campaign, columns, due_us })
    }

    fn task(&self, candidate: &Candidate, contact: ContactId, touches: Touches) -> Result<PlannedTask, RenderError> {
        let row = candidate.row as usize;
        let values = self.values(candidate);
        let text = |template: &Option<Template>| template.as_ref().map(|template| template.render(&values)).transpose();
        let owned = |value: Option<&str>| value.map(str::to_owned);
        let (touch, attempt) = (touches.touches + 1, touches.next_try.max(1));
        let mut task = PlannedTask {
            task_id: task_id(self.input.lookup, &self.campaign.name, contact, touch, attempt),
            contact,
            member_id: candidate.member_id,
            touch,
            attempt,
            phone: candidate.phone,
            store: owned(self.members.store(row)),
            staff: owned(self.members.staff(row)),
            name: owned(self.members.name(row)),
            reason: text(&self.campaign.reason)?,
            message: text(&self.campaign.message)?,
            due_us: self.due_us,
            group: String::new(),
        };
        task.group = group_key(&self.campaign.group_by, &self.campaign.name, &task);
        Ok(task)
    }

    fn values(&self, candidate: &Candidate) -> Values {
        let mut values = Values::default();
        values.text("campaign", &self.campaign.name);
        values.text("channel", &self.campaign.channel);
        values.phone(candidate.phone);
        values.text("today", &clock::day(self.input.clock_us, self.input.timezone).to_string());
        if let Some(due_us) = self.due_us {
            values.text("due", &clock::day(due_us, self.input.timezone).to_string());
        }
        for (name, column) in &self.columns {
            let (array, at) = column.locate(candidate.row as usize);
            values.column(name, array, at, self.input.timezone);
        }
        values
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
