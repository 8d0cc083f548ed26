//! What a run says of itself: the document that `once` and `plan` print, and its form for people.
//!
//! Every count is a number and every map may be empty. For each source
//! `pulled = new + changed + unchanged + superseded + sum(quarantined)`; for each campaign
//! `audience = sum(refused) + held_out + sum(deferred) + planned`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use reunion_model::plugin::ReadMode;
use reunion_model::{Gate, RunId};
use reunion_outreach::{Campaign, CampaignCounts, may_send_at};
use reunion_people::SourceCounts;
use serde::{Deserialize, Serialize};

use crate::state::moment;

use super::guards::Guarded;
use super::outreach::Outreach;
use super::people::People;
use super::population::Population;
use super::pull::Pulled;
use super::setup::Setup;
use super::sources::{PulledSources, SourceSchema};

/// The report of one run, dry or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The run.
    pub run_id: String,
    /// The pipeline that it ran.
    pub pipeline: String,
    /// The generation that it committed; for a dry run the one that it would commit.
    pub generation: u64,
    /// Whether nothing was committed and nobody contacted.
    pub dry_run: bool,
    /// The clock that the run went by, RFC 3339.
    pub clock: String,
    /// Each source of the pipeline.
    pub sources: BTreeMap<String, SourceReport>,
    /// The members, over all sources.
    pub members: MembersReport,
    /// What guards compare with the runs before.
    #[serde(default)]
    pub guards: Guarded,
    /// What guards let pass because `--accept` said so: names of sources and guards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<String>,
    /// Each tag.
    pub tags: BTreeMap<String, TagReport>,
    /// Each campaign of the pipeline.
    pub campaigns: BTreeMap<String, CampaignReport>,
    /// Open tasks of earlier runs that were taken back, by gate.
    pub cancelled: BTreeMap<String, u64>,
    /// Each channel that those campaigns use.
    pub channels: BTreeMap<String, ChannelReport>,
    /// SHA-256, in hex, of the sorted ids of the tasks planned.
    pub tasks_digest: String,
    /// When the last of the tasks planned could be sent: at the clock, or when its campaign's window opens.
    /// Dry runs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_forecast: Option<String>,
    /// A few of the tasks planned, with names and phones masked. Dry runs only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// What the operator should know beside the counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Seconds that each stage took, for benchmarks. Not part of what a run is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stage_secs: BTreeMap<String, f64>,
}

/// What became of the rows of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Rows read.
    pub pulled: u64,
    /// Rows with an id that was not there before.
    pub new: u64,
    /// Rows whose content changed.
    pub changed: u64,
    /// Rows that are as they were.
    pub unchanged: u64,
    /// Rows that another row with the same id in the same pull replaced.
    pub superseded: u64,
    /// Rows set aside, by reason.
    pub quarantined: BTreeMap<String, u64>,
    /// Rows that are no longer at the source.
    pub deleted: u64,
    /// Rows that were not pulled and are in quarantine now.
    pub requarantined: u64,
    /// Rows that were not pulled and are out of quarantine now.
    pub released: u64,
    /// Values that do not fit their column's type and count as missing, by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unfit_values: BTreeMap<String, u64>,
    /// It said that nothing has changed since it was read last, and did not send its rows again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_before: bool,
    /// Why the source could not be read; what it held before stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// The members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersReport {
    /// All.
    pub total: u64,
    /// Not there before.
    pub new: u64,
    /// Whose golden columns changed.
    pub changed: u64,
    /// Merged into another.
    pub merged: u64,
    /// With a usable phone and no confirmed link.
    pub phone_only: u64,
}

/// One tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagReport {
    /// Members that have it.
    pub members: u64,
    /// That did not have it before.
    pub gained: u64,
    /// That have it no more.
    pub lost: u64,
    /// For whom the rule has no answer, which counts as no.
    pub null: u64,
}

/// One campaign.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignReport {
    /// Members that match.
    pub audience: u64,
    /// Refused for good, by gate.
    pub refused: BTreeMap<String, u64>,
    /// In the control group.
    pub held_out: u64,
    /// Left for a later run, by gate.
    pub deferred: BTreeMap<String, u64>,
    /// Tasks planned.
    pub planned: u64,
}

/// What became of a channel's tasks in this run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelReport {
    /// Accepted or delivered.
    pub sent: u64,
    /// Not taken yet; tried again later.
    pub retrying: u64,
    /// Refused for good.
    pub failed: u64,
    /// Nobody knows.
    pub unknown: u64,
}

/// One task of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its campaign.
    pub campaign: String,
    /// The member.
    pub member_id: String,
    /// Masked.
    pub phone: String,
    /// The store, if any.
    pub store: Option<String>,
}

