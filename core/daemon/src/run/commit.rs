//! The commit: the generation's files are made durable, then one ledger transaction makes them the head.

use std::sync::Arc;

use arrow::array::{FixedSizeBinaryBuilder, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use reunion_generations::{GenerationWriter, ManifestMeta};
use reunion_ledger::{Arm as StoredArm, ArmKind, Component, ComponentKind, GenerationCommit, NewTask, Payload};
use reunion_model::limits::BATCH_ROWS_MAX;
use reunion_model::record::RECORD_KEY;
use reunion_model::schema::MEMBER_ID;
use reunion_model::{ContactId, MemberId, RunId, fault};
use reunion_outreach::Arm;

use crate::failure::{Doing, Failure};
use crate::state::{Hold, now_us};

use super::outreach::Outreach;
use super::people::People;
use super::population::Population;
use super::report::Report;
use super::setup::Setup;
use super::sources::PulledSources;

/// Members beyond which they are written to two files at once.
const MEMBERS_IN_ONE_FILE_MAX: usize = 100_000;

/// The key column of the table of tags.
const TAG_KEY: &str = "tag_key";

/// Commits a run; the number of its generation.
///
/// # Errors
/// Where the disk or the ledger refuses, or somebody else has moved the head: nothing is changed then.
#[expect(clippy::too_many_arguments, reason = "a commit is made of everything that a run worked out")]
pub fn commit(
    setup: &Setup<'_>,
    hold: &Hold,
    run_id: RunId,
    pulled: &PulledSources,
    people: &People,
    population: &Population,
    outreach: &Outreach,
    report: &Report,
) -> Result<u64, Failure> {
    let ledger = &setup.state.ledger;
    let number = setup.state.ask(ledger.next_generation(&hold.lease))?;
    let doing = || format!("generation {number} cannot be written");
    let writer = setup.state.people.begin(number, hold.lease.fence, setup.base()).doing(doing)?;
    write(setup, &writer, people, population, outreach)?;
    let meta = ManifestMeta {
        clock_us: setup.clock_us,
        run_id,
        fact_seq: setup.facts.seq as i64,
        sources: pulled.iter().map(|(origin, pulled)| (origin.clone(), pulled.cursor.clone().unwrap_or_default())).collect(),
        pulls: people.pulls.clone(),
        schema: serde_json::to_value(&people.schema).doing(doing)?,
        config_digest: setup.app.config.digest(),
    };
    let committed = writer.finish(meta).doing(doing)?;
    let mut report = report.clone();
    report.commit(number);
    let commit = GenerationCommit {
        base: setup.base_number(),
        generation: number,
        manifest_checksum: committed.generation.checksum,
        fact_seq: setup.facts.seq,
        clock_us: setup.clock_us,
        now_us: now_us(),
        run_id,
        pulls: people.pulls.values().flatten().copied().collect(),
        tasks: tasks(setup, run_id, outreach),
        arms: arms(outreach),
        regate: outreach.regate.clone(),
        forwards: people.merges.clone(),
        components: components(setup, people, outreach),
        report: serde_json::to_value(&report).doing(doing)?,
    };
    fault::point("commit.before");
    setup.state.ask(ledger.commit_generation(&hold.lease, &commit))?;
    fault::point("commit.after");
    Ok(number)
}

fn write(
    setup: &Setup<'_>,
    writer: &GenerationWriter<'_>,
    people: &People,
    population: &Population,
    outreach: &Outreach,
) -> Result<(), Failure> {
    let doing = || "the files of the generation cannot be written".to_owned();
    writer.remove("members", people.removed.iter().map(|id| id.0)).doing(doing)?;
    // The members of a first run are most of what there is to write: in two files, side by side with the rest.
    let rows = people.dirty.num_rows();
    let half = if rows > MEMBERS_IN_ONE_FILE_MAX { rows / 2 } else { rows };
    let halves = [people.dirty.slice(0, half), people.dirty.slice(half, rows - half)];
    std::thread::scope(|scope| {
        let members = halves.map(|half| scope.spawn(move || writer.delta("members", MEMBER_ID, slices(&half)).doing(doing)));
        let rest = write_rest(setup, writer, people, population, outreach);
        for half in members {
            half.join().unwrap_or_else(|_| Err(Failure::other("writing the members broke off; this is a defect")))?;
        }
        rest
    })
}

fn write_rest(
    setup: &Setup<'_>,
    writer: &GenerationWriter<'_>,
    people: &People,
    population: &Population,
    outreach: &Outreach,
) -> Result<(), Failure> {
    let doing = || "the files of the generation cannot be written".to_owned();
    for (segment, repeated) in &people.segments {
        writer.add_segment(segment, repeated).doing(doing)?;
    }
    for (source, (origin, schema)) in setup.schemas.iter().enumerate() {
        let table = format!("records/{origin}");
        let tombstones = &people.tombstones[source];
        writer.remove("assignments", tombstones.iter().map(|key| key.0)).doing(doing)?;
        if schema.retired {
            writer.rename(&table, None);
            continue;
        }
        writer.remove(&table, tombstones.iter().map(|key| key.0)).doing(doing)?;
        if let Some(restored) = people.restored.get(&source) {
            writer.delta(&table, RECORD_KEY, restored.iter().cloned()).doing(doing)?;
        }
    }
    writer.delta("assignments", RECORD_KEY, slices(&people.assignments)).doing(doing)?;
    writer.delta("forwards", MEMBER_ID, forwards(people)?).doing(doing)?;
    let delta = &population.evaluated.delta;
    let removals = delta.removals.iter().map(|batch| tag_keys(setup, batch)).collect::<Result<Vec<_>, _>>()?.concat();
    writer.remove("tags", removals.into_iter()).doing(doing)?;
    let upserts = delta.upserts.iter().map(|batch| keyed_tags(setup, batch)).collect::<Result<Vec<_>, _>>()?;
    writer.delta("tags", TAG_KEY, upserts).doing(doing)?;
    let names: Vec<&str> = outreach.plan.campaigns.iter().map(|campaign| campaign.name.as_str()).collect();
    let mut decisions = decisions_of_others(setup, &names)?;
    for batch in outreach.plan.decisions.batches(&names, BATCH_ROWS_MAX * 8) {
        decisions.push(batch.doing(doing)?);
    }
    writer.replace("decisions", None, decisions).doing(doing)
}

/// What the last runs of other pipelines decided: it stands until they run again.
fn decisions_of_others(setup: &Setup<'_>, planned: &[&str]) -> Result<Vec<RecordBatch>, Failure> {
    use arrow::array::{AsArray, BooleanArray};
    let Some(base) = setup.base() else { return Ok(Vec::new()) };
    let doing = || "the decisions of the head cannot be read".to_owned();
    let mut kept = Vec::new();
    for part in base.live("decisions", None).doing(doing)? {
        let batch = part.doing(doing)?.batch;
        let campaigns = batch.column_by_name("campaign").expect("decisions have campaigns").as_string::<i32>();
        let own = |name: &str| planned.contains(&name) || !setup.campaigns.contains_key(name);
        let stays: BooleanArray = campaigns.iter().map(|name| Some(name.is_some_and(|name| !own(name)))).collect();
        let batch = filter_record_batch(&batch, &stays).doing(doing)?;
        kept.extend((batch.num_rows() > 0).then_some(batch));
    }
    Ok(kept)
}

/// A large batch in slices of the size of a row group.
fn slices(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + '_ {
    let rows = BATCH_ROWS_MAX * 8;
    (0..batch.num_rows()).step_by(rows).map(move |from| batch.slice(from, rows.min(batch.num_rows() - from)))
}

/// Ids that are no more: merged into another, or without records. None of them is ever given again.
fn forwards(people: &People) -> Result<Vec<RecordBatch>, Failure> {
    let doing = || "forwards cannot be put into columns".to_owned();
    if people.removed.is_empty() {
        return Ok(Vec::new());
    }
    let into: std::collections::HashMap<MemberId, MemberId> = people.merges.iter().copied().collect();
    let mut from_column = FixedSizeBinaryBuilder::new(16);
    let mut into_column = FixedSizeBinaryBuilder::new(16);
    for id in &people.removed {
        from_column.append_value(id.0).doing(doing)?;
        match into.get(id) {
            Some(into) => into_column.append_value(into.0).doing(doing)?,
            None => into_column.append_null(),
        }
    }
    let schema = Schema::new(vec![
        Field::new(MEMBER_ID, DataType::FixedSizeBinary(16), false),
        Field::new("into", DataType::FixedSizeBinary(16), true),
    ]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(from_column.finish()), Arc::new(into_column.finish())]);
    Ok(vec![batch.doing(doing)?])
}

