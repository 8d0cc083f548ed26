//! The plan stage: from audiences to tasks, by the functions of `reunion_outreach`, with what the ledger
//! knows of the past.

use std::collections::HashMap;

use arrow::array::BooleanArray;
use reunion_ledger::{ArmKind, ComponentKind};
use reunion_model::threads::cores;
use reunion_model::{ContactId, Gate, MemberId, TaskId};
use reunion_outreach::{
    Arm, Campaign, CampaignInput, OpenTask, Plan, PlanInput, RegateCampaign, RegateInput, Seed, Suppressed, Touches, regate,
};

use crate::failure::{Doing, Failure};

use super::contacts;
use super::holders::holders;
use super::people::People;
use super::population::Population;
use super::setup::Setup;
use super::sources::PulledSources;

/// The tasks of a run, and the open ones of earlier runs that it takes back.
pub struct Outreach {
    /// The plan.
    pub plan: Plan,
    /// Open tasks that a gate refuses now.
    pub regate: Vec<(TaskId, Gate)>,
    /// Arms that merges change: campaign, contact point, arm.
    pub merged_arms: Vec<(String, ContactId, Arm)>,
    /// Contact points that splits take from members: from, contact point, new member.
    pub moved: Vec<(MemberId, ContactId, MemberId)>,
}

/// What the ledger knows of the past, by campaign.
pub type Pasts<'a> = HashMap<&'a str, Past>;

/// What the ledger knows of a campaign.
pub struct Past {
    touches: HashMap<ContactId, Touches>,
    arms: HashMap<ContactId, Arm>,
    seed: Option<Seed>,
    planned_today: HashMap<String, u32>,
}

/// The past of all campaigns.
///
/// # Errors
/// Where the ledger does not answer.
pub fn pasts<'a>(setup: &'a Setup<'_>) -> Result<Pasts<'a>, Failure> {
    setup.campaigns.keys().map(|name| Ok((name.as_str(), past(setup, name)?))).collect()
}

/// Plans the tasks of the pipeline's campaigns and gates open tasks of all campaigns again.
///
/// # Errors
/// Where the ledger does not answer, or a column has the wrong type.
pub fn plan(
    setup: &Setup<'_>,
    pulled: &PulledSources,
    people: &People,
    population: &Population,
    mut past: Pasts<'_>,
) -> Result<Outreach, Failure> {
    let merged_arms = merge_arms(setup, people, &mut past)?;
    let audiences: HashMap<&str, &[BooleanArray]> =
        population.evaluated.audiences.iter().map(|audience| (audience.campaign.as_str(), audience.is_in.as_slice())).collect();
    let suppressed = suppressed(setup);
    let holders = holders(setup.state.keys.lookup(), &people.held.all);
    let inputs: Vec<CampaignInput<'_>> = setup
        .pipeline_campaigns()
        .map(|campaign| {
            let past = &past[campaign.name.as_str()];
            CampaignInput {
                campaign,
                audience: audiences[campaign.name.as_str()],
                touches: &past.touches,
                arms: &past.arms,
                seed: past.seed,
                planned_today: &past.planned_today,
            }
        })
        .collect();
    let doing = || "the run cannot be planned".to_owned();
    let plan = reunion_outreach::plan(&PlanInput {
        clock_us: setup.clock_us,
        timezone: setup.app.config.timezone.rules(),
        lookup: setup.state.keys.lookup(),
        members: &population.members,
        stale_sources: setup.stale_sources(pulled)?,
        suppressed: &suppressed,
        holders: &holders,
        campaigns: &inputs,
        threads: cores(),
    })
    .doing(doing)?;
    let regate_campaigns: HashMap<&str, RegateCampaign<'_>> = setup
        .campaigns
        .values()
        .map(|campaign: &Campaign| {
            let past = &past[campaign.name.as_str()];
            let audience = Some(audiences[campaign.name.as_str()]);
            (campaign.name.as_str(), RegateCampaign { campaign, audience, touches: &past.touches, arms: &past.arms })
        })
        .collect();
    let open = setup.state.ask(setup.state.ledger.open_tasks())?;
    let open: Vec<OpenTask> = open
        .into_iter()
        .map(|task| OpenTask { task_id: task.task_id, campaign: task.campaign, contact: task.contact, member_id: task.member })
        .collect();
    let forwards: HashMap<MemberId, MemberId> = people.merges.iter().copied().collect();
    let regate = regate(
        &RegateInput {
            clock_us: setup.clock_us,
            timezone: setup.app.config.timezone.rules(),
            lookup: setup.state.keys.lookup(),
            members: &population.members,
            forwards: &forwards,
            suppressed: &suppressed,
            holders: &holders,
            campaigns: &regate_campaigns,
        },
        &open,
    )
    .doing(doing)?;
    let moved = contacts::moved(setup.state.keys.lookup(), &people.dirty, &people.splits);
    Ok(Outreach { plan, regate, merged_arms, moved })
}