/// The report of what a run worked out.
pub fn of(
    setup: &Setup<'_>,
    run_id: RunId,
    pulled: &PulledSources,
    people: &People,
    population: &Population,
    outreach: &Outreach,
) -> Report {
    let pipeline_sources = &setup.app.config.pipelines[&setup.pipeline].sources;
    let sources = setup.schemas.iter().enumerate().filter(|(_, (_, schema))| pipeline_sources.contains(&schema.name));
    let source = |(at, (origin, schema)): (usize, (&String, &SourceSchema))| {
        let pulled = pulled.get(origin);
        let failed = schema.failed.clone().or_else(|| pulled.and_then(|pulled| pulled.failed.as_ref()).map(ToString::to_string));
        (schema.name.clone(), source_report(&people.counts[at], pulled, failed))
    };
    let tag = |tag: &reunion_rules::TagResult| {
        let counts = tag.counts;
        (tag.name.clone(), TagReport { members: counts.members, gained: counts.gained, lost: counts.lost, null: counts.null })
    };
    let mut cancelled = BTreeMap::new();
    for (_, gate) in &outreach.regate {
        *cancelled.entry(gate.code().to_owned()).or_default() += 1;
    }
    let planned = outreach.plan.campaigns.iter().map(|campaign| (campaign.name.clone(), campaign_report(&campaign.counts)));
    let off = setup.pipeline_campaigns().filter(|campaign| !campaign.plans());
    let off = off.map(|campaign| (campaign.name.clone(), CampaignReport::default()));
    let channels = setup.pipeline_campaigns().map(|campaign| (campaign.channel.clone(), ChannelReport::default()));
    let notes = people.overflows.iter();
    let notes = notes.map(|(column, count)| format!("{count} members have no {column}: made of all their rows it would be too large"));
    let lost = setup.schemas.values().filter(|schema| !schema.lost.is_empty());
    let lost = lost.map(|schema| format!("the source {} has no longer: {}", schema.name, schema.lost.join(", ")));
    let accepted = people.accepted.iter().map(|name| format!("what {name} guards against was accepted by --accept"));
    let is_sweep = |schema: &SourceSchema, pulled: &Pulled| {
        let mode = setup.app.config.sources.get(&schema.name).map(|source| source.mode);
        mode == Some(ReadMode::Incremental) && pulled.mode == ReadMode::Snapshot
    };
    let swept = pulled.iter().map(|(origin, pulled)| (&setup.schemas[origin], pulled)).filter(|(schema, pulled)| is_sweep(schema, pulled));
    let swept = swept.map(|(schema, _)| format!("the source {} was read whole: a sweep", schema.name));
    let off_note = |campaign: &Campaign| match campaign.enabled {
        false => format!("campaign {} is off", campaign.name),
        true => format!("campaign {} waits for its channel {}", campaign.name, campaign.channel),
    };
    let off_notes = setup.pipeline_campaigns().filter(|campaign| !campaign.plans()).map(off_note);
    Report {
        run_id: run_id.to_string(),
        pipeline: setup.pipeline.clone(),
        generation: setup.base_number().unwrap_or(0) + 1,
        dry_run: true,
        clock: moment(setup.clock_us, &setup.app.config.timezone),
        sources: sources.map(source).collect(),
        members: MembersReport {
            total: people.total,
            new: people.new,
            changed: people.changed,
            merged: people.merges.len() as u64,
            phone_only: population.phone_only,
        },
        guards: people.guarded.clone(),
        accepted: people.accepted.clone(),
        tags: population.evaluated.tags.iter().map(tag).collect(),
        campaigns: planned.chain(off).collect(),
        cancelled,
        channels: channels.collect(),
        tasks_digest: outreach.plan.tasks_digest.clone(),
        finish_forecast: forecast(setup, outreach),
        samples: samples(outreach),
        notes: notes.chain(lost).chain(swept).chain(accepted).chain(off_notes).collect(),
        stage_secs: BTreeMap::new(),
    }
}

fn source_report(counts: &SourceCounts, pulled: Option<&Pulled>, failed: Option<String>) -> SourceReport {
    SourceReport {
        pulled: counts.pulled,
        new: counts.new,
        changed: counts.changed,
        unchanged: counts.unchanged,
        superseded: counts.superseded,
        quarantined: counts.quarantined.iter().map(|(reason, count)| (reason.code().to_owned(), *count)).collect(),
        deleted: counts.deleted,
        requarantined: counts.requarantined,
        released: counts.released,
        unfit_values: pulled.map(|pulled| pulled.unfit.clone()).unwrap_or_default(),
        as_before: pulled.is_some_and(|pulled| pulled.confirms),
        failed,
    }
}