/// The key of each row of stored tags: a hash of member and tag.
fn tag_keys(setup: &Setup<'_>, batch: &RecordBatch) -> Result<Vec<[u8; 16]>, Failure> {
    use arrow::array::AsArray;
    let lookup = setup.state.keys.lookup();
    let members = batch.column(0).as_fixed_size_binary();
    let tags = batch.column(1).as_string::<i32>();
    let mut text = Vec::new();
    let keys = (0..batch.num_rows()).map(|row| {
        text.clear();
        text.extend_from_slice(members.value(row));
        text.extend_from_slice(tags.value(row).as_bytes());
        lookup.row_hash(&text).to_be_bytes()
    });
    Ok(keys.collect())
}

/// Stored tags with their key before them.
fn keyed_tags(setup: &Setup<'_>, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let doing = || "tags cannot be put into columns".to_owned();
    let mut keys = FixedSizeBinaryBuilder::with_capacity(batch.num_rows(), 16);
    for key in tag_keys(setup, batch)? {
        keys.append_value(key).doing(doing)?;
    }
    let mut fields = vec![Arc::new(Field::new(TAG_KEY, DataType::FixedSizeBinary(16), false))];
    fields.extend(batch.schema().fields().iter().cloned());
    let mut columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(keys.finish())];
    columns.extend(batch.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).doing(doing)
}