fn suppressed(setup: &Setup<'_>) -> Suppressed {
    let mut suppressed = Suppressed::default();
    for entry in setup.facts.suppressions.iter().filter(|entry| entry.until_us.is_none_or(|until| until > setup.clock_us)) {
        suppressed.contacts.insert(entry.contact);
        if !entry.is_of_the_number_alone() {
            suppressed.people.insert(entry.contact);
        }
    }
    suppressed
}

fn past(setup: &Setup<'_>, campaign: &str) -> Result<Past, Failure> {
    let ledger = &setup.state.ledger;
    let touches = setup.state.ask(ledger.touches(campaign))?;
    let touches = touches.into_iter().map(|(contact, past)| {
        let touches = Touches {
            touches: past.touches,
            last_touch_us: past.last_touch_us,
            in_progress: past.open,
            said_no: past.said_no,
            next_try: past.next_try.max(1),
        };
        (contact, touches)
    });
    let arms = setup.state.ask(ledger.arms(campaign))?.into_iter().map(|(contact, arm)| {
        let arm = match arm {
            ArmKind::Control => Arm::Control,
            ArmKind::Treatment => Arm::Treatment,
        };
        (contact, arm)
    });
    let component = setup.components.iter().find(|component| component.kind == ComponentKind::Campaign && component.name == campaign);
    let (from_us, to_us) = day(setup);
    let planned = setup.state.ask(ledger.planned_per_store(campaign, from_us, to_us))?;
    Ok(Past {
        touches: touches.collect(),
        arms: arms.collect(),
        seed: component.and_then(|component| component.seed).map(Seed),
        planned_today: planned.into_iter().map(|(store, count)| (store, u32::try_from(count).unwrap_or(u32::MAX))).collect(),
    })
}

/// The day of the run's clock in the config's timezone, from its first moment to the next day's.
fn day(setup: &Setup<'_>) -> (i64, i64) {
    let clock = jiff::Timestamp::from_microsecond(setup.clock_us).unwrap_or_default();
    let day = clock.to_zoned(setup.app.config.timezone.rules().clone());
    let start = day.start_of_day().map_or(setup.clock_us, |start| start.timestamp().as_microsecond());
    let end = day.tomorrow().and_then(|next| next.start_of_day()).map_or(i64::MAX, |next| next.timestamp().as_microsecond());
    (start, end)
}

/// Where one contact point of members that were joined is in the control group, all of them are.
fn merge_arms(setup: &Setup<'_>, people: &People, past: &mut HashMap<&str, Past>) -> Result<Vec<(String, ContactId, Arm)>, Failure> {
    if people.merges.is_empty() || past.values().all(|past| past.arms.is_empty()) {
        return Ok(Vec::new());
    }
    let contacts = contacts::joined(setup, people)?;
    let mut changed = Vec::new();
    for (campaign, past) in past.iter_mut() {
        for (contact, arm) in reunion_outreach::merge_arms(&past.arms, contacts.iter().map(Vec::as_slice)) {
            past.arms.insert(contact, arm);
            changed.push(((*campaign).to_owned(), contact, arm));
        }
    }
    changed.sort_unstable_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    Ok(changed)
}