fn campaign_report(counts: &CampaignCounts) -> CampaignReport {
    let by_gate = |counts: &BTreeMap<Gate, u64>| counts.iter().map(|(gate, count)| (gate.code().to_owned(), *count)).collect();
    CampaignReport {
        audience: counts.audience,
        refused: by_gate(&counts.refused),
        held_out: counts.held_out,
        deferred: by_gate(&counts.deferred),
        planned: counts.planned,
    }
}

/// When the last task may go out. No channel has a rate limit yet that would stretch it.
fn forecast(setup: &Setup<'_>, outreach: &Outreach) -> Option<String> {
    let planned = outreach.plan.campaigns.iter().filter(|campaign| campaign.counts.planned > 0);
    let zone = &setup.app.config.timezone;
    let may_send = |name: &String| may_send_at(&setup.campaigns[name], setup.clock_us, setup.clock_us, zone.rules());
    planned.map(|campaign| may_send(&campaign.name)).max().map(|at_us| moment(at_us, zone))
}

/// The first task of each campaign.
fn samples(outreach: &Outreach) -> Vec<Sample> {
    let first = |campaign: &reunion_outreach::CampaignPlan| {
        campaign.tasks.first().map(|task| Sample {
            campaign: campaign.name.clone(),
            member_id: task.member_id.to_string(),
            phone: task.phone.to_string(),
            store: task.store.clone(),
        })
    };
    outreach.plan.campaigns.iter().filter_map(first).collect()
}

impl Report {
    /// The report as that of a run that is committed under this number.
    pub fn commit(&mut self, generation: u64) {
        self.generation = generation;
        self.dry_run = false;
        self.samples.clear();
        self.finish_forecast = None;
    }

    /// The first sum that does not hold, in words. A run with one commits nothing.
    pub fn broken_sum(&self) -> Option<String> {
        let source = self.sources.iter().find(|(_, source)| {
            source.pulled != source.new + source.changed + source.unchanged + source.superseded + total(&source.quarantined)
        });
        let campaign = self.campaigns.iter().find(|(_, campaign)| {
            campaign.audience != total(&campaign.refused) + campaign.held_out + total(&campaign.deferred) + campaign.planned
        });
        source
            .map(|(name, counts)| format!("the rows of source `{name}` do not add up: {counts:?}"))
            .or_else(|| campaign.map(|(name, counts)| format!("the audience of campaign `{name}` does not add up: {counts:?}")))
    }

    /// The report for people: aligned, without what is zero where that says nothing.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let kind = if self.dry_run { "plan, nothing committed" } else { "committed" };
        let _ = writeln!(text, "run {}  pipeline {}  generation {} ({kind})", short(&self.run_id), self.pipeline, self.generation);
        self.write_sources(&mut text);
        let m = &self.members;
        let _ = writeln!(
            text,
            "\nmembers  {} total, {} new, {} changed, {} merged, {} known by phone only",
            m.total, m.new, m.changed, m.merged, m.phone_only
        );
        self.write_tags(&mut text);
        self.write_campaigns(&mut text);
        self.write_channels(&mut text);
        if let Some(finish) = &self.finish_forecast {
            let _ = writeln!(text, "\nthe last task could be sent at {finish}");
        }
        for sample in &self.samples {
            let store = sample.store.as_deref().unwrap_or("no store");
            let _ = writeln!(text, "  e.g. {}: member {} ({}, {store})", sample.campaign, short(&sample.member_id), sample.phone);
        }
        for note in &self.notes {
            let _ = writeln!(text, "\nnote: {note}");
        }
        text
    }

    fn write_sources(&self, text: &mut String) {
        let mut table = table(&["source", "pulled", "new", "changed", "unchanged", "superseded", "quarantined", "deleted"]);
        for (name, s) in &self.sources {
            let quarantined = total(&s.quarantined);
            let counts = [s.pulled, s.new, s.changed, s.unchanged, s.superseded, quarantined, s.deleted];
            table.add_row(std::iter::once(name.clone()).chain(counts.map(|count| count.to_string())));
        }
        let _ = writeln!(text, "\n{table}");
        for (name, source) in &self.sources {
            write_map(text, &format!("{name} quarantined"), &source.quarantined);
            write_map(text, &format!("{name} values that do not fit"), &source.unfit_values);
            if source.requarantined + source.released > 0 {
                let _ = writeln!(text, "  {name} decided anew: {} into quarantine, {} out of it", source.requarantined, source.released);
            }
            if source.as_before {
                let _ = writeln!(text, "  {name} has not changed since it was read last");
            }
            if let Some(failure) = &source.failed {
                let _ = writeln!(text, "  {name} could not be read, and keeps what it held: {failure}");
            }
        }
    }

    fn write_tags(&self, text: &mut String) {
        if self.tags.is_empty() {
            return;
        }
        let mut table = table(&["tag", "members", "gained", "lost", "no answer"]);
        for (name, tag) in &self.tags {
            let counts = [tag.members, tag.gained, tag.lost, tag.null];
            table.add_row(std::iter::once(name.clone()).chain(counts.map(|count| count.to_string())));
        }
        let _ = writeln!(text, "\n{table}");
    }

    fn write_campaigns(&self, text: &mut String) {
        if self.campaigns.is_empty() {
            return;
        }
        let mut table = table(&["campaign", "audience", "refused", "held out", "deferred", "planned"]);
        for (name, campaign) in &self.campaigns {
            let counts = [campaign.audience, total(&campaign.refused), campaign.held_out, total(&campaign.deferred), campaign.planned];
            table.add_row(std::iter::once(name.clone()).chain(counts.map(|count| count.to_string())));
        }
        let _ = writeln!(text, "\n{table}");
        for (name, campaign) in &self.campaigns {
            write_map(text, &format!("{name} refused"), &campaign.refused);
            write_map(text, &format!("{name} deferred"), &campaign.deferred);
        }
        write_map(text, "open tasks taken back", &self.cancelled);
    }

    fn write_channels(&self, text: &mut String) {
        if self.dry_run || self.channels.is_empty() {
            return;
        }
        let mut table = table(&["channel", "sent", "retrying", "failed", "unknown"]);
        for (name, channel) in &self.channels {
            let counts = [channel.sent, channel.retrying, channel.failed, channel.unknown];
            table.add_row(std::iter::once(name.clone()).chain(counts.map(|count| count.to_string())));
        }
        let _ = writeln!(text, "\n{table}");
    }
}