fn tasks(setup: &Setup<'_>, run_id: RunId, outreach: &Outreach) -> Vec<NewTask> {
    let new_task = |(campaign, task): (&reunion_outreach::CampaignPlan, &reunion_outreach::PlannedTask)| NewTask {
        task_id: task.task_id,
        campaign: campaign.name.clone(),
        contact: task.contact,
        member: task.member_id,
        touch: task.touch,
        try_number: task.attempt,
        channel: setup.campaigns[&campaign.name].channel.clone(),
        store: task.store.clone(),
        staff: task.staff.clone(),
        group: task.group.clone(),
        not_before_us: setup.clock_us,
        due_us: task.due_us,
        run_id,
        payload: Payload { name: task.name.clone(), phone: task.phone, message: task.message.clone(), reason: task.reason.clone() },
    };
    outreach.plan.tasks().map(new_task).collect()
}

fn arms(outreach: &Outreach) -> Vec<StoredArm> {
    let stored = |campaign: &str, contact: ContactId, arm: Arm| StoredArm {
        campaign: campaign.to_owned(),
        contact,
        arm: match arm {
            Arm::Control => ArmKind::Control,
            Arm::Treatment => ArmKind::Treatment,
        },
    };
    let merged = outreach.merged_arms.iter().map(|(campaign, contact, arm)| stored(campaign, *contact, *arm));
    let drawn =
        outreach.plan.campaigns.iter().flat_map(|of| of.new_arms.iter().map(move |(contact, arm)| stored(&of.name, *contact, *arm)));
    merged.chain(drawn).collect()
}

fn components(setup: &Setup<'_>, people: &People, outreach: &Outreach) -> Vec<Component> {
    let sources = people.schema.sources.keys().map(|origin| &setup.schemas[origin]);
    let sources = sources.map(|schema| Component { kind: ComponentKind::Source, name: schema.name.clone(), seed: None });
    let campaign = |campaign: &reunion_outreach::CampaignPlan| Component {
        kind: ComponentKind::Campaign,
        name: campaign.name.clone(),
        seed: Some(campaign.seed.0),
    };
    sources.chain(outreach.plan.campaigns.iter().map(campaign)).collect()
}