/// The sum of a map's counts.
pub fn total(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().sum()
}

/// The first eight digits of an id, as people are shown it.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

fn write_map(text: &mut String, title: &str, counts: &BTreeMap<String, u64>) {
    if !counts.is_empty() {
        let list: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(text, "  {title}: {}", list.join(", "));
    }
}

/// A table without lines, its first column to the left and all others to the right.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let source = SourceReport {
            pulled: 10,
            new: 6,
            unchanged: 2,
            quarantined: [("phone_missing".to_owned(), 2)].into(),
            ..SourceReport::default()
        };
        let campaign = CampaignReport {
            audience: 5,
            refused: [("no_consent".to_owned(), 2)].into(),
            held_out: 1,
            planned: 2,
            ..CampaignReport::default()
        };
        Report {
            run_id: "0123456789abcdef0123456789abcdef".to_owned(),
            pipeline: "daily".to_owned(),
            generation: 7,
            dry_run: false,
            clock: "2026-09-21T22:30:00+08:00".to_owned(),
            sources: [("pos".to_owned(), source)].into(),
            members: MembersReport { total: 6, new: 6, phone_only: 6, ..MembersReport::default() },
            guards: Guarded::default(),
            accepted: Vec::new(),
            tags: [("dormant".to_owned(), TagReport { members: 4, gained: 4, ..TagReport::default() })].into(),
            campaigns: [("warm-add".to_owned(), campaign)].into(),
            cancelled: BTreeMap::new(),
            channels: [("store-list".to_owned(), ChannelReport { sent: 2, ..ChannelReport::default() })].into(),
            tasks_digest: "00".repeat(32),
            finish_forecast: None,
            samples: Vec::new(),
            notes: Vec::new(),
            stage_secs: BTreeMap::new(),
        }
    }

    #[test]
    fn sums_are_checked() {
        assert_eq!(report().broken_sum(), None);
        let mut lost_row = report();
        lost_row.sources.get_mut("pos").expect("pos").new = 5;
        assert!(lost_row.broken_sum().expect("a sum is broken").contains("source `pos`"));
        let mut lost_member = report();
        lost_member.campaigns.get_mut("warm-add").expect("warm-add").planned = 1;
        assert!(lost_member.broken_sum().expect("a sum is broken").contains("campaign `warm-add`"));
    }

    #[test]
    fn people_read_it_aligned() {
        let text: String = report().text().lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn programs_read_back_what_is_printed() {
        let json = serde_json::to_string(&report()).expect("a report is JSON");
        assert_eq!(serde_json::from_str::<Report>(&json).expect("and back"), report());
    }
}
